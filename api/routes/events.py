"""A streamed answer: opened with its first frame, kept alive while the model thinks, and ended whatever happens."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from typing import Self

from aiohttp import web

from api.context import SETTINGS
from api.models.model import Chunk

STALL_S = 60.0
KEEPALIVE = b": keepalive\n\n"
HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}


class EventStream:
    """Server-sent events to one client. A context: inside it a silent stream gets a comment every `keepalive_s`.

    Nothing is sent before the turn is open, nor before the first frame or keep-alive: what fails early is answered
    plainly, with a status that clients act on.
    """

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._response = web.StreamResponse(headers=HEADERS)
        self._keepalive_s = request.app[SETTINGS].keepalive_s
        self._keeper: asyncio.Task[None] | None = None
        self._is_silent = True
        self._announced = asyncio.Event()

    def announce(self, headers: dict[str, str]) -> None:
        """Headers for the answer. From now on it may begin, with a keep-alive if nothing else comes."""
        self._response.headers.update(headers)
        self._announced.set()

    async def begin(self) -> None:
        """Have the answer begin at once, before there is anything to send."""
        await self._response.prepare(self._request)

    @property
    def has_begun(self) -> bool:
        """Whether the client has been sent anything."""
        return self._response.prepared

    async def __aenter__(self) -> Self:
        self._keeper = asyncio.create_task(self._keep_alive(), name="keep-alive")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop_keeping_alive()

    async def _stop_keeping_alive(self) -> None:
        if self._keeper:
            self._keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await self._keeper

    async def send(self, frames: bytes) -> None:
        """Send whole frames. Raises `ConnectionError` where the client has hung up, or reads nothing."""
        if not frames:
            return
        self._is_silent = False
        async with not_stalled():
            if not self._response.prepared:
                await self._response.prepare(self._request)
            await self._response.write(frames)

    async def tell_rest(self, batches: AsyncGenerator[Sequence[Chunk], None], piece: Callable[[Chunk], bytes]) -> None:
        """Send what `piece` makes of an answer that goes on without this client, up to its end."""
        async with contextlib.aclosing(batches):
            async for batch in batches:
                await self.send(b"".join(map(piece, batch)))

    async def end(self) -> web.StreamResponse:
        """Send what is left and close the stream. Raises `ConnectionError` where the client reads nothing."""
        await self._stop_keeping_alive()
        async with not_stalled():
            await self._response.write_eof()
        return self._response

    async def _keep_alive(self) -> None:
        await self._announced.wait()
        while True:
            self._is_silent = True
            await asyncio.sleep(self._keepalive_s)
            if self._is_silent:
                await self.send(KEEPALIVE)


@contextlib.asynccontextmanager
async def not_stalled() -> AsyncIterator[None]:
    """Raise `ConnectionError` where what is sent inside is not read for too long."""
    try:
        async with asyncio.timeout(STALL_S):
            yield
    except TimeoutError:
        raise ConnectionError(f"the client has read nothing for {STALL_S:g} s") from None
