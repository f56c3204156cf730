"""POST /v1/chat/completions."""

from functools import partial

from aiohttp import web

from api.context import ECHO, TENANT, TURNS, answer, body_of, continuity_of, with_model
from api.routes.streaming import stream_turn
from api.wire import chat
from api.wire.chat_stream import StreamedCompletion


async def create(request: web.Request) -> web.StreamResponse:
    """A turn of the session that the header names, or of a new one."""
    body = await body_of(request)
    asked = chat.decode(body)
    headers = continuity_of(request).standing_in(asked.user)
    turn_request = await with_model(request, chat.turn_request(asked, body, request[TENANT], headers))
    turns = request.app[TURNS]
    opened = turns.unrecorded(turn_request) if asked.store is False else turns.turn(turn_request)
    if asked.stream:
        writer_of = partial(StreamedCompletion, wants_usage=asked.wants_usage)
        return await stream_turn(request, opened, headers, writer_of)
    async with opened as turn:
        request[ECHO] = echo = headers.echo(turn.session_id, turn.marks)
        done = await turn.answer()
    return answer(chat.completion(done), headers=echo)
