"""Finds the session whose transcript a client resends, which knows nothing of sessions.

In memory first: the client's previous turn was a moment ago, mostly, and its next waits for no view then. Found is only
what still is: a session that was deleted, or a turn that is another user's, is none.
"""

from collections.abc import Sequence

from api.turns.cache import Sessions
from api.turns.directory import KNOWN_MAX, Place, Views
from api.turns.history import UNKNOWN, Scope, asked_scope, digest_asked, scope_of
from api.turns.request import TurnRequest
from eventstore.events import TurnCompleted, lineage_stream
from projections import histories
from projections.session import Session
from projections.turn import Turn

CANDIDATES_MAX = 10  # equal transcripts that are looked at, newest first


class Histories:
    """The transcripts of all tenants, by their digests."""

    def __init__(self, sessions: Sessions, views: Views, *, matches: bool) -> None:
        self._sessions = sessions
        self._views = views
        self._matches = matches
        self._known: dict[tuple[str, bytes], Place] = {}

    async def find(self, request: TurnRequest) -> Place | None:
        """The turn behind which the request goes on: the newest one of a session, where there is such a session.

        None where the transcript that it resends is not known, or where nobody is to look.
        """
        if not request.history or not self._matches:
            return None
        digest = digest_asked(request)
        known = self._known.get((request.tenant, digest))
        if known and await self._is_newest(request, known):
            return known
        rows = await self._views.fetch(histories.CANDIDATES, (digest, request.tenant, CANDIDATES_MAX))
        return await self._best(request, [Place(*row) for row in rows])

    async def still_there(self, request: TurnRequest, session: Session, turn_id: str) -> bool:
        """Whether a turn that was found is part of the session now, and the requester's."""
        newest = session.newest
        if newest and newest.turn_id == turn_id:
            return _is_of(session, newest, asked_scope(request))
        turn = await self._sessions.find(session, turn_id)
        return turn is not None and _is_of(session, turn, asked_scope(request))

    def learn(self, session: Session, turn: Turn) -> None:
        """Remember a turn that has just completed."""
        if self._matches and isinstance(turn.ended, TurnCompleted):
            key = (session.tenant, turn.ended.history_digest)
            self._known.pop(key, None)  # the newest are last, and the oldest go first
            self._known[key] = Place(session.root_id, turn.turn_id)
            if len(self._known) > KNOWN_MAX:
                del self._known[next(iter(self._known))]

    async def _best(self, request: TurnRequest, candidates: Sequence[Place]) -> Place | None:
        for candidate in candidates:
            if await self._is_newest(request, candidate):
                return candidate
        for candidate in candidates:
            session = await self._sessions.get(lineage_stream(request.tenant, candidate.root_id))
            if await self.still_there(request, session, candidate.after):
                return candidate
        return None

    async def _is_newest(self, request: TurnRequest, place: Place) -> bool:
        session = await self._sessions.get(lineage_stream(request.tenant, place.root_id))
        newest = session.newest
        if newest is None or newest.turn_id != place.after:
            return False
        return _is_of(session, newest, asked_scope(request))


def _is_of(session: Session, turn: Turn, scope: Scope) -> bool:
    """Whether it is the requester's, in a session that adds nothing to what its clients send, and has lost nothing."""
    is_plain = session.started is not None and not session.started.system_prompt
    return is_plain and is_resent(turn) and scope_of(session, turn.started) == scope


def is_resent(turn: Turn) -> bool:
    """Whether a client may still resend the transcript up to and with the turn: until it lost an item."""
    return isinstance(turn.ended, TurnCompleted) and turn.ended.history_digest != UNKNOWN
