"""A turn that is under way: its prompt, and its answer as a whole or in pieces."""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Protocol, TypeAlias

import msgspec

from api.models.gather import Gathered
from api.models.model import Answer, Chunk, Model, Prompt
from api.turns.decide import Said
from api.turns.prompt import prompt_of
from eventstore.events import CancelReason, SessionStarted
from projections.pieces import WHOLE, Pieces
from projections.session import Session
from projections.turn import Turn

# Records the answer, with the pieces in which it was streamed, and returns the completed turn.
Complete: TypeAlias = Callable[[Answer, Pieces], Awaitable[Turn]]


class Marks(msgspec.Struct, frozen=True, kw_only=True):
    """What a client is told of its turn besides the answer.

    `compression` is "rotated", or "skipped" with the reason; `recalled` counts the passages given from other sessions.
    """

    is_replayed: bool = False
    compression: str = ""
    recalled: int = 0
    has_history: bool = True


PLAIN = Marks()


class LiveTurn(Protocol):
    """A turn as its route answers it, whether a model answers now or the log does."""

    session_id: str
    turn: Turn
    marks: Marks
    cancel_reason: CancelReason

    async def answer(self) -> Turn:
        """The completed turn. Raises `ModelError`."""
        ...

    def chunks(self) -> AsyncGenerator[Chunk, None]:
        """The answer in pieces; `turn` is the completed one once they have ended. Raises `ModelError`."""
        ...

    def partial(self) -> Said:
        """What has been said so far."""
        ...


class OpenTurn:
    """Valid inside `Turns.turn`. `session_id` is the effective one; empty where nothing is recorded."""

    __slots__ = (
        *("_began", "_complete", "_context", "_gathered", "_model", "_session"),
        *("cancel_reason", "marks", "session_id", "turn"),
    )

    def __init__(
        self,
        model: Model,
        session: Session,
        turn: Turn,
        complete: Complete,
        *,
        began: SessionStarted | None = None,
        context: tuple[bytes, ...] = (),
        marks: Marks = PLAIN,
        cancel_reason: CancelReason = "disconnect",
        is_recorded: bool = True,
    ) -> None:
        self.session_id = session.session_id if is_recorded else ""
        self.turn = turn
        self.marks = marks
        self.cancel_reason = cancel_reason  # what it means that the task is cancelled
        self._began = began or session.started
        self._context = context
        self._model = model
        self._session = session
        self._complete = complete
        self._gathered = Gathered()

    @property
    def prompt(self) -> Prompt:
        """What the model is sent."""
        return prompt_of(self._began, self.turn.started, self._session, self._context)

    async def answer(self) -> Turn:
        """Have the model answer as a whole; returns when the completed turn is durable. Raises `ModelError`."""
        self.turn = await self._complete(await self._model.complete(self.prompt), WHOLE)
        return self.turn

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """The answer as it comes; ends when the completed turn is durable. Raises `ModelError`."""
        async with contextlib.aclosing(self._model.stream(self.prompt)) as chunks:
            async for chunk in chunks:
                self._gathered.add(chunk)
                yield chunk
        self.turn = await self._complete(self._gathered.answer(), self._gathered.pieces)

    def partial(self) -> Said:
        """What the model has said so far, as an assistant message, and the pieces in which it was streamed."""
        return Said(self._gathered.partial(), self._gathered.pieces, self._gathered.logprobs)
