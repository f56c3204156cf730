"""The use cases of a session as a thing: make one, change one, delete one, fork one.

None of them waits for a model: what runs meanwhile in a session goes on, except in one that is deleted.
"""

from functools import partial
from typing import NamedTuple

from api.ids import new_session_id
from api.turns import decide_session
from api.turns.decide_session import Change, NewSession
from api.turns.directory import session_not_found
from api.turns.eviction import Eviction
from api.turns.lineages import Lineages
from api.turns.refusals import SessionExists, SessionNotFound, TurnNotFound
from api.turns.request import Names, TurnRequest
from api.turns.service import Turns
from api.turns.titles import next_title
from eventstore.events import ForkPoint, TurnCancelled, lineage_stream
from projections.session import Session

_TURN_ID_PREFIXES = ("resp_", "chatcmpl-", "run_")


class Models(NamedTuple):
    """The model that a session was made with, and that of its newest turn; empty where there is none."""

    made_with: str = ""
    newest: str = ""


NO_MODELS = Models()


class Desk:
    """Where sessions of all tenants are made, changed and deleted."""

    def __init__(self, lineages: Lineages, turns: Turns, eviction: Eviction | None = None) -> None:
        self._lineages = lineages
        self._turns = turns
        self._eviction = eviction or Eviction(lineages)

    async def create(self, wanted: NewSession) -> str:
        """Make a session and return its id; raises `SessionExists`. Of two that want one id, one gets it."""
        session_id = await self._free_id(wanted.tenant, wanted.session_id)
        stream = lineage_stream(wanted.tenant, session_id)
        async with self._lineages.held(stream) as session:
            await self._lineages.commit(session, partial(decide_session.create, wanted=wanted))
        self._lineages.directory.learn(wanted.tenant, "session", session_id, session_id)
        return session_id

    async def change(self, tenant: str, session_id: str, wanted: Change) -> str:
        """Rename, annotate or end the newest session of the lineage, and return its id; raises `SessionNotFound`."""
        session = await self._lineages.reader.session(tenant, session_id)
        await self._lineages.commit(session, partial(decide_session.change, wanted=wanted))
        return session.session_id

    async def delete(self, tenant: str, session_id: str) -> None:
        """Delete the lineage, whichever of its ids was named; raises `SessionNotFound`. A turn that is open ends."""
        await self._turns.record_late()
        await self.delete_lineage(await self._lineages.reader.session(tenant, session_id))

    async def delete_lineage(self, session: Session) -> None:
        """Delete a lineage that was found; raises `SessionNotFound` where it has been meanwhile."""
        for event in await self._lineages.commit(session, decide_session.delete):
            if isinstance(event, TurnCancelled):
                self._turns.work.interrupt(event.turn_id)
        self._lineages.directory.forget_lineage(session.tenant, session.root_id)
        self._eviction.forget_lineage(session.tenant, session.root_id)

    async def fork(
        self, tenant: str, source_id: str, *, session_id: str = "", turn_id: str = "", title: str | None = None
    ) -> str:
        """Make a session that goes on behind a turn of another, its newest unless named, and return its id.

        Without a title it continues that of its source. Raises `SessionNotFound`, `TurnNotFound`, `SessionExists`; the
        source is only read.
        """
        source = await self._lineages.reader.session(tenant, source_id)
        began, title = source.started, next_title(source.title) if title is None else title
        if began is None:
            raise session_not_found(source_id)
        point = await self._fork_point(source, turn_id)
        session_id = await self._free_id(tenant, session_id)
        async with self._lineages.held(lineage_stream(tenant, session_id)) as session:
            decision = partial(decide_session.fork, forked_from=point, source=began, title=title)
            await self._lineages.commit(session, decision)
            # Folded again, with what it inherits, by whoever asks for it first.
            self._lineages.sessions.forget(session.stream)
        self._lineages.directory.learn(tenant, "session", session_id, session_id)
        return session_id

    async def models_of(self, request: TurnRequest) -> Models:
        """The models of the session behind a request's names, as far as there are any."""
        place = None
        if request.names != _NO_NAMES:
            place = await self._lineages.directory.find(request.tenant, request.names)
        if place is None:
            return NO_MODELS
        session = await self._lineages.sessions.get(lineage_stream(request.tenant, place.root_id))
        made_with = session.started.model if session.started else ""
        return Models(made_with, session.newest.started.model if session.newest else "")

    async def _free_id(self, tenant: str, session_id: str) -> str:
        """A new id where none is wanted; raises `SessionExists` where the one that is wanted names a session.

        An id that a rotation made is not the name of a stream, so only the views know that it is taken.
        """
        if not session_id:
            return new_session_id()
        try:
            await self._lineages.reader.session(tenant, session_id)
        except SessionNotFound:
            return session_id
        raise SessionExists(f"Session already exists: {session_id}")

    async def _fork_point(self, source: Session, turn_id: str) -> ForkPoint:
        """Where the fork leaves its source; raises `TurnNotFound`."""
        for prefix in _TURN_ID_PREFIXES:
            turn_id = turn_id.removeprefix(prefix)
        turn_id = turn_id or (source.newest.turn_id if source.newest else "")
        if not turn_id:
            return ForkPoint(session_id=source.session_id, root_id=source.root_id, turn_id="")
        lineage = source
        inherited = lineage.up_to(turn_id)
        if inherited is None:
            lineage = await self._lineages.sessions.whole(source.stream)
            inherited = lineage.up_to(turn_id)
        while inherited is None:
            # What a fork shows from before its parent's last rotation is a transcript of that one's alone.
            parent = lineage.started.forked_from if lineage.started else None
            if parent is None or all(turn.turn_id != turn_id for _, turn in lineage.said):
                raise TurnNotFound(f"No completed turn '{turn_id}' in this session: /messages names those there are.")
            lineage = await self._lineages.sessions.whole(lineage_stream(source.tenant, parent.root_id))
            inherited = lineage.up_to(turn_id)
        said_in = next((session_id for session_id, turn in lineage.said if turn.turn_id == turn_id), lineage.session_id)
        return ForkPoint(session_id=said_in, root_id=lineage.root_id, turn_id=turn_id, messages=inherited.messages)


_NO_NAMES = Names()
