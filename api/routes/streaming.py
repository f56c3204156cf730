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


class Sink(Protocol):
    """Takes a turn's frames to its client."""

    @property
    def has_begun(self) -> bool:
        """Whether the client has been sent anything of the turn."""
        ...

    async def send(self, frames: bytes) -> None:
        """Send whole frames. Raises `ConnectionError` where the client has hung up, or reads nothing."""
        ...


async def stream_turn(
    request: web.Request,
    opened: AbstractAsyncContextManager[LiveTurn],
    headers: Continuity,
    writer_of: Callable[[LiveTurn], Writer],
) -> web.StreamResponse:
    """Stream a turn. What fails before the model's first chunk is raised, and so becomes a plain answer."""
    async with EventStream(request) as stream:

        def announced(turn: LiveTurn) -> Writer:
            request[ECHO] = echo = headers.echo(turn.session_id, turn.marks)
            stream.announce(echo)
            return writer_of(turn)

        await tell_turn(stream, opened, announced)
        return await stream.end()


async def tell_turn(
    sink: Sink, opened: AbstractAsyncContextManager[LiveTurn], writer_of: Callable[[LiveTurn], Writer]
) -> Turn | None:
    """Tell a turn as it goes, and return it once it is durable; None where it failed after its client was told of it.

    Raises what fails before, and `ConnectionError`.
    """
    writer: Writer | None = None
    try:
        async with opened as turn:
            writer = writer_of(turn)
            prefix = writer.opening
            async with contextlib.aclosing(turn.chunks()) as chunks:
                async for chunk in chunks:
                    await sink.send(prefix() + writer.piece(chunk))
                    prefix = bytes
        await sink.send(writer.ending(turn.turn))
    except ConnectionError:
        raise
    except Exception as error:
        if writer is None or not sink.has_begun:
            raise
        await sink.send(writer.failing(problem_of(error)))
        return None
    return turn.turn
