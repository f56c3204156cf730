"""Who is at work on what: the tasks that a shutdown waits for, and the turns that this process works on.

A task is cancelled for three reasons, which its turn must tell apart: its client hung up, the server stops, or its turn
was ended by somebody else, as when its session is deleted. The first is the task's own affair; the others become
refusals here, which its client is told.
"""

import asyncio
import contextlib
from collections.abc import Iterator

import structlog

from api.ids import new_id
from api.turns.refusals import ShuttingDown, TurnNotOpen
from projections.turn import Turn

CLOSE_S = 5.0  # for cancelled turns to be recorded; a client that does not read must not hold up a shutdown

_log = structlog.get_logger()


class Work:
    """The work of one process, which its turns know by `owner`."""

    def __init__(self) -> None:
        self.owner = new_id()
        self._is_draining = False
        self._tasks: set[asyncio.Task[object]] = set()
        self._turns: dict[str, asyncio.Task[object]] = {}
        self._interrupted: set[asyncio.Task[object]] = set()

    @property
    def is_draining(self) -> bool:
        """Whether the server is stopping."""
        return self._is_draining

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        """Count the task among those that a shutdown waits for; raises `ShuttingDown`, `TurnNotOpen`."""
        self._ensure_open()
        task = _current_task()
        self._tasks.add(task)
        try:
            yield
        except asyncio.CancelledError:
            if task in self._interrupted:
                task.uncancel()
                raise TurnNotOpen("the turn was ended meanwhile: its session was deleted") from None
            if not self.is_draining:
                raise
            task.uncancel()
            raise ShuttingDown("the server stopped before the answer was whole: try again in a moment") from None
        finally:
            self._tasks.discard(task)
            self._interrupted.discard(task)

    def _ensure_open(self) -> None:
        if self._is_draining:
            raise ShuttingDown("the server is stopping: try again in a moment")

    def begin(self, turn_id: str) -> None:
        """The task works on that turn now."""
        self._turns[turn_id] = _current_task()

    def end(self, turn_id: str) -> None:
        """Nobody works on that turn any more."""
        self._turns.pop(turn_id, None)

    def is_gone(self, turn: Turn) -> bool:
        """Whether the open turn is this process's, which no longer works on it."""
        return turn.owner == self.owner and turn.turn_id not in self._turns

    def interrupt(self, turn_id: str) -> None:
        """Have whoever works on that turn stop, for it has been ended in the log."""
        task = self._turns.get(turn_id)
        if task and task is not asyncio.current_task():
            self._interrupted.add(task)
            task.cancel()

    async def stop(self, grace_s: float) -> None:
        """Let no new work begin, give what goes on `grace_s`, and cancel what is left."""
        self._is_draining = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        left = list(self._tasks)
        for task in left:
            task.cancel()
        if left:
            _log.warning("turns cancelled by shutdown", turns=len(left), grace_s=grace_s)
            await asyncio.wait(left, timeout=CLOSE_S)


def _current_task() -> asyncio.Task[object]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 (every coroutine runs in a task)
    return task
