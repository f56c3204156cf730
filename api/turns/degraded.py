"""Turns while the log is out of reach, where they are to be answered all the same: `history_on_failure = "empty"`.

Theory of operation. A turn that can not be opened, because its session can not be read or its input not be recorded, is
answered from what its request holds: the model sees no history, and the client is told. The finished turn waits here,
and is recorded at the end of its session, in the order in which turns were answered, as soon as the log takes it:
retried with growing rests, and before any later turn is opened. Names that could not be resolved for lack of the log
are resolved then; a turn that is refused then is told to the operator, whole. A turn in the background is not answered:
whoever asks for one by its id is told what the log has.

Waiting turns are in memory alone. There are no more than `WAITING_MAX` of `WAITING_MAX_BYTES`: after that the client is
told what is wrong with the log. Each is in the structured log as it comes and as it goes, so that what a crash has cost
can be read there.
"""

import asyncio
import contextlib
import contextvars
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager

import msgspec
import structlog

from api.ids import new_session_id
from api.models.model import Answer, Model
from api.turns import decide
from api.turns.decide import Begin
from api.turns.decide_late import Late
from api.turns.open_turn import LiveTurn, Marks, OpenTurn
from api.turns.refusals import LineageBusy, Refusal, TurnInProgress
from api.turns.request import Names, TurnRequest
from eventstore.events import lineage_stream
from eventstore.log import LogError, LogUnavailable
from projections.pieces import Pieces
from projections.runner import ViewsUnavailable
from projections.session import Session
from projections.store import ViewsUnusable
from projections.turn import Turn

WAITING_MAX = 1_000
WAITING_MAX_BYTES = 32_000_000
REST_S = 0.25
REST_MAX_S = 15.0
CATCH_UP_S = 1.0  # how long a new turn waits for those that were answered before it
STOP_S = 5.0  # for the last attempt at a stop

# What the log, or what is read in its stead, is out of reach with. A damaged log is not: it shuts every route.
OUT_OF_REACH = (LogUnavailable, ViewsUnavailable, ViewsUnusable)
_NOT_YET = (LogError, ViewsUnavailable, ViewsUnusable, LineageBusy, TurnInProgress)
_NO_HISTORY = Marks(has_history=False)

_log = structlog.get_logger()


