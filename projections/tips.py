"""Every session id, with its lineage and the newest session of that: where the next turn goes."""

from collections.abc import Iterable

from eventstore.events import SessionStarted, parse_stream
from eventstore.log import Recorded
from projections.view import Statement, View

SCHEMA = """
CREATE TABLE tips (
    tenant     TEXT NOT NULL,
    session_id TEXT NOT NULL,
    root_id    TEXT NOT NULL,
    tip_id     TEXT NOT NULL,
    PRIMARY KEY (tenant, session_id)
) STRICT, WITHOUT ROWID
"""
INSERT = "INSERT INTO tips VALUES (?, ?, ?, ?)"
ROOT_OF = "SELECT root_id FROM tips WHERE tenant = ? AND session_id = ?"


def apply(recorded: Recorded) -> Iterable[Statement]:
    """The rows that an event changes."""
    event = recorded.event
    if isinstance(event, SessionStarted):
        _, tenant, root_id = parse_stream(recorded.stream)
        yield INSERT, (tenant, event.session_id, root_id, event.session_id)


VIEW = View("tips", 1, SCHEMA, (SessionStarted,), apply)
