"""The use cases of a turn: find its place, open it in the log, have the model answer, close it in the log.

Theory of operation. `Turns.turn` is a context: inside it the turn is open and holds its lineage; however the body
ends, the turn is closed in the log before the context is left: completed by `OpenTurn`, or failed or cancelled here.
Nothing of this depends on memory alone: a turn whose end could not be recorded stays open in the log, and whoever
touches the session next closes it (its owner no longer works on it, or its lease has run out).
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from functools import partial

import structlog
from msgspec import structs
from structlog.contextvars import bind_contextvars

from api.ids import new_id
from api.models.model import Answer, Model
from api.turns import decide, decide_late, decide_runs
from api.turns.decide import Begin, Fork
from api.turns.decide_items import check_items
from api.turns.decide_late import Late
from api.turns.degraded import Outage
from api.turns.ending import Ending
from api.turns.entrance import Entrance
from api.turns.eviction import Eviction
from api.turns.histories import Histories
from api.turns.idempotency import Keys, Replayed
from api.turns.lineages import Lineages
from api.turns.memory import Memory, recollected
from api.turns.open_turn import PLAIN, LiveTurn, Marks, OpenTurn
from api.turns.preparation import UNPREPARED, Preparation, Prepared
from api.turns.refusals import LineageBusy, TurnInProgress
from api.turns.request import Names, TurnRequest
from api.turns.rotation import Rotations
from api.turns.work import Work
from eventstore.events import SessionStarted, lineage_stream
from projections import sessions as session_list
from projections.pieces import Pieces
from projections.session import Session
from projections.turn import Turn

_NAMELESS = Names()
LOCK_WAIT_S = 60.0
LEASE_MARGIN_S = 30.0
POLL_S = 0.05

_log = structlog.get_logger()


class Turns:
    """All turns of all tenants; `work` knows which are going on in this process."""

    def __init__(
        self,
        lineages: Lineages,
        model: Model,
        rotations: Rotations,
        *,
        turn_max_s: float,
        lock_wait_s: float = LOCK_WAIT_S,
        eviction: Eviction | None = None,
        restarts_runs: bool = False,
        matches_history: bool = True,
        answers_without_history: bool = False,
        memory: Memory | None = None,
    ) -> None:
        self.work = Work()
        self._lineages = lineages
        self._preparation = Preparation(lineages, rotations, memory)
        self._eviction = eviction or Eviction(lineages)
        self._model = model
        self._lease_ms = int((turn_max_s + LEASE_MARGIN_S) * 1_000)
        self._lock_wait_s = lock_wait_s
        self._keys = Keys(lineages, wait_s=lock_wait_s, is_gone=self.work.is_gone)
        self._histories = Histories(lineages.sessions, lineages.views, matches=matches_history)
        self._ending = Ending(lineages, self._eviction, self.work, restarts_runs=restarts_runs)
        self._entrance = Entrance(lineages, self._eviction, self._histories)
        self._outage: Outage | None = None
        if answers_without_history:
            self._outage = Outage(model, self._command, self._record, self.work.going_on)

    def turn(self, request: TurnRequest) -> AbstractAsyncContextManager[LiveTurn]:
        """Open a turn for the body, whose input is durable by then; or the one that its idempotency key has made.

        Raises `Refusal`, `ModelError`, `LogError`.
        """
        if request.idempotency_key:
            return self._once(request)  # never without the log: only that tells what the key has made
        opened = self._recorded(request)
        return self._outage.covering(opened, request) if self._outage else opened

    def unrecorded(self, request: TurnRequest) -> AbstractAsyncContextManager[LiveTurn]:
        """The same for a turn of which nothing is stored: it sees the transcript that its names lead to, if any."""
        opened = self._unrecorded(request)
        return self._outage.covering(opened, request, is_recorded=False) if self._outage else opened

    async def made_before(self, request: TurnRequest) -> Replayed | None:
        """The turn that the request's idempotency key has made, None where there is none; raises as `Keys.once`."""
        if not request.idempotency_key:
            return None
        with self.work.going_on():
            async with self._keys.once(request) as claim:
                return claim if isinstance(claim, Replayed) else None

    @contextlib.asynccontextmanager
    async def _once(self, request: TurnRequest) -> AsyncIterator[LiveTurn]:
        with self.work.going_on():
            async with self._keys.once(request) as claim:
                if isinstance(claim, Replayed):
                    bind_contextvars(session_id=claim.session_id, turn_id=claim.turn.turn_id)
                    yield claim
                    return
                async with self._recorded(claim.request) as turn:
                    claim.opened(turn)
                    yield turn

    @contextlib.asynccontextmanager
    async def _recorded(self, request: TurnRequest) -> AsyncIterator[LiveTurn]:
        with self.work.going_on():
            session, fork = await self._entrance.enter(request)
            try:
                beginning = partial(self._beginning, session, request, fork)
                prepared = await self._preparation.of(session, request, fork, beginning)
                turn = await self._begin(session, request, prepared)
                try:
                    yield turn
                except BaseException as error:
                    await self._ending.close(session, turn, error)
                    raise
                finally:
                    self.work.end(turn.turn.turn_id)
            finally:
                self._entrance.leave(session)

    @contextlib.asynccontextmanager
    async def again(self, tenant: str, root_id: str, turn_id: str) -> AsyncIterator[OpenTurn]:
        """Take over a turn in the background that a process which is gone left open, and begin it anew.

        Raises `TurnNotOpen` where it can not be, `LogError`.
        """
        with self.work.going_on():
            async with self._lineages.held(lineage_stream(tenant, root_id)) as session:
                restart = partial(decide_runs.restart, turn_id=turn_id, owner=self.work.owner, lease_ms=self._lease_ms)
                await self._lineages.commit(session, restart)
                assert session.open is not None  # noqa: S101 (it was just restarted)
                recalled = session.open.started.recalled
                context = await recollected(self._lineages.sessions, tenant, recalled)
                turn = self._work_on(session, context)
                try:
                    yield turn
                except BaseException as error:
                    await self._ending.close(session, turn, error)
                    raise
                finally:
                    self.work.end(turn_id)

    @contextlib.asynccontextmanager
    async def _unrecorded(self, request: TurnRequest) -> AsyncIterator[LiveTurn]:
        with self.work.going_on():
            session, fork = await self._entrance.look_in(request)
            check_items(session, request)
            command = self._command(session, request, Prepared(fork))
            began = session.started or decide.session_started(command)
            started = decide.started_by(command, session, began)
            turn = Turn(started, command.now_us)

            async def complete(answer: Answer, pieces: Pieces) -> Turn:
                ended = decide.completed_by(started, answer, pieces)
                return Turn(started, turn.started_us, ended, time.time_ns() // 1_000)

            yield OpenTurn(self._model, session, turn, complete, began=began, is_recorded=False)

    async def look_in(self, request: TurnRequest) -> Session:
        """The session that a turn would see which is not to be recorded. Raises `Refusal`, `LogError`."""
        return (await self._entrance.look_in(request))[0]

    async def delete_response(self, tenant: str, response_id: str) -> None:
        """Make a response unaddressable; its turn, session and conversation go on untouched."""
        session, turn = await self._eviction.read(tenant, response_id)
        decision = partial(decide.evict, turn_id=turn.turn_id, reason="deleted", earlier=turn)
        await self._lineages.commit(session, decision)
        self._lineages.directory.forget_response(tenant, turn.turn_id)
        self._eviction.forget(tenant, turn.turn_id)

    async def cancel_left_open(self) -> int:
        """Cancel the turns that a process which is gone left open; for the start, when no other process can be at work.

        Those that can be started `again` are left to that, where the server is told to. Returns how many there were.
        """
        cancelled = 0
        for tenant, root_id, turn_id in await self._lineages.views.fetch(session_list.OPEN_TURNS, ()):
            session = await self._lineages.sessions.get(lineage_stream(tenant, root_id))
            if session.open and self._ending.can_restart(session.open):
                continue
            await self._lineages.commit(session, partial(decide.cancel, turn_id=turn_id, reason="crash"))
            cancelled += 1
        return cancelled

    async def record_late(self) -> None:
        """Record what was answered while the log was out of reach, before something else is done to its session."""
        if self._outage:
            await self._outage.catch_up()

    async def stop(self, grace_s: float) -> None:
        """Take no new turns, give the running ones `grace_s`, cancel what is left; record what waits for the log."""
        loop = asyncio.get_running_loop()
        stop_at = loop.time() + grace_s
        await self.work.stop(grace_s)
        if self._outage:
            await self._outage.stop(max(0.0, stop_at - loop.time()))

    async def _begin(self, session: Session, request: TurnRequest, prepared: Prepared) -> OpenTurn:
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._lock_wait_s
        while True:
            command = self._command(session, request, prepared)
            try:
                await self._lineages.commit(session, partial(decide.begin, command=command))
                break
            except TurnInProgress:
                # Another process is at work on this lineage: the log tells when it is done.
                if loop.time() > give_up:
                    raise LineageBusy(f"another turn of this session has run for {self._lock_wait_s:g} s") from None
                await asyncio.sleep(POLL_S)
                await self._lineages.sessions.catch_up(session)
        opened = self._work_on(
            session, prepared.remembered.context, prepared.marks, is_nameless=request.names == _NAMELESS
        )
        self._learn(session, request, opened.turn)
        return opened

    def _work_on(
        self,
        session: Session,
        context: tuple[bytes, ...],
        marks: Marks = PLAIN,
        *,
        is_nameless: bool = False,
    ) -> OpenTurn:
        """The session's open turn, as it was just opened here."""
        turn = session.open
        assert turn is not None  # noqa: S101 (it was just opened, and the lineage is held)
        self.work.begin(turn.turn_id)

        async def complete(answer: Answer, pieces: Pieces) -> Turn:
            decision = partial(decide.complete, turn_id=turn.turn_id, answer=answer, pieces=pieces)
            await self._lineages.commit(session, decision)
            if is_nameless:
                self._histories.learn(session, turn)
            if self._eviction.counts:
                await self._eviction.made(session, turn)
            return turn

        return OpenTurn(self._model, session, turn, complete, context=context, marks=marks)

    async def _record(self, late: Late) -> None:
        """Record a turn that was answered while the log was out of reach; raises `Refusal`, `LogError`."""
        session, fork = await self._entrance.enter(late.request)
        try:
            command = self._command(session, late.request, Prepared(fork))
            command = structs.replace(command, turn_id=late.turn_id)
            await self._lineages.commit(session, partial(decide_late.record, command=command, late=late))
            self._lineages.directory.learn(session.tenant, "session", session.session_id, session.root_id)
            if turn := session.find(late.turn_id):
                await self._eviction.made(session, turn)
        finally:
            self._entrance.leave(session)

    def _beginning(self, session: Session, request: TurnRequest, fork: Fork | None) -> SessionStarted:
        return decide.session_started(self._command(session, request, Prepared(fork)))

    def _command(self, session: Session, request: TurnRequest, prepared: Prepared = UNPREPARED) -> Begin:
        return Begin(
            request=request,
            turn_id=request.turn_id or new_id(),
            session_id=session.root_id,
            owner=self.work.owner,
            lease_ms=self._lease_ms,
            now_us=time.time_ns() // 1_000,
            is_gone=self.work.is_gone,
            fork=prepared.fork,
            is_there=prepared.is_there,
            uncompressed=prepared.uncompressed,
            recalled=prepared.remembered.recalled,
            idempotency_scope=request.idempotency_scope,
            way=self._model.way(request.model),
        )

    def _learn(self, session: Session, request: TurnRequest, turn: Turn) -> None:
        bind_contextvars(session_id=session.session_id, turn_id=turn.turn_id)
        self._lineages.directory.learn(session.tenant, "session", session.session_id, session.root_id)
        if request.api == "responses":
            self._lineages.directory.learn(session.tenant, "response", turn.turn_id, session.root_id)
