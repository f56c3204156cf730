"""Transcripts by their digest: which turn of which lineage has completed what a client resends.

Whose a transcript is, is part of its digest. There is no way from a lineage to its rows but through all of them, so
those of a deleted one are taken out by the positions of its turns, from its past.
"""

from collections.abc import Iterable

from eventstore.events import TurnCompleted, parse_stream
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
    """The rows of a lineage that was deleted go."""
    for recorded in deletion.earlier:
        if isinstance(recorded.event, TurnCompleted):
            yield DELETE, (recorded.position,)


VIEW = View("histories", 1, SCHEMA, (TurnCompleted,), apply, forget=forget, gathered=(INSERT,))
