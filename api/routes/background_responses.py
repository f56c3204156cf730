"""Responses that are made in the background: the answer at once, the stream to whoever asks, the end on request."""

from aiohttp import web

from api.context import ECHO, RESPONSES, TENANT, answer, continuity_of
from api.routes.events import EventStream
from api.turns.request import TurnRequest
from api.turns.run import Found
from api.wire.background_stream import BackgroundStream
from api.wire.headers import Continuity
from api.wire.response import ResponseObject, response_object


async def create(request: web.Request, asked: TurnRequest, headers: Continuity) -> web.StreamResponse:
    """Begin a response that needs its client no more, and answer with it as it stands, or with its stream."""
    found, marks = await request.app[RESPONSES].ask(asked)
    request[ECHO] = headers.echo(found.session_id, marks)
    if asked.stream:
        return await follow(request, found)
    return answer(as_it_stands(found), headers=request[ECHO])


async def cancel(request: web.Request) -> web.StreamResponse:
    """Have a response end with what was said so far."""
    found = await request.app[RESPONSES].cancel(request[TENANT], request.match_info["response_id"])
    return answer(as_it_stands(found), headers=continuity_of(request).echo(found.session_id))


async def follow(request: web.Request, found: Found, after: int = -1) -> web.StreamResponse:
    """Everything that happens in a response, or what comes after the event that the client has seen last.

    A client that hangs up is one reader less: the response goes on.
    """
    async with EventStream(request) as stream:
        stream.announce(request[ECHO])
        await stream.begin()
        writer = BackgroundStream(found, after)
        if found.run and not found.has_begun:
            await stream.send(writer.waiting())
            await found.run.begun()
        if found.has_begun:
            await stream.send(writer.opening())
        await stream.tell_rest(found.chunks(), writer.piece)
        await stream.send(writer.ending(found.turn))
        return await stream.end()


def as_it_stands(found: Found) -> ResponseObject:
    """The response now."""
    response = response_object(found.turn)
    if found.is_queued:
        response.status = "queued"
    return response
