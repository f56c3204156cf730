"""The list of models, kept for a minute, so that clients that ask often do not ask the model servers."""

import asyncio
import time
from collections.abc import Callable

from api.models.model import Model, ModelInfo, ModelRefused
from api.models.refused import UNKNOWN_MODEL

KEPT_S = 60.0
MISS_S = 1.0  # after which a model that is not in the list is asked for again
CHARACTERS_MAX = 200  # of a name that is told back


class Catalogue:
    """What a `Model` lists. However many ask for it, one request is in flight; who asks meanwhile waits for it."""

    def __init__(self, model: Model, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._model = model
        self._now_s = now_s
        self._kept: list[ModelInfo] = []
        self._until_s = 0.0
        self._asking: asyncio.Task[list[ModelInfo]] | None = None

    async def stop(self) -> None:
        """Break off what is in flight."""
        if self._asking:
            self._asking.cancel()
            await asyncio.wait((self._asking,))

    async def all(self) -> list[ModelInfo]:
        """Every model that is listed. Raises `ModelError`; a failure is not kept."""
        if self._now_s() < self._until_s:
            return self._kept
        if self._asking is None:
            self._asking = asyncio.create_task(self._model.models(), name="models")
            self._asking.add_done_callback(self._answered)
        return await asyncio.shield(self._asking)

    async def one(self, model: str) -> ModelInfo:
        """The model of that name; raises `ModelError`: a 404 where none is listed by it."""
        for _ in range(2):
            for entry in await self.all():
                if entry.id == model:
                    return entry
            if self._now_s() < self._until_s - KEPT_S + MISS_S:
                break  # asked for just now
            self._until_s = 0.0  # it may be new, or its server may have been out of reach
        message = f"The model '{model[:CHARACTERS_MAX]}' does not exist: no model server lists it."
        raise ModelRefused(404, message, code=UNKNOWN_MODEL, param="model")

    def _answered(self, task: "asyncio.Task[list[ModelInfo]]") -> None:
        self._asking = None
        if not task.cancelled() and task.exception() is None:
            self._kept, self._until_s = task.result(), self._now_s() + KEPT_S
