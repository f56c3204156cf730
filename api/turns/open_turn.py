"""A turn that is under way: its prompt, and its answer as a whole or in pieces."""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeAlias

from api.models.gather import Gathered
from api.models.model import Answer, Chunk, Model, Prompt
from api.turns.prompt import prompt_of
from projections.session import Session, Turn

# Records the answer, with the lengths of its streamed pieces, and returns the completed turn.
Complete: TypeAlias = Callable[[Answer, tuple[int, ...]], Awaitable[Turn]]


class OpenTurn:
    """Valid inside `Turns.turn`. `session_id` is the effective one; empty where nothing is recorded."""

    __slots__ = ("_complete", "_gathered", "_model", "_session", "session_id", "turn")

    def __init__(
        self, model: Model, session: Session, turn: Turn, complete: Complete, *, is_recorded: bool = True
    ) -> None:
        self.session_id = session.session_id if is_recorded else ""
        self.turn = turn
        self._model = model
        self._session = session
        self._complete = complete
        self._gathered = Gathered()

    @property
    def prompt(self) -> Prompt:
        """What the model is sent."""
        return prompt_of(self.turn.started, self._session.transcript, self._session.transcript_bytes)

    async def answer(self) -> Turn:
        """Have the model answer as a whole; returns when the completed turn is durable. Raises `ModelError`."""
        self.turn = await self._complete(await self._model.complete(self.prompt), ())
        return self.turn

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """The answer as it comes; ends when the completed turn is durable. Raises `ModelError`."""
        async with contextlib.aclosing(self._model.stream(self.prompt)) as chunks:
            async for chunk in chunks:
                self._gathered.add(chunk)
                yield chunk
        self.turn = await self._complete(self._gathered.answer(), tuple(self._gathered.delta_lengths))

    def partial(self) -> tuple[bytes, ...]:
        """What the model has said so far, as an assistant message."""
        return self._gathered.partial()
