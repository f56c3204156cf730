"""A turn, streamed: whichever API it came by, the order of things is the same."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from aiohttp import web

from api.context import ECHO
from api.errors import problem_of
from api.models.model import Chunk
from api.problem import Problem
from api.routes.events import EventStream
from api.turns.open_turn import LiveTurn
from api.wire.headers import Continuity
from projections.turn import Turn


class Writer(Protocol):
    """Writes one turn's frames in the dialect of its API."""

    def opening(self) -> bytes:
        """What comes before any output."""
        ...

    def piece(self, chunk: Chunk) -> bytes:
        """What a chunk of the model's answer brings."""
        ...

    def ending(self, turn: Turn) -> bytes:
        """The end of a turn that is durable."""
        ...

    def failing(self, problem: Problem) -> bytes:
        """The end of one that failed after the stream had begun."""
        ...


async def stream_turn(
    request: web.Request,
    opened: AbstractAsyncContextManager[LiveTurn],
    headers: Continuity,
    writer_of: Callable[[LiveTurn], Writer],
) -> web.StreamResponse:
    """Stream a turn. What fails before the model's first chunk is raised, and so becomes a plain answer."""
    async with EventStream(request) as stream:
        writer: Writer | None = None
        try:
            async with opened as turn:
                request[ECHO] = echo = headers.echo(turn.session_id, turn.marks)
                stream.announce(echo)
                writer = writer_of(turn)
                prefix = writer.opening
                async with contextlib.aclosing(turn.chunks()) as chunks:
                    async for chunk in chunks:
                        await stream.send(prefix() + writer.piece(chunk))
                        prefix = bytes
            await stream.send(writer.ending(turn.turn))
        except ConnectionError:
            raise
        except Exception as error:
            if writer is None or not stream.has_begun:
                raise
            await stream.send(writer.failing(problem_of(error)))
        return await stream.end()