class Outage:
    """The turns that are answered without history.

    `command` makes the command that would open a turn of a session, `record` records a finished one in its session.
    """

    def __init__(
        self,
        model: Model,
        command: Callable[[Session, TurnRequest], Begin],
        record: Callable[[Late], Awaitable[None]],
        at_work: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._model = model
        self._command = command
        self._record = record
        self._at_work = at_work
        self._waiting: deque[Late] = deque()
        self._waiting_bytes = 0
        self._answering = 0  # turns that will wait once they are answered
        self._answering_bytes = 0
        self._attempt: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def covering(
        self, opened: AbstractAsyncContextManager[LiveTurn], request: TurnRequest, *, is_recorded: bool = True
    ) -> AsyncIterator[LiveTurn]:
        """The turn that `opened` is, or one without history where it can not be opened for lack of the log."""
        await self.catch_up()
        async with contextlib.AsyncExitStack() as stack:
            try:
                turn = await stack.enter_async_context(opened)
            except OUT_OF_REACH as error:
                if request.background:
                    raise  # its client could ask nobody for it: it is told of by the log alone
                stack.enter_context(self._at_work())
                if is_recorded:
                    stack.enter_context(self._room(request, error))
                turn = self._without_history(request, error, is_recorded=is_recorded)
            yield turn

    async def catch_up(self) -> None:
        """Record what waits, as far as that goes in a moment."""
        if self._waiting:
            await self._try(CATCH_UP_S)

    async def stop(self, wait_s: float) -> None:
        """Record what waits: one attempt, and more while `wait_s` lasts. What is left then is told, and lost."""
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
        loop = asyncio.get_running_loop()
        give_up = loop.time() + wait_s
        if self._waiting:
            await self._try(max(wait_s, STOP_S))
        while self._waiting and loop.time() + REST_S < give_up:
            await asyncio.sleep(REST_S)
            await self._try(give_up - loop.time())
        if self._attempt and not self._attempt.done():
            self._attempt.cancel()
            await asyncio.wait([self._attempt])
        for late in self._waiting:
            _log.error("a turn that was answered without history is lost", **_whole(late))
        self._waiting.clear()
        self._waiting_bytes = 0

    def _without_history(self, request: TurnRequest, reason: Exception, *, is_recorded: bool) -> OpenTurn:
        """A turn of what the request holds: what is new where it names a session, else everything."""
        is_nameless = request.names == Names()
        if is_nameless:
            request = msgspec.structs.replace(request, names=Names(new_session_id()), history=0)
        shown = request if is_nameless else msgspec.structs.replace(request, opening=request.items)
        if not shown.opening:
            raise reason  # nothing new, unless the session has no transcript: only the log knows
        session = Session(lineage_stream(request.tenant, request.names.session_id))
        command = self._command(session, shown)
        turn = Turn(decide.started_by(command, session, decide.session_started(command)), command.now_us)
        told = _names(request, turn.turn_id)
        _log.warning("answering a turn without history", **told, will_be_recorded=is_recorded, reason=str(reason))

        async def complete(answer: Answer, pieces: Pieces) -> Turn:
            if is_recorded:
                self._keep(Late(request, turn.turn_id, answer, pieces, len(turn.started.items)))
            ended = decide.completed_by(turn.started, answer, pieces)
            return Turn(turn.started, turn.started_us, ended, time.time_ns() // 1_000)

        has_id = is_recorded and bool(request.names.session_id)
        return OpenTurn(self._model, session, turn, complete, marks=_NO_HISTORY, is_recorded=has_id)

    @contextlib.contextmanager
    def _room(self, request: TurnRequest, reason: Exception) -> Iterator[None]:
        """Hold a place for the turn while it is answered; raises `reason` where there is none."""
        size_bytes = request.size_bytes
        if (
            len(self._waiting) + self._answering >= WAITING_MAX
            or self._waiting_bytes + self._answering_bytes + size_bytes > WAITING_MAX_BYTES
        ):
            _log.error("no more turns can be answered without history", waiting=len(self._waiting))
            raise reason
        self._answering += 1
        self._answering_bytes += size_bytes
        try:
            yield
        finally:
            self._answering -= 1
            self._answering_bytes -= size_bytes

    def _keep(self, late: Late) -> None:
        self._waiting.append(late)
        self._waiting_bytes += late.size_bytes
        if self._task is None or self._task.done():
            self._task = _on_its_own(self._keep_trying())

    async def _keep_trying(self) -> None:
        rest_s = REST_S
        while self._waiting:
            await asyncio.sleep(rest_s)
            await self._try(None)
            rest_s = min(rest_s * 2, REST_MAX_S)

    async def _try(self, wait_s: float | None) -> None:
        """Wait for an attempt at recording what waits, which goes on however long it takes; there is one at a time."""
        if self._attempt is None or self._attempt.done():
            self._attempt = _on_its_own(self._record_all())
        done, _ = await asyncio.wait([self._attempt], timeout=wait_s)
        for attempt in done:
            attempt.result()

    async def _record_all(self) -> None:
        """Record what waits, oldest first, as far as that goes now."""
        while self._waiting:
            late = self._waiting[0]
            try:
                await self._record(late)
            except _NOT_YET as error:
                _log.warning("a turn can not be recorded yet", waiting=len(self._waiting), reason=str(error))
                return
            except Refusal as refusal:
                whole = _whole(late)
                _log.error("a turn that was answered without history was refused", **whole, reason=str(refusal))
            else:
                _log.info("recorded a turn that was answered without history", **_names(late.request, late.turn_id))
            self._waiting.popleft()
            self._waiting_bytes -= late.size_bytes


def _on_its_own(work: Coroutine[None, None, None]) -> asyncio.Task[None]:
    """A task that is nobody's: what is told in it is not part of the request that it happens to begin in."""
    return asyncio.create_task(work, context=contextvars.Context())


def _names(request: TurnRequest, turn_id: str) -> dict[str, str]:
    """What an operator finds a turn by."""
    names: dict[str, str] = msgspec.structs.asdict(request.names)
    said = {name: value for name, value in names.items() if value}
    return {"turn_id": turn_id, "tenant": request.tenant, "api": request.api, **said}


def _whole(late: Late) -> dict[str, object]:
    """All of a turn that will be nowhere else."""
    said = {"items": late.request.items or late.request.opening, "output": (late.answer.message,)}
    texts = {name: [data.decode(errors="replace") for data in messages] for name, messages in said.items()}
    identity = {name: value for name, value in msgspec.structs.asdict(late.request.identity).items() if value}
    return {**_names(late.request, late.turn_id), "session_key": late.request.session_key, **identity, **texts}
