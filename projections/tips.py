"""Every session id, with its lineage and the newest session of that: where the next turn goes."""

from collections.abc import Iterable

from eventstore.events import CompressionRotated, SessionDeleted, SessionStarted, parse_stream
from eventstore.log import Recorded
from projections.view import Statement, View

SCHEMA = """
CREATE TABLE tips (
    tenant     TEXT NOT NULL,
    session_id TEXT NOT NULL,
    root_id    TEXT NOT NULL,
    tip_id     TEXT NOT NULL,
    PRIMARY KEY (tenant, session_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX tips_of_lineage ON tips (tenant, root_id);
"""
INSERT = "INSERT OR REPLACE INTO tips VALUES (?, ?, ?, ?)"
MOVE = "UPDATE tips SET tip_id = ? WHERE tenant = ? AND root_id = ?"
DELETE = "DELETE FROM tips WHERE tenant = ? AND root_id = ?"
FIND = "SELECT 1 FROM tips WHERE tenant = ? AND root_id = ? LIMIT 1"
ROOT_OF = "SELECT root_id FROM tips WHERE tenant = ? AND session_id = ?"


def apply(recorded: Recorded) -> Iterable[Statement]:
    """The rows that an event changes."""
    event = recorded.event
    _, tenant, root_id = parse_stream(recorded.stream)
    if isinstance(event, SessionStarted):
        yield INSERT, (tenant, event.session_id, root_id, event.session_id)
    elif isinstance(event, CompressionRotated):
        yield MOVE, (event.session_id, tenant, root_id)
        yield INSERT, (tenant, event.session_id, root_id, event.session_id)
    elif isinstance(event, SessionDeleted):
        yield DELETE, (tenant, root_id)


VIEW = View("tips", 2, SCHEMA, (SessionStarted, CompressionRotated, SessionDeleted), apply)
