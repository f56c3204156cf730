"""GET /api/events: the log as its tenant sees it."""

import contextlib
from collections.abc import Iterable, Iterator

from aiohttp import hdrs, web

from api.boundary import admit, log_failure
from api.context import FEED, TENANT, answer
from api.errors import problem_of
from api.routes.events import EventStream
from api.wire import feed
from eventstore.log import Part

PIECE_BYTES = 256_000  # written at once: what a client that does not read keeps in memory


async def events(request: web.Request) -> web.StreamResponse:
    """The events of the log, oldest first: a page of them; or all that there are and will be, where `text/event-stream`
    is accepted.

    Positions are those of the whole log, so that what was recorded for others leaves gaps in them.
    """
    query = request.query
    asked = feed.asked(request[TENANT], query, query.getall("type", []), request.headers)
    part = asked.part
    if asked.session_id:
        part = part._replace(stream=await request.app[FEED].stream_of(request[TENANT], asked.session_id))
    if feed.wants_stream(request.headers.get(hdrs.ACCEPT, "")):
        return await _follow(request, part)
    found = await request.app[FEED].page(part, asked.limit)
    return answer(await feed.event_list(found, request.app[FEED].head))


async def _follow(request: web.Request, part: Part) -> web.StreamResponse:
    """A client whose key is withdrawn, or that reads nothing, is sent no more."""
    with request.app[FEED].following(part) as batches:
        async with EventStream(request) as stream, contextlib.aclosing(batches):
            stream.announce({})
            await stream.begin()
            try:
                async for batch in batches:
                    admit(request)
                    for piece in _pieces(batch):
                        await stream.send(piece)
            except ConnectionError:
                raise
            except Exception as error:  # noqa: BLE001 (the answer has begun: it can only be told in it)
                problem = problem_of(error)
                log_failure(request, problem, error)
                await stream.send(feed.failing(problem))
            return await stream.end()


def _pieces(frames: Iterable[bytes]) -> Iterator[bytes]:
    """The frames put together, a piece not much longer than one has to be."""
    piece = bytearray()
    for frame in frames:
        if piece and len(piece) + len(frame) > PIECE_BYTES:
            yield bytes(piece)
            piece.clear()
        piece += frame
    yield bytes(piece)
