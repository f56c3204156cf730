"""A server that is stopped and started again in the middle of a test, with nothing in its memory."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI

from tests.support.server import Server, serving


class Lasting:
    """`restart` between two steps; `server` and `openai` are those of now."""

    def __init__(self, data: Path, settings: dict[str, Any]) -> None:
        self._data = data
        self._settings = settings
        self._stack = contextlib.AsyncExitStack()
        self.server: Server

    @property
    def openai(self) -> AsyncOpenAI:
        """The official SDK's client."""
        return self.server.openai

    async def start(self) -> None:
        self.server = await self._stack.enter_async_context(serving(self._data, **self._settings))

    async def stop(self) -> None:
        await self._stack.aclose()

    async def restart(self) -> None:
        await self.stop()
        await self.start()


@contextlib.asynccontextmanager
async def lasting(data: Path, **settings: Any) -> AsyncIterator[Lasting]:
    """A server in this process that can be restarted."""
    running = Lasting(data, settings)
    await running.start()
    try:
        yield running
    finally:
        await running.stop()
