"""Where a turn goes: the lineage that its names, or the history that it resends, lead to; held, or forked."""

from msgspec import structs

from api.ids import new_session_id
from api.turns import decide
from api.turns.decide import Fork
from api.turns.directory import RESPONSE, Place, conversation_not_found
from api.turns.eviction import Eviction
from api.turns.histories import Histories, is_resent
from api.turns.lineages import Lineages
from api.turns.refusals import NothingNew, PreviousNotFound
from api.turns.request import TurnRequest
from eventstore.events import ForkPoint, lineage_stream
from projections.generation import Inherited
from projections.session import Session


class Entrance:
    """Lets turns in, one at a time for each lineage."""

    def __init__(self, lineages: Lineages, eviction: Eviction, histories: Histories) -> None:
        self._lineages = lineages
        self._eviction = eviction
        self._histories = histories

    async def enter(self, request: TurnRequest) -> tuple[Session, Fork | None]:
        """Wait for the lineage's turn and hold it until `leave`. Behind a turn that is not the newest there is a fork,
        and so there is of a conversation that is only seen.

        Raises `Refusal`, `LogError`.
        """
        if request.seen and request.sight != request.names and (beside := await self._beside(request)):
            return beside
        if not request.items:
            await self._refuse_nothing_new(request)
        return await self._enter(request)

    async def _enter(self, request: TurnRequest) -> tuple[Session, Fork | None]:
        directory = self._lineages.directory
        while True:
            deletions = directory.deletions
            place, matched = await self._place(request)
            if request.turn_id and request.names.conversation:
                request = structs.replace(request, root_id=place.root_id)
            stream = lineage_stream(request.tenant, place.root_id)
            await self._lineages.line.enter(stream, is_patient=bool(request.turn_id))
            try:
                session = await self._lineages.sessions.get(stream)
                is_moved = _leads_elsewhere(request, session)
                if directory.deletions != deletions:
                    is_moved = is_moved or await self._has_lost_name(request, place)
                if not is_moved and (not place.after or await self._goes_on(session, place, matched)):
                    return session, None
                fork = None if is_moved else await self._fork(request, session, place, is_matched=matched)
            except BaseException:
                self._lineages.line.leave(stream)
                raise
            self._lineages.line.leave(stream)
            if fork:
                forked, _ = fork
                await self._lineages.line.enter(forked.stream)
                return fork

    async def _place(self, request: TurnRequest) -> tuple[Place, bool]:
        """Where the turn goes, and whether that is known by its history."""
        directory = self._lineages.directory
        if request.must_exist:
            await directory.session(request.tenant, request.names.session_id)
        if request.root_id:
            return await self._waited_for(request), False
        matched = await self._histories.find(request) if request.history else None
        return matched or await directory.place(request.tenant, request.names), matched is not None

    async def _beside(self, request: TurnRequest) -> tuple[Session, Fork | None] | None:
        """A session of its own behind all that was said in the conversation that is seen; None where nothing was."""
        place = await self._lineages.directory.find(request.tenant, request.sight)
        session = place and await self._lineages.sessions.get(lineage_stream(request.tenant, place.root_id))
        if not session or not session.newest:
            return None
        stream = lineage_stream(request.tenant, new_session_id())
        forked, fork = await self._forked(session, session.newest.turn_id, stream)
        await self._lineages.line.enter(stream)
        return forked, fork

    async def _waited_for(self, request: TurnRequest) -> Place:
        """Where a queued turn goes; raises `ConversationNotFound` where its conversation was deleted since."""
        place = await self._lineages.directory.find(request.tenant, request.names)
        if place is None or place.root_id != request.root_id:
            raise conversation_not_found(request.names.conversation)
        return place

    async def _has_lost_name(self, request: TurnRequest, place: Place) -> bool:
        """Whether the turn's conversation, if it names one, was deleted while it waited; all is asked again then."""
        if not request.names.conversation:
            return False
        found = await self._lineages.directory.find(request.tenant, request.names)
        return found is None or found.root_id != place.root_id

    async def _goes_on(self, session: Session, place: Place, is_matched: bool) -> bool:
        """Whether the turn joins the session's end; raises `PreviousNotFound` where it may not even fork."""
        if not is_matched:
            await self._eviction.continue_from(session, place.after)
        newest = session.newest
        return newest is not None and newest.turn_id == place.after and (not is_matched or is_resent(newest))

    async def _fork(
        self, request: TurnRequest, session: Session, place: Place, *, is_matched: bool
    ) -> tuple[Session, Fork | None]:
        """A session of its own behind a turn that is not the newest."""
        stream = lineage_stream(request.tenant, new_session_id())
        if not is_matched:
            return await self._forked(session, place.after, stream)
        if not await self._histories.still_there(request, session, place.after):
            return Session(stream), None  # deleted while this turn waited for it
        # Its client sent words that were said before, and knows of no session: it takes over nothing but those.
        forked, fork = await self._forked(session, place.after, stream)
        return forked, Fork(fork.point)

    def leave(self, session: Session) -> None:
        """Let the next turn of the lineage in."""
        self._lineages.line.leave(session.stream)

    async def look_in(self, request: TurnRequest) -> tuple[Session, Fork | None]:
        """The session that `enter` would lead to, neither held nor claimed: for turns of which nothing is stored."""
        place = await self._lineages.directory.find(request.tenant, request.sight)
        if place is None:
            return Session(lineage_stream(request.tenant, "")), None
        session = await self._lineages.sessions.get(lineage_stream(request.tenant, place.root_id))
        if not place.after:
            return session, None
        await self._eviction.continue_from(session, place.after)
        return await self._forked(session, place.after, session.stream)

    async def _forked(self, session: Session, turn_id: str, stream: str) -> tuple[Session, Fork]:
        inherited = await self._behind(session, turn_id)
        point = ForkPoint(
            session_id=session.session_id, root_id=session.root_id, turn_id=turn_id, messages=inherited.messages
        )
        return Session(stream, inherited), Fork(point, session.started, session.title)

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


def _leads_elsewhere(request: TurnRequest, session: Session) -> bool:
    """Whether the lineage was deleted while the turn waited for it, and its name is free by now: to be asked again."""
    is_deleted = session.started is None and session.version > 0
    return is_deleted and (request.must_exist or request.names.session_id not in ("", session.root_id))
