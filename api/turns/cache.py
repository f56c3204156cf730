"""The current sessions, folded from their streams and kept while there is room.

Memory is bounded by weight, not by the number of sessions ever seen: the least recently used go first and are folded
again when they are next asked for.
"""

import asyncio
from collections.abc import Iterable, Sequence

from eventstore.events import ForkPoint, ItemsAdded, SessionDeleted, SessionStarted, TurnCompleted, lineage_stream
from eventstore.log import EventLog, Recorded
from projections.generation import NOTHING, Inherited, erased
from projections.session import Session
from projections.turn import Turn

WEIGHT_MAX_BYTES = 48_000_000


class Sessions:
    """The sessions, read through a cache."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._kept: dict[str, tuple[Session, int]] = {}  # least recently used first; with the weight it was kept at
        self._weight_bytes = 0
        self._loading: dict[str, asyncio.Task[Session]] = {}
        self._epoch = 0

    async def get(self, stream: str) -> Session:
        """The lineage's current session; one of version 0 where its stream is empty."""
        if kept := self._kept.pop(stream, None):
            self._kept[stream] = kept
            return kept[0]
        task = self._loading.get(stream)
        if task is None:
            task = self._loading[stream] = asyncio.create_task(self._load(stream))
            task.add_done_callback(lambda done: self._loaded(stream, done))
        # Shielded: whoever gives up waiting must not take the session away from the others.
        return await asyncio.shield(task)

    def keep(self, session: Session) -> None:
        """Put a session that has just moved on back in, as the most recently used.

        One that was read before the last erasure is not: it may have inherited what was erased.
        """
        if self.is_outdated(session):
            return
        if session.open and (kept := self._kept.get(session.stream)) and kept[0] is session:
            return  # a turn has just opened: the session is weighed when that has ended
        weight = session.weight_bytes
        self._drop(session.stream)
        self._kept[session.stream] = (session, weight)
        self._weight_bytes += weight
        while self._weight_bytes > WEIGHT_MAX_BYTES and len(self._kept) > 1:
            self._drop(next(iter(self._kept)))

    async def whole(self, stream: str, until_position: int | None = None) -> Session:
        """The lineage with all its generations, read anew: for what is older than the last rotation, or as it was at a
        position.
        """
        events = await self._log.read(stream)
        if until_position is not None:
            events = [recorded for recorded in events if recorded.position <= until_position]
        return await self._fold(stream, events, keeps_past=True)

    async def fold(self, stream: str, events: Sequence[Recorded], *, keeps_past: bool = False) -> Session:
        """The session that those events, the stream's first ones, lead to: as it was then."""
        return await self._fold(stream, events, keeps_past=keeps_past)

    async def find(self, session: Session, turn_id: str) -> Turn | None:
        """A turn that began in the session's lineage, however many rotations ago."""
        turn = session.find(turn_id)
        if turn or session.generation == 1:
            return turn
        return (await self.whole(session.stream)).find(turn_id)

    async def find_all(self, session: Session, turn_ids: Sequence[str]) -> list[Turn | None]:
        """The same of several turns, of which the lineage is read again once at most."""
        turns = [session.find(turn_id) for turn_id in turn_ids]
        if session.generation == 1 or all(turns):
            return turns
        whole = await self.whole(session.stream)
        return [turn or whole.find(turn_id) for turn, turn_id in zip(turns, turn_ids, strict=True)]

    async def up_to(self, session: Session, turn_id: str) -> Inherited | None:
        """What a fork behind one of the session's turns inherits, however old; None where it is not part of it."""
        return session.up_to(turn_id) or (await self.whole(session.stream)).up_to(turn_id)

    async def catch_up(self, session: Session) -> None:
        """Take in what others have recorded in the session's stream."""
        await self._take_in(session, await self._log.read(session.stream, session.version))

    def forget(self, stream: str) -> None:
        """Have the session folded again when it is next asked for."""
        self._drop(stream)

    def forget_all(self) -> None:
        """Have every session folded again, for something was erased: none that was folded before is kept any more."""
        self._epoch += 1
        self._kept.clear()
        self._loading.clear()
        self._weight_bytes = 0

    def is_outdated(self, session: Session) -> bool:
        """Whether something was erased since the session was read, which it may have inherited, and still hold."""
        return session.epoch != self._epoch

    def _loaded(self, stream: str, task: "asyncio.Task[Session]") -> None:
        if self._loading.get(stream) is task:
            del self._loading[stream]

    def _drop(self, stream: str) -> None:
        if kept := self._kept.pop(stream, None):
            self._weight_bytes -= kept[1]

    async def _load(self, stream: str) -> Session:
        epoch, events = self._epoch, await self._log.read(stream)
        session = await self._fold(stream, events)
        session.epoch = epoch
        if (kept := self._kept.get(stream)) and kept[0].version >= session.version:
            return kept[0]  # a turn has moved on while this was read
        if session.version:
            self.keep(session)
        return session

    async def _fold(self, stream: str, events: Sequence[Recorded], *, keeps_past: bool = False) -> Session:
        session = Session(stream, keeps_past=keeps_past)
        await self._take_in(session, events, keeps_past=keeps_past)
        return session

    async def _take_in(self, session: Session, events: Sequence[Recorded], *, keeps_past: bool = False) -> None:
        for recorded in events:
            if isinstance(recorded.event, SessionStarted) and recorded.event.forked_from:
                fork = recorded.event.forked_from
                inherited = await self._inherited(session.tenant, fork, recorded.position, keeps_past=keeps_past)
                if recorded.version == session.version + 1:
                    session.inherit(inherited)
            take_in(session, (recorded,))

    async def _inherited(self, tenant: str, fork: ForkPoint, position: int, *, keeps_past: bool) -> Inherited:
        """What a fork recorded at `position` inherits: of its parent as that was then, whatever has become of it.

        Positions fall from fork to parent, so that this ends even where ids of deleted sessions were used again.
        """
        parent = lineage_stream(tenant, fork.root_id)
        if not fork.turn_id:
            return NOTHING
        # Nobody waits for what began to load before, so nobody waits for himself: what is loading already may wait for
        # this very fork, as the id of a deleted session may be used again for a fork of its fork.
        if not keeps_past and parent not in self._loading:
            now = await self.get(parent)
            if now.removed_position < position and (found := now.up_to(fork.turn_id)):
                return found
        events = _life_of(fork.turn_id, (e for e in await self._log.read(parent) if e.position < position))
        if not keeps_past and (found := (await self._fold(parent, events)).up_to(fork.turn_id)):
            return found
        return (await self._fold(parent, events, keeps_past=True)).up_to(fork.turn_id) or erased(fork.messages)


def _life_of(turn_id: str, events: Iterable[Recorded]) -> list[Recorded]:
    """The stream up to the deletion behind the turn: a fork may have left just before it, and begun just after."""
    life: list[Recorded] = []
    has_turn = False
    for recorded in events:
        if has_turn and isinstance(recorded.event, SessionDeleted):
            break
        has_turn = has_turn or (
            isinstance(recorded.event, TurnCompleted | ItemsAdded) and recorded.event.turn_id == turn_id
        )
        life.append(recorded)
    return life


def take_in(session: Session, events: Sequence[Recorded]) -> None:
    """Apply what the session has not seen yet; two appends may be acknowledged in one go and told in any order."""
    for recorded in events:
        if recorded.version == session.version + 1:
            session.apply(recorded)
