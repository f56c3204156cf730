"""The use cases of a turn: find its place, open it in the log, have the model answer, close it in the log.

Theory of operation. `Turns.turn` is a context: inside it the turn is open and holds its lineage; however the body
ends, the turn is closed in the log before the context is left: completed by `OpenTurn`, or failed or cancelled here.
Nothing of this depends on memory alone: a turn whose end could not be recorded stays open in the log, and whoever
touches the session next closes it (its owner no longer works on it, or its lease has run out).
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import NamedTuple

import structlog
from structlog.contextvars import bind_contextvars

from api.ids import new_id, new_session_id
from api.models.model import Answer, Model, ModelError, ModelRefused
from api.turns import decide, decide_runs
from api.turns.decide import Begin, Failure
from api.turns.directory import RESPONSE
from api.turns.eviction import Eviction
from api.turns.idempotency import Keys, Replayed
from api.turns.lineages import Lineages
from api.turns.open_turn import PLAIN, LiveTurn, Marks, OpenTurn
from api.turns.refusals import LineageBusy, NothingNew, PreviousNotFound, Refusal, ShuttingDown, TurnInProgress
from api.turns.request import TurnRequest
from api.turns.rotation import Rotations
from eventstore.events import CancelReason, Event, ForkPoint, lineage_stream
from eventstore.log import LogError
from projections import sessions as session_list
from projections.session import Inherited, Session, Turn

LOCK_WAIT_S = 60.0
LEASE_MARGIN_S = 30.0
POLL_S = 0.05
CLOSE_S = 5.0  # for cancelled turns to be recorded; a client that does not read must not hold up a shutdown

_log = structlog.get_logger()


class Prepared(NamedTuple):
    """What was found out before a turn begins."""

    forked_from: ForkPoint | None = None
    uncompressed: str = ""
    marks: Marks = PLAIN


class Turns:
    """All turns of all tenants."""

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
    ) -> None:
        self._lineages = lineages
        self._eviction = eviction or Eviction(lineages)
        self._model = model
        self._rotations = rotations
        self._owner = new_id()
        self._lease_ms = int((turn_max_s + LEASE_MARGIN_S) * 1_000)
        self._lock_wait_s = lock_wait_s
        self._restarts_runs = restarts_runs
        self._running: set[str] = set()
        self._tasks: set[asyncio.Task[object]] = set()
        self._draining = False
        self._keys = Keys(lineages, wait_s=lock_wait_s, is_gone=self._is_gone)

    def turn(self, request: TurnRequest) -> AbstractAsyncContextManager[LiveTurn]:
        """Open a turn for the body, whose input is durable by then; or the one that its idempotency key has made.

        Raises `Refusal`, `ModelError`, `LogError`.
        """
        return self._once(request) if request.idempotency_key else self._opened(request)

    @contextlib.asynccontextmanager
    async def _once(self, request: TurnRequest) -> AsyncIterator[LiveTurn]:
        with self._at_work():
            async with self._keys.once(request) as claim:
                if isinstance(claim, Replayed):
                    bind_contextvars(session_id=claim.session_id, turn_id=claim.turn.turn_id)
                    yield claim
                    return
                async with self._opened(claim.request) as turn:
                    claim.opened(turn)
                    yield turn

    @contextlib.asynccontextmanager
    async def _opened(self, request: TurnRequest) -> AsyncIterator[LiveTurn]:
        with self._at_work():
            session, forked_from = await self._enter(request)
            try:
                turn = await self._begin(session, request, await self._prepare(session, request, forked_from))
                async with self._until_closed(session, turn):
                    yield turn
            finally:
                self._lineages.line.leave(session.stream)

    @contextlib.asynccontextmanager
    async def again(self, tenant: str, root_id: str, turn_id: str) -> AsyncIterator[OpenTurn]:
        """Take over a turn in the background that a process which is gone left open, and begin it anew.

        Raises `TurnNotOpen` where it can not be, `LogError`.
        """
        with self._at_work():
            async with self._lineages.held(lineage_stream(tenant, root_id)) as session:
                restart = partial(decide_runs.restart, turn_id=turn_id, owner=self._owner, lease_ms=self._lease_ms)
                await self._lineages.commit(session, restart)
                turn = self._work_on(session)
                async with self._until_closed(session, turn):
                    yield turn

    @contextlib.asynccontextmanager
    async def unrecorded(self, request: TurnRequest) -> AsyncIterator[LiveTurn]:
        """The same for a turn of which nothing is stored: it sees the transcript that its names lead to, if any."""
        with self._at_work():
            place = await self._lineages.directory.find(request.tenant, request.names)
            session = Session(lineage_stream(request.tenant, ""))
            if place:
                session = await self._lineages.sessions.get(lineage_stream(request.tenant, place.root_id))
            if place and place.after:
                await self._eviction.continue_from(session, place.after)
                session = Session(session.stream, await self._behind(session, place.after))
            command = self._command(session, request, Prepared())
            started = decide.started_by(command, session, decide.session_started(command))
            turn = Turn(started, command.now_us)

            async def complete(answer: Answer, delta_lengths: tuple[int, ...]) -> Turn:
                ended = decide.completed_by(started, answer, delta_lengths)
                return Turn(started, turn.started_us, ended, time.time_ns() // 1_000)

            yield OpenTurn(self._model, session, turn, complete, is_recorded=False)

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
            if session.open and self._can_restart(session.open):
                continue
            await self._lineages.commit(session, partial(decide.cancel, turn_id=turn_id, reason="crash"))
            cancelled += 1
        return cancelled

    async def stop(self, grace_s: float) -> None:
        """Take no new turns, give the running ones `grace_s`, and cancel what is left."""
        self._draining = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        left = list(self._tasks)
        for task in left:
            task.cancel()
        if left:
            _log.warning("turns cancelled by shutdown", turns=len(left), grace_s=grace_s)
            await asyncio.wait(left, timeout=CLOSE_S)

    @property
    def is_draining(self) -> bool:
        """Whether the server is stopping."""
        return self._draining

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        """Count the task among those that a shutdown waits for, and tell a shutdown from a client that hung up."""
        if self._draining:
            raise ShuttingDown("the server is stopping: try again in a moment")
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (every coroutine runs in a task)
        self._tasks.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if not self.is_draining:
                raise
            task.uncancel()
            raise ShuttingDown("the server stopped before the answer was whole: try again in a moment") from None
        finally:
            self._tasks.discard(task)

    async def _enter(self, request: TurnRequest) -> tuple[Session, ForkPoint | None]:
        """Wait for the lineage's turn and hold it; one behind a turn that is not the newest gets a fork of its own."""
        if not request.items:
            await self._refuse_nothing_new(request)
        root_id, after = await self._lineages.directory.place(request.tenant, request.names)
        stream = lineage_stream(request.tenant, root_id)
        await self._lineages.line.enter(stream)
        try:
            session = await self._lineages.sessions.get(stream)
            if after:
                await self._eviction.continue_from(session, after)
            if not after or (session.newest and session.newest.turn_id == after):
                return session, None
            fork = Session(lineage_stream(request.tenant, new_session_id()), await self._behind(session, after))
        except BaseException:
            self._lineages.line.leave(stream)
            raise
        self._lineages.line.leave(stream)
        await self._lineages.line.enter(fork.stream)
        return fork, ForkPoint(session_id=session.session_id, root_id=root_id, turn_id=after)

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

    async def _prepare(self, session: Session, request: TurnRequest, forked_from: ForkPoint | None) -> Prepared:
        """All that comes before a turn that is held its place: its session is compressed where it must be."""
        begin = partial(self._command, session, request, Prepared(forked_from=forked_from))
        outcome = await self._rotations.before_turn(session, request, lambda: decide.session_started(begin()))
        marks = Marks(compression=outcome.mark) if outcome.mark else PLAIN
        return Prepared(forked_from=forked_from, uncompressed=outcome.uncompressed, marks=marks)

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
        opened = self._work_on(session, prepared.marks)
        self._learn(session, request, opened.turn)
        return opened

    def _work_on(self, session: Session, marks: Marks = PLAIN) -> OpenTurn:
        """The session's open turn, as it was just opened here."""
        turn = session.open
        assert turn is not None  # noqa: S101 (it was just opened, and the lineage is held)
        self._running.add(turn.turn_id)

        async def complete(answer: Answer, delta_lengths: tuple[int, ...]) -> Turn:
            decision = partial(decide.complete, turn_id=turn.turn_id, answer=answer, delta_lengths=delta_lengths)
            await self._lineages.commit(session, decision)
            await self._eviction.made(session, turn)
            return turn

        return OpenTurn(self._model, session, turn, complete, marks=marks)

    @contextlib.asynccontextmanager
    async def _until_closed(self, session: Session, turn: OpenTurn) -> AsyncIterator[None]:
        """Inside, the turn is at work; however the body ends, it is closed in the log."""
        try:
            yield
        except BaseException as error:
            await self._close(session, turn, error)
            raise
        finally:
            self._running.discard(turn.turn.turn_id)

    def _can_restart(self, turn: Turn) -> bool:
        return self._restarts_runs and decide_runs.can_restart(turn)

    def _command(self, session: Session, request: TurnRequest, prepared: Prepared) -> Begin:
        return Begin(
            request=request,
            turn_id=new_id(),
            session_id=session.root_id,
            owner=self._owner,
            lease_ms=self._lease_ms,
            now_us=time.time_ns() // 1_000,
            is_gone=self._is_gone,
            forked_from=prepared.forked_from,
            uncompressed=prepared.uncompressed,
            idempotency_scope=request.idempotency_scope,
        )

    def _is_gone(self, turn: Turn) -> bool:
        """Whether the open turn is this server's, which no longer works on it."""
        return turn.owner == self._owner and turn.turn_id not in self._running

    def _learn(self, session: Session, request: TurnRequest, turn: Turn) -> None:
        bind_contextvars(session_id=session.session_id, turn_id=turn.turn_id)
        self._lineages.directory.learn(session.tenant, "session", session.session_id, session.root_id)
        if request.api == "responses":
            self._lineages.directory.learn(session.tenant, "response", turn.turn_id, session.root_id)

    async def _close(self, session: Session, turn: LiveTurn, error: BaseException) -> None:
        """Record how a turn ended that did not complete."""
        turn_id, said = turn.turn.turn_id, turn.partial()
        if session.open is None or session.open.turn_id != turn_id:
            return  # it had ended before: only the way to the client was cut
        ending: Callable[[Session], Sequence[Event]]
        if isinstance(error, asyncio.CancelledError | ConnectionError):
            is_cut = self._draining and turn.cancel_reason != "client"
            if is_cut and self._can_restart(turn.turn):
                return  # stays open in the log: the next start goes on with it, as after a crash
            reason: CancelReason = "shutdown" if is_cut else turn.cancel_reason
            ending = partial(decide.cancel, turn_id=turn_id, reason=reason, said=said)
        else:
            ending = partial(decide.fail, turn_id=turn_id, failure=_failure(error), said=said)
        try:
            await self._lineages.commit(session, ending)
            await self._eviction.made(session, turn.turn)
        except (LogError, Refusal) as problem:
            # Still open in the log, or ended by somebody else; the next turn of the session sees to it.
            _log.error("the end of a turn was not recorded", turn_id=turn_id, reason=str(problem))


def _failure(error: BaseException) -> Failure:
    if isinstance(error, ModelError):
        return Failure(error.code, str(error), error.status if isinstance(error, ModelRefused) else 0)
    return Failure("internal_error", f"{type(error).__name__}: {error}", 500)
