"""Where a turn goes: the lineage that its names, or the history that it resends, lead to; held, or forked."""

from api.ids import new_session_id
from api.turns import decide
from api.turns.decide import Fork
from api.turns.directory import RESPONSE
from api.turns.eviction import Eviction
from api.turns.histories import Histories
from api.turns.lineages import Lineages
from api.turns.refusals import NothingNew, PreviousNotFound
from api.turns.request import TurnRequest
from eventstore.events import ForkPoint, lineage_stream
from projections.session import NOTHING, Inherited, Session


class Entrance:
    """Lets turns in, one at a time for each lineage."""

    def __init__(self, lineages: Lineages, eviction: Eviction, histories: Histories) -> None:
        self._lineages = lineages
        self._eviction = eviction
        self._histories = histories

    async def enter(self, request: TurnRequest) -> tuple[Session, Fork | None]:
        """Wait for the lineage's turn and hold it until `leave`. Behind a turn that is not the newest there is a fork.

        Raises `Refusal`, `LogError`.
        """
        if not request.items:
            await self._refuse_nothing_new(request)
        matched = await self._histories.find(request)
        root_id, after = matched or await self._lineages.directory.place(request.tenant, request.names)
        stream = lineage_stream(request.tenant, root_id)
        await self._lineages.line.enter(stream)
        try:
            session = await self._lineages.sessions.get(stream)
            if after and not matched:
                await self._eviction.continue_from(session, after)
            if not after or (session.newest and session.newest.turn_id == after):
                return session, None
            if matched and not await self._histories.still_there(request, session, after):
                inherited, fork = NOTHING, None  # deleted while this turn waited for it
            else:
                inherited, fork = await self._behind(session, after), _fork_of(session, after)
        except BaseException:
            self._lineages.line.leave(stream)
            raise
        self._lineages.line.leave(stream)
        forked = Session(lineage_stream(request.tenant, new_session_id()), inherited)
        await self._lineages.line.enter(forked.stream)
        return forked, fork

    def leave(self, session: Session) -> None:
        """Let the next turn of the lineage in."""
        self._lineages.line.leave(session.stream)

    async def look_in(self, request: TurnRequest) -> tuple[Session, Fork | None]:
        """The session that `enter` would lead to, neither held nor claimed: for turns of which nothing is stored."""
        place = await self._lineages.directory.find(request.tenant, request.names)
        if place is None:
            return Session(lineage_stream(request.tenant, "")), None
        session = await self._lineages.sessions.get(lineage_stream(request.tenant, place.root_id))
        if not place.after:
            return session, None
        await self._eviction.continue_from(session, place.after)
        return Session(session.stream, await self._behind(session, place.after)), _fork_of(session, place.after)

    async def _behind(self, session: Session, turn_id: str) -> Inherited:
        """What a fork behind that turn inherits; raises `PreviousNotFound` unless it is part of the transcript."""
        inherited = await self._lineages.sessions.up_to(session, turn_id)
        if inherited is None:
            raise PreviousNotFound(f"Response {RESPONSE}{turn_id} was not completed: continue from the one before it.")
        return inherited

    async def _refuse_nothing_new(self, request: TurnRequest) -> None:
        """Before a conversation is claimed: without new items, only a session without a transcript can have a turn."""
        place = await self._lineages.directory.find(request.tenant, request.names)
        if place and (await self._lineages.sessions.get(lineage_stream(request.tenant, place.root_id))).newest:
            raise NothingNew(decide.NOTHING_NEW)


def _fork_of(session: Session, turn_id: str) -> Fork:
    """A fork of the session behind one of its turns."""
    point = ForkPoint(session_id=session.session_id, root_id=session.root_id, turn_id=turn_id)
    return Fork(point, session.started, session.title)
