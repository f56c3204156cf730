"""Transcripts by their digest: which turn of which lineage has completed what a client resends.

Whose a transcript is, is part of its digest. There is no way from a lineage to its rows but through all of them, so
those of a deleted one are taken out by the positions of its turns, from its past. A transcript that has lost an item is
resent by nobody: the rows of the item's turn and of those behind it go too.
"""

from collections.abc import Iterable

from eventstore.events import ItemRemoved, ItemsAdded, TurnCompleted, parse_stream
from eventstore.log import Recorded
from projections.view import Deletion, Statement, View

# Digests are as good as random: rows stand in the order in which they come, and only the slim index has to be torn open
# for each. That is half of what a table in the order of its digests costs.
SCHEMA = """
CREATE TABLE histories (
    position INTEGER PRIMARY KEY,
    digest   BLOB NOT NULL,
    tenant   TEXT NOT NULL,
    root_id  TEXT NOT NULL,
    turn_id  TEXT NOT NULL
) STRICT;
CREATE INDEX histories_by_digest ON histories (digest)
"""
INSERT = "INSERT INTO histories VALUES (?, ?, ?, ?, ?)"
DELETE = "DELETE FROM histories WHERE position = ?"
CANDIDATES = """SELECT root_id, turn_id FROM histories AS h WHERE digest = ? AND tenant = ?
    AND EXISTS (SELECT 1 FROM tips WHERE tips.tenant = h.tenant AND tips.session_id = h.root_id)
    ORDER BY position DESC LIMIT ?"""


def apply(recorded: Recorded) -> Iterable[Statement]:
    """The rows that an event changes."""
    event = recorded.event
    if isinstance(event, TurnCompleted) and event.history_digest:
        _, tenant, root_id = parse_stream(recorded.stream)
        yield INSERT, (recorded.position, event.history_digest, tenant, root_id, event.turn_id)


def forget(deletion: Deletion) -> Iterable[Statement]:
    """The rows of a lineage that was deleted go; or those from the turn on that lost an item."""
    event, earlier = deletion.recorded.event, deletion.earlier
    first = 0
    if isinstance(event, ItemRemoved):
        # That of a turn which a fork has inherited is in no event here: it is behind none.
        first = max((at.position for at in earlier if _is_of(at, event.turn_id)), default=0)
    for recorded in earlier:
        if isinstance(recorded.event, TurnCompleted) and recorded.position >= first:
            yield DELETE, (recorded.position,)


def _is_of(recorded: Recorded, turn_id: str) -> bool:
    return isinstance(recorded.event, TurnCompleted | ItemsAdded) and recorded.event.turn_id == turn_id


VIEW = View("histories", 1, SCHEMA, (TurnCompleted,), apply, forget=forget, gathered=(INSERT,))
