"""Turns in the background: they go on without their client, and whoever asks can follow them.

Theory of operation. One task a run holds its turn open and gathers the model's chunks in memory (`api/turns/run.py`),
where any number of followers read them by index, each at its own speed: the run waits for none of them. When the turn
has ended, the log has all of it, and the memory is let go of: a follower who comes later is told the same from the log
(`api/turns/replayed.py`). A response that is made in the background is one too (`api/turns/background_responses.py`).
"""

import asyncio
import contextlib
import time
from contextlib import AbstractAsyncContextManager

import structlog
from structlog.contextvars import bind_contextvars

from api.models.model import ModelError
from api.turns.directory import RUN, run_not_at_work
from api.turns.idempotency import Replayed
from api.turns.lineages import Lineages
from api.turns.open_turn import LiveTurn
from api.turns.refusals import KeyReused, Refusal, ShuttingDown, TooManyRuns
from api.turns.request import TurnRequest
from api.turns.run import Found, Run
from api.turns.service import Turns
from eventstore.log import LogError
from projections import sessions as session_list

_EXPECTED = (Refusal, ModelError, LogError)
_log = structlog.get_logger()


class Background:
    """What is at work in the background in this process, for all tenants; no more than `runs_max` at once."""

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
        if not self.has_room:
            return await self.made_before(request)
        return await self._opened(self._turns.turn(request), Run(request.tenant))

    async def start_again(self) -> int:
        """Begin anew what a process that is gone left open to be started again; returns how many there were.

        For the start, behind `Turns.cancel_left_open`, before any request is let in.
        """
        rows = await self._lineages.views.fetch(session_list.OPEN_TURNS, ())
        for tenant, root_id, turn_id in rows:
            await self._opened(self._turns.again(tenant, root_id, turn_id), Run(tenant))
        return len(rows)

    async def find(self, tenant: str, run_id: str) -> Found:
        """A run of any age; raises `RunNotFound`."""
        found = await self._find(tenant, run_id)
        is_known = found.run or found.turn.ended
        return found if is_known else await self._find(tenant, run_id)  # it may have ended while it was looked for

    def stop(self, found: Found) -> None:
        """Have the run end here, with what was said so far; raises `RunNotFound` where none is at work."""
        if found.run is None:
            raise run_not_at_work(RUN + found.turn.turn_id)
        found.run.stop()

    def at_work(self, tenant: str, turn_id: str) -> Run | None:
        """The work on that turn of the tenant's, while there is any."""
        run = self._at_work.get(turn_id)
        return run if run and run.tenant == tenant else None

    @property
    def has_room(self) -> bool:
        """Whether one more may be launched."""
        return len(self._tasks) < self._runs_max

    async def made_before(self, request: TurnRequest) -> Replayed:
        """The turn that the request's idempotency key has made, for where there is no room for another.

        Raises `TooManyRuns` where there is none, `KeyReused`, `LineageBusy`, `LogError`.
        """
        made = await self._turns.made_before(request)
        if made is None:
            raise TooManyRuns(f"Too many concurrent runs (max {self._runs_max})")
        return made

    def launch(self, turn: AbstractAsyncContextManager[LiveTurn], run: Run) -> None:
        """Have a task open the turn and work on it; `run.opening` tells of that."""
        run.task = asyncio.create_task(self._work(turn, run), name="run")
        self._tasks.add(run.task)
        run.task.add_done_callback(self._tasks.discard)

    async def _opened(self, turn: AbstractAsyncContextManager[LiveTurn], run: Run) -> LiveTurn:
        self.launch(turn, run)
        opened = await run.begins()
        assert opened is not None  # noqa: S101 (there is no limit to the wait)
        return opened

    async def _find(self, tenant: str, run_id: str) -> Found:
        session, turn = await self._lineages.reader.run(tenant, run_id)
        return Found(session.session_id, turn, self.at_work(tenant, turn.turn_id))

    async def _work(self, turn: AbstractAsyncContextManager[LiveTurn], run: Run) -> None:
        """One run, from its opening to its end. How it ended is in the log."""
        reason: str | None = ""
        try:
            async with turn as opened:
                if opened.marks.is_replayed:  # its idempotency key has made a turn already, maybe one at work
                    _tell(run, opened)
                    return
                self._begin(run, opened)
                await _say(run, opened)
        except Exception as error:  # noqa: BLE001 (the outermost place of a task: whoever waits is told, else the log)
            is_cut = isinstance(error, ShuttingDown) and not run.is_stopping
            reason = None if is_cut else str(error)  # what is cut off is still to begin, after the next start
            if not run.opening.done():
                run.opening.set_exception(error)
            else:
                _log.warning("a run did not complete", reason=str(error), exc_info=not isinstance(error, _EXPECTED))
        finally:
            if run.opened:
                del self._at_work[run.opened.turn.turn_id]
            elif reason is not None:
                run.end_unopened(reason, time.time_ns() // 1_000)
            run.end()

    def _begin(self, run: Run, opened: LiveTurn) -> None:
        turn_id = opened.turn.turn_id
        bind_contextvars(session_id=opened.session_id, turn_id=turn_id)
        self._at_work[turn_id] = run
        run.begin(opened)
        _tell(run, opened)


def _tell(run: Run, opened: LiveTurn) -> None:
    """Tell whoever waits for the run to begin."""
    if not run.opening.done():
        run.opening.set_result(opened)
    elif opened.marks.is_replayed:
        raise KeyReused("another request with this idempotency key was answered while this one waited")


async def _say(run: Run, opened: LiveTurn) -> None:
    async with contextlib.aclosing(opened.chunks()) as chunks:
        async for chunk in chunks:
            if opened.turn.ended:
                return  # ended by somebody else, such as the deletion of its session
            run.add(chunk)
