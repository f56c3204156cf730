"""Turns in the background: they go on without their client, and whoever asks can follow them.

Theory of operation. One task a run holds its turn open and gathers the model's chunks in memory, where any number of
followers read them by index, each at its own speed: the run waits for none of them. When the turn has ended, the log
has all of it, and the memory is let go of: a follower who comes later is told the same from the log
(`api/turns/replayed.py`).
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, TypeAlias

import structlog
from structlog.contextvars import bind_contextvars

from api.models.model import Chunk, ModelError
from api.turns.directory import RUN, run_not_at_work
from api.turns.lineages import Lineages
from api.turns.open_turn import LiveTurn
from api.turns.refusals import Refusal, TooManyRuns
from api.turns.replayed import chunks_of
from api.turns.request import TurnRequest
from api.turns.service import Turns
from eventstore.log import LogError
from projections import sessions as session_list
from projections.turn import Turn

BATCH = 100  # chunks that a follower is given at once, before others have their turn

Opening: TypeAlias = "asyncio.Future[LiveTurn]"

_EXPECTED = (Refusal, ModelError, LogError)
_log = structlog.get_logger()


class Run:
    """A turn at work in the background: what its model has said, and whether the end was reached."""

    __slots__ = ("_chunks", "_has_ended", "_moved", "opened", "task")

    def __init__(self, opened: LiveTurn, task: "asyncio.Task[None]") -> None:
        self.opened = opened
        self.task = task
        self._chunks: list[Chunk] = []
        self._has_ended = False
        self._moved = asyncio.Event()

    @property
    def is_stopping(self) -> bool:
        """Whether a client has asked for its end."""
        return self.opened.cancel_reason == "client"

    def add(self, chunk: Chunk) -> None:
        """The model has said more."""
        self._chunks.append(chunk)
        self._tell()

    def end(self) -> None:
        """No more will come. The turn tells how it ended; still open, it goes on after the next start."""
        self._has_ended = True
        self._tell()

    async def follow(self) -> AsyncGenerator[Sequence[Chunk], None]:
        """The chunks from the first one on, as they come, until the run has ended."""
        seen = 0
        while True:
            moved = self._moved
            if batch := self._chunks[seen : seen + BATCH]:
                seen += len(batch)
                yield batch
                await asyncio.sleep(0)
            elif self._has_ended:
                return
            else:
                await moved.wait()

    def _tell(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()


class Found(NamedTuple):
    """A run as it stands: the effective id of its session, its turn, and the work on it while there is any."""

    session_id: str
    turn: Turn
    run: Run | None

    async def chunks(self) -> AsyncGenerator[Sequence[Chunk], None]:
        """The answer from its first chunk on: as it comes, or from the log where the turn has ended."""
        if self.run:
            async with contextlib.aclosing(self.run.follow()) as batches:
                async for batch in batches:
                    yield batch
            return
        chunks = chunks_of(self.turn)
        for begin in range(0, len(chunks), BATCH):
            yield chunks[begin : begin + BATCH]
            await asyncio.sleep(0)


class Background:
    """The runs of all tenants that are at work in this process; no more than `runs_max` at once."""

    def __init__(self, lineages: Lineages, turns: Turns, *, runs_max: int) -> None:
        self._lineages = lineages
        self._turns = turns
        self._runs_max = runs_max
        self._at_work: dict[str, Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, request: TurnRequest) -> LiveTurn:
        """Open a turn and leave it to itself; durable when this returns. Raises `TooManyRuns`, and as `Turns.turn`.

        One that is cancelled before the turn is open, while it waits for its session, leaves nothing behind.
        """
        if len(self._tasks) >= self._runs_max:
            raise TooManyRuns(f"Too many concurrent runs (max {self._runs_max})")
        return await self._launch(self._turns.turn(request))

    async def start_again(self) -> int:
        """Begin anew what a process that is gone left open to be started again; returns how many there were.

        For the start, behind `Turns.cancel_left_open`, before any request is let in.
        """
        rows = await self._lineages.views.fetch(session_list.OPEN_TURNS, ())
        for tenant, root_id, turn_id in rows:
            await self._launch(self._turns.again(tenant, root_id, turn_id))
        return len(rows)

    async def find(self, tenant: str, run_id: str) -> Found:
        """A run of any age; raises `RunNotFound`."""
        found = await self._find(tenant, run_id)
        is_known = found.run or found.turn.ended
        return found if is_known else await self._find(tenant, run_id)  # it may have ended while it was looked for

    def stop(self, found: Found) -> None:
        """Have the run end here, with what was said so far; raises `RunNotFound` where none is at work."""
        run = found.run
        if run is None:
            raise run_not_at_work(RUN + found.turn.turn_id)
        if not run.is_stopping:
            run.opened.cancel_reason = "client"
            run.task.cancel()

    async def _find(self, tenant: str, run_id: str) -> Found:
        session, turn = await self._lineages.reader.run(tenant, run_id)
        run = self._at_work.get(turn.turn_id)
        return Found(session.session_id, run.opened.turn if run else turn, run)

    async def _launch(self, turn: AbstractAsyncContextManager[LiveTurn]) -> LiveTurn:
        opening: Opening = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._work(turn, opening), name="run")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await opening
        except asyncio.CancelledError:
            if opening.cancelled():  # nobody was told of it yet
                task.cancel()
            raise

    async def _work(self, turn: AbstractAsyncContextManager[LiveTurn], opening: Opening) -> None:
        """One run, from its opening to its end. How it ended is in the log."""
        run: Run | None = None
        try:
            async with turn as opened:
                if not opened.marks.is_replayed:  # else its idempotency key has made a run already, maybe one at work
                    run = self._begin(opened)
                if not opening.done():
                    opening.set_result(opened)
                if run:
                    await _say(run)
        except Exception as error:  # noqa: BLE001 (the outermost place of a task: whoever waits is told, else the log)
            if not opening.done():
                opening.set_exception(error)
            else:
                _log.warning("a run did not complete", reason=str(error), exc_info=not isinstance(error, _EXPECTED))
        finally:
            if run:
                del self._at_work[run.opened.turn.turn_id]
                run.end()

    def _begin(self, opened: LiveTurn) -> Run:
        turn_id = opened.turn.turn_id
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (every coroutine runs in a task)
        bind_contextvars(session_id=opened.session_id, turn_id=turn_id)
        run = self._at_work[turn_id] = Run(opened, task)
        return run


async def _say(run: Run) -> None:
    async with contextlib.aclosing(run.opened.chunks()) as chunks:
        async for chunk in chunks:
            if run.opened.turn.ended:
                return  # ended by somebody else, such as the deletion of its session
            run.add(chunk)
