"""One turn in the background: what its model says is gathered in memory, where any number of readers follow it."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple, TypeAlias

from api.models.model import Chunk
from api.turns.open_turn import LiveTurn
from api.turns.replayed import chunks_of
from eventstore.events import TurnCancelled, TurnFailed
from projections.turn import Turn

BATCH = 100  # chunks that a follower is given at once, before others have their turn

Opening: TypeAlias = "asyncio.Future[LiveTurn]"


class Run:
    """A tenant's turn that waits to begin, then is at work, until its end was reached.

    `asked` is the turn as its client is told of it while it waits; None where clients are told once it is open, which
    `opening` is for.
    """

    __slots__ = ("_chunks", "_has_ended", "_moved", "asked", "is_stopping", "opened", "opening", "task", "tenant")

    def __init__(self, tenant: str, asked: Turn | None = None) -> None:
        self.tenant = tenant
        self.asked = asked
        self.opened: LiveTurn | None = None
        self.opening: Opening = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None
        self.is_stopping = False  # a client has asked for its end
        self._chunks: list[Chunk] = []
        self._has_ended = False
        self._moved = asyncio.Event()

    @property
    def turn(self) -> Turn:
        """As it stands now."""
        turn = self.opened.turn if self.opened else self.asked
        assert turn is not None  # noqa: S101 (nobody is told of one before it is open, or asked for by its id)
        return turn

    @property
    def is_queued(self) -> bool:
        """Whether it is still to begin, here or after the next start."""
        return self.opened is None and self.turn.ended is None

    async def begins(self, within_s: float | None = None) -> LiveTurn | None:
        """The turn, once it is open, or None where that takes longer; raises why it is not opened.

        Whoever waits here and is cancelled was never told of the run, and wants it no more.
        """
        try:
            await asyncio.wait((self.opening,), timeout=within_s)
        except asyncio.CancelledError:
            self.abandon()
            raise
        return self.opening.result() if self.opening.done() else None

    def abandon(self) -> None:
        """Nobody waits for it to begin: where it has not, it is to leave nothing behind."""
        if self.opening.cancel() and self.task:
            self.task.cancel()

    def begin(self, opened: LiveTurn) -> None:
        """The turn is open in the log."""
        self.opened = opened
        if self.is_stopping:
            opened.cancel_reason = "client"
        self._tell()

    def stop(self) -> None:
        """Have it end here, with what was said so far."""
        if not self.is_stopping and self.task:
            self.is_stopping = True
            if self.opened:
                self.opened.cancel_reason = "client"
            self.task.cancel()

    def add(self, chunk: Chunk) -> None:
        """The model has said more."""
        if self.turn.started.stream:  # nobody can follow one that is not streamed
            self._chunks.append(chunk)
            self._tell()

    def end(self) -> None:
        """No more will come. The turn tells how it ended; still open, it goes on after the next start."""
        self._has_ended = True
        self._tell()

    def end_unopened(self, reason: str, now_us: int) -> None:
        """It ended before it began: there is no turn in the log, only what its readers are told."""
        if asked := self.asked:
            failed = TurnFailed(turn_id=asked.turn_id, code="server_error", message=reason, status=500)
            cancelled = TurnCancelled(turn_id=asked.turn_id, reason="client")
            asked.ended, asked.ended_us = cancelled if self.is_stopping else failed, now_us

    async def begun(self) -> None:
        """Return once it has begun, or ended before it could."""
        while self.opened is None and not self._has_ended:
            await self._moved.wait()

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
    """A turn in the background, or a response: the effective id of its session, empty where it waits to begin; the
    turn as it stood when it was found; and the work on it while there is any.
    """

    session_id: str
    found: Turn
    run: Run | None

    @property
    def turn(self) -> Turn:
        """As it stands now."""
        return self.run.turn if self.run else self.found

    @property
    def is_queued(self) -> bool:
        """Whether it waits to begin."""
        return self.run is not None and self.run.is_queued

    @property
    def has_begun(self) -> bool:
        """Whether it was ever open in the log."""
        return self.run is None or self.run.opened is not None

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
