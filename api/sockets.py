"""The WebSockets that are open, so that a stop can close them, and how long one may last."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Literal, TypeAlias

from aiohttp import WSCloseCode, web

CONNECTION_S = 3_600.0  # an hour, as the Open Responses specification has it
SOCKETS_MAX = 1_000

Socket: TypeAlias = web.WebSocketResponse[Literal[False]]  # whose text stays bytes


class Sockets:
    """All open sockets of a server."""

    def __init__(self, *, connection_s: float = CONNECTION_S, sockets_max: int = SOCKETS_MAX) -> None:
        self.connection_s = connection_s
        self.sockets_max = sockets_max
        self._open: set[Socket] = set()

    @property
    def is_full(self) -> bool:
        """Whether there are as many as there may be."""
        return len(self._open) >= self.sockets_max

    @contextlib.contextmanager
    def holding(self, socket: Socket) -> Iterator[None]:
        """Count the socket for as long as the context lasts."""
        self._open.add(socket)
        try:
            yield
        finally:
            self._open.discard(socket)

    async def close(self, _app: web.Application) -> None:
        """Tell every client that the server is going away, and close."""
        told = b"the server is stopping"
        closing = [socket.close(code=WSCloseCode.GOING_AWAY, message=told) for socket in self._open]
        await asyncio.gather(*closing, return_exceptions=True)
