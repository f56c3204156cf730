"""Responses that can be addressed by id, the lineage each belongs to, and its last use. An evicted one has no row."""

from collections.abc import Iterable

from eventstore.events import ResponseEvicted, SessionDeleted, TurnStarted, parse_stream
from eventstore.log import Recorded
from projections.view import Statement, View

PREFIX = "resp_"  # of a turn's id, as the id of its response

SCHEMA = """
CREATE TABLE responses (
    turn_id TEXT PRIMARY KEY,
    tenant  TEXT NOT NULL,
    root_id TEXT NOT NULL,
    used_us INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX responses_of_lineage ON responses (tenant, root_id);
"""
INSERT = "INSERT INTO responses VALUES (?, ?, ?, ?)"
USE = "UPDATE responses SET used_us = ? WHERE turn_id = ? AND tenant = ?"
DELETE = "DELETE FROM responses WHERE turn_id = ?"
DELETE_ALL = "DELETE FROM responses WHERE tenant = ? AND root_id = ?"
ROOT_OF = "SELECT root_id FROM responses WHERE tenant = ? AND turn_id = ?"

NEWEST = "SELECT turn_id, root_id FROM responses WHERE tenant = ? ORDER BY used_us DESC, turn_id DESC LIMIT ?"
MORE_THAN = "SELECT tenant FROM responses GROUP BY tenant HAVING count(*) > ?"
MADE_BEFORE = """SELECT tenant, root_id, turn_id FROM responses WHERE turn_id > ? AND turn_id < ?
    ORDER BY turn_id LIMIT ?"""
OF_TENANT = """SELECT tenant, root_id, turn_id FROM responses WHERE tenant = ? AND turn_id > ?
    ORDER BY turn_id LIMIT ?"""


def apply(recorded: Recorded) -> Iterable[Statement]:
    """The rows that an event changes."""
    event = recorded.event
    if isinstance(event, TurnStarted):
        is_response = event.api == "responses"
        if not (is_response or event.previous_response_id):
            return
        _, tenant, root_id = parse_stream(recorded.stream)
        if event.previous_response_id:
            yield USE, (recorded.recorded_us, event.previous_response_id.removeprefix(PREFIX), tenant)
        if is_response:
            yield INSERT, (event.turn_id, tenant, root_id, recorded.recorded_us)
    elif isinstance(event, ResponseEvicted):
        yield DELETE, (event.turn_id,)
    elif isinstance(event, SessionDeleted):
        _, tenant, root_id = parse_stream(recorded.stream)
        yield DELETE_ALL, (tenant, root_id)


VIEW = View("responses", 3, SCHEMA, (TurnStarted, ResponseEvicted, SessionDeleted), apply)
