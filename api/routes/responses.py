"""/v1/responses."""

from functools import partial

from aiohttp import web

from api.context import ECHO, EVICTION, TENANT, TURNS, answer, body_of, continuity_of, with_model
from api.problem import Problem
from api.routes.streaming import stream_turn
from api.wire import responses
from api.wire.response import response_object
from api.wire.response_stream import ResponseStream
from api.wire.service import Deleted


async def create(request: web.Request) -> web.StreamResponse:
    """A turn, continued from a conversation, a response or a session, or of a new session."""
    body = await body_of(request)
    asked = responses.decode(body)
    headers = continuity_of(request).standing_in(asked.user)
    turn_request = await with_model(request, responses.turn_request(asked, body, request[TENANT], headers))
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
    """A stored response, as it stands now."""
    session, turn = await request.app[EVICTION].read(request[TENANT], request.match_info["response_id"])
    if request.query.get("stream", "").lower() == "true":
        raise Problem(
            "Only a background response can be streamed again, and this one was not made in the background.",
            param="stream",
            code="unsupported_parameter",
        )
    return answer(response_object(turn), headers=continuity_of(request).echo(session.session_id))


async def delete(request: web.Request) -> web.StreamResponse:
    """Make a response unaddressable. Its turn stays in the session."""
    response_id = request.match_info["response_id"]
    await request.app[TURNS].delete_response(request[TENANT], response_id)
    return answer(Deleted(response_id, "response"))
