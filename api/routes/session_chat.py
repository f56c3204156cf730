"""/api/sessions/{id}/chat: a turn of a session that is there."""

from aiohttp import web

from api.context import ECHO, LINEAGES, TENANT, TURNS, answer, body_of, continuity_of, with_model
from api.routes.streaming import stream_turn
from api.turns.request import TurnRequest
from api.wire import session_chat
from api.wire.headers import Continuity


async def create(request: web.Request) -> web.StreamResponse:
    """A turn, answered as a whole."""
    turn_request, headers = await _asked(request, stream=False)
    async with request.app[TURNS].turn(turn_request) as turn:
        request[ECHO] = echo = headers.echo(turn.session_id, turn.marks)
        done = await turn.answer()
    return answer(session_chat.session_answer(done, turn.session_id), headers=echo)


async def stream(request: web.Request) -> web.StreamResponse:
    """A turn, answered in named events."""
    turn_request, headers = await _asked(request, stream=True)
    return await stream_turn(request, request.app[TURNS].turn(turn_request), headers, session_chat.SessionStream)


async def _asked(request: web.Request, *, stream: bool) -> tuple[TurnRequest, Continuity]:
    """The turn that is asked for; raises `SessionNotFound` where there is no such session to have it in."""
    session_id = request.match_info["session_id"]
    headers = continuity_of(request)
    await request.app[LINEAGES].reader.session(request[TENANT], session_id)
    body = await body_of(request)
    asked = session_chat.decode(body)
    headers = headers.standing_in(asked.user)
    turn_request = session_chat.turn_request(asked, body, request[TENANT], session_id, headers, stream=stream)
    return await with_model(request, turn_request), headers
