"""/v1/responses."""

from functools import partial

from aiohttp import web

from api.context import ECHO, RESPONSES, TENANT, TURNS, answer, body_of, continuity_of, with_model
from api.routes import background_responses
from api.routes.streaming import stream_turn
from api.wire import responses
from api.wire.background_stream import check_streamable, wanted
from api.wire.includes import check_included
from api.wire.response import response_object
from api.wire.response_stream import ResponseStream
from api.wire.service import Deleted


async def create(request: web.Request) -> web.StreamResponse:
    """A turn, continued from a conversation, a response or a session, or of a new session."""
    body = await body_of(request)
    asked = responses.decode(body)
    headers = continuity_of(request).standing_in(asked.user)
    turn_request = responses.turn_request(asked, body, request[TENANT], headers)
    request.app[RESPONSES].ensure_over(turn_request)
    turn_request = await with_model(request, turn_request)
    if turn_request.background:
        return await background_responses.create(request, turn_request, headers)
    turns = request.app[TURNS]
    store = asked.store is not False
    opened = turns.turn(turn_request) if store else turns.unrecorded(turn_request)
    if asked.stream:
        return await stream_turn(request, opened, headers, partial(ResponseStream, store=store))
    async with opened as turn:
        request[ECHO] = echo = headers.echo(turn.session_id, turn.marks)
        done = await turn.answer()
    return answer(response_object(done, store=store), headers=echo)


async def get(request: web.Request) -> web.StreamResponse:
    """A stored response, as it stands now; or its events, of one in the background."""
    check_included(request.query)
    asked = wanted(request.query)
    found = await request.app[RESPONSES].find(request[TENANT], request.match_info["response_id"])
    request[ECHO] = continuity_of(request).echo(found.session_id)
    if asked.stream:
        check_streamable(found.turn)
        return await background_responses.follow(request, found, asked.after)
    return answer(background_responses.as_it_stands(found), headers=request[ECHO])


async def delete(request: web.Request) -> web.StreamResponse:
    """Make a response unaddressable. Its turn stays in the session."""
    response_id = request.match_info["response_id"]
    await request.app[RESPONSES].delete(request[TENANT], response_id)
    return answer(Deleted(response_id, "response"))
