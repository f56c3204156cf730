"""What waits for the one task that writes: appends, and what is rarer than an append."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from eventstore.events import Event, encode, type_name
from eventstore.log import LogError, Recorded


class Append:
    """One caller's events on their way to the table, encoded already: what can not be stored fails its caller alone."""

    __slots__ = ("done", "encoded", "events", "expected_version", "outcome", "recorded", "stream")

    def __init__(self, stream: str, expected_version: int, events: Sequence[Event]) -> None:
        stream.encode()  # a name that is not text must not get as far as the chain
        self.stream = stream
        self.expected_version = expected_version
        self.events = events
        self.encoded = [(type_name(event), encode(event)) for event in events]
        self.recorded: list[Recorded] = []
        self.outcome: tuple[Recorded, ...] | LogError | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def settle(self, outcome: tuple[Recorded, ...] | LogError) -> None:
        """Say what became of it; what is said first counts."""
        if self.outcome is None:
            self.outcome = outcome
            if not self.done.done():
                self.done.set_result(None)

    async def settled(self) -> tuple[Recorded, ...]:
        """Wait for the outcome even when cancelled; the cancellation then strikes at the caller's next await.

        A queued write can not be taken back, so a caller must always learn what became of it. Cancelling a task cancels
        the future that it waits for at once, before the task runs: the outcome may come in between, and is kept apart.
        """
        cancelled: list[asyncio.Task[object]] = []
        while self.outcome is None:
            try:
                await self.done
            except asyncio.CancelledError:
                task = asyncio.current_task()
                assert task is not None  # noqa: S101 (only a task can be cancelled)
                task.uncancel()
                cancelled.append(task)
                self.done = asyncio.get_running_loop().create_future()
        for task in cancelled:
            task.cancel()
        if isinstance(self.outcome, LogError):
            raise self.outcome
        return self.outcome


class Work(NamedTuple):
    """What is done between two batches, and whoever waits for it."""

    do: Callable[[], Awaitable[None]]
    done: "asyncio.Future[None]"

    def fail(self, error: LogError) -> None:
        """Say that it was not done."""
        if not self.done.done():
            self.done.set_exception(error)
