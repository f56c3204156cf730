"""Turns that were asked for and have not begun, in the order in which they came."""

from collections.abc import Iterable

from eventstore.events import TurnDequeued, TurnQueued, parse_stream
from eventstore.log import Recorded
from projections.view import Statement, View

SCHEMA = """
CREATE TABLE queued (
    position INTEGER PRIMARY KEY,
    tenant   TEXT NOT NULL,
    turn_id  TEXT NOT NULL UNIQUE
) STRICT;
"""
INSERT = "INSERT OR IGNORE INTO queued VALUES (?, ?, ?)"
DELETE = "DELETE FROM queued WHERE turn_id = ?"
FIND = "SELECT 1 FROM queued WHERE tenant = ? AND turn_id = ?"
ALL = "SELECT tenant, turn_id FROM queued ORDER BY position"


def apply(recorded: Recorded) -> Iterable[Statement]:
    """The rows that an event changes."""
    event = recorded.event
    if isinstance(event, TurnQueued):
        yield INSERT, (recorded.position, parse_stream(recorded.stream).tenant, event.turn_id)
    elif isinstance(event, TurnDequeued):
        yield DELETE, (event.turn_id,)


VIEW = View("queued", 1, SCHEMA, (TurnQueued, TurnDequeued), apply)
