"""Runs: turns that go on without their client, each with the lineage that it belongs to."""

from collections.abc import Iterable

from eventstore.events import SessionDeleted, TurnStarted, parse_stream
from eventstore.log import Recorded
from projections.view import Statement, View

SCHEMA = """
CREATE TABLE runs (
    turn_id TEXT PRIMARY KEY,
    tenant  TEXT NOT NULL,
    root_id TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX runs_of_lineage ON runs (tenant, root_id);
"""
INSERT = "INSERT OR IGNORE INTO runs VALUES (?, ?, ?)"
DELETE_ALL = "DELETE FROM runs WHERE tenant = ? AND root_id = ?"
ROOT_OF = "SELECT root_id FROM runs WHERE tenant = ? AND turn_id = ?"


def apply(recorded: Recorded) -> Iterable[Statement]:
    """The rows that an event changes."""
    event = recorded.event
    if isinstance(event, TurnStarted):
        if event.api == "runs":
            _, tenant, root_id = parse_stream(recorded.stream)
            yield INSERT, (event.turn_id, tenant, root_id)
    elif isinstance(event, SessionDeleted):
        _, tenant, root_id = parse_stream(recorded.stream)
        yield DELETE_ALL, (tenant, root_id)


VIEW = View("runs", 1, SCHEMA, (TurnStarted, SessionDeleted), apply)
