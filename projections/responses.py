"""Responses that can be addressed by id, and the lineage each belongs to. An evicted one has no row."""

from collections.abc import Iterable

from eventstore.events import ResponseEvicted, SessionDeleted, TurnStarted, parse_stream
from eventstore.log import Recorded
from projections.view import Statement, View

SCHEMA = """
CREATE TABLE responses (
    turn_id TEXT PRIMARY KEY,
    tenant  TEXT NOT NULL,
    root_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX responses_of_lineage ON responses (tenant, root_id);
"""
INSERT = "INSERT INTO responses VALUES (?, ?, ?)"
DELETE = "DELETE FROM responses WHERE turn_id = ?"
DELETE_ALL = "DELETE FROM responses WHERE tenant = ? AND root_id = ?"
ROOT_OF = "SELECT root_id FROM responses WHERE tenant = ? AND turn_id = ?"


def apply(recorded: Recorded) -> Iterable[Statement]:
    """The rows that an event changes."""
    event = recorded.event
    if isinstance(event, TurnStarted):
        if event.api == "responses":
            _, tenant, root_id = parse_stream(recorded.stream)
            yield INSERT, (event.turn_id, tenant, root_id)
    elif isinstance(event, ResponseEvicted):
        yield DELETE, (event.turn_id,)
    elif isinstance(event, SessionDeleted):
        _, tenant, root_id = parse_stream(recorded.stream)
        yield DELETE_ALL, (tenant, root_id)


VIEW = View("responses", 2, SCHEMA, (TurnStarted, ResponseEvicted, SessionDeleted), apply)
