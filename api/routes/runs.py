"""/v1/runs: turns that go on without their client."""

from aiohttp import web

from api.context import ECHO, KEYRING, RESPONSES, RUNS, TENANT, answer, body_of, continuity_of, with_model
from api.routes.events import EventStream
from api.turns.directory import RUN
from api.turns.run import Found
from api.wire import runs
from api.wire.run_stream import LAST_EVENT_ID, RunStream, last_event_id


async def create(request: web.Request) -> web.StreamResponse:
    """Start a run; it is in the log when this is answered, and needs its client no more."""
    body = await body_of(request)
    asked = runs.decode(body)
    headers = continuity_of(request).standing_in(asked.user)
    headers = runs.named(headers, asked.session_id, has_keys=not request.app[KEYRING].is_open)
    turn_request = runs.turn_request(asked, body, request[TENANT], headers)
    request.app[RESPONSES].ensure_over(turn_request)
    turn_request = await with_model(request, turn_request)
    opened = await request.app[RUNS].start(turn_request)
    started = runs.RunAnswer(RUN + opened.turn.turn_id, "started")
    return answer(started, status=202, headers=headers.echo(opened.session_id, opened.marks))


async def get(request: web.Request) -> web.StreamResponse:
    """A run as it stands now."""
    found = await _found(request)
    return answer(runs.run_status(found), headers=continuity_of(request).echo(found.session_id))


async def stop(request: web.Request) -> web.StreamResponse:
    """Have a run end with what was said so far."""
    found = await _found(request)
    request.app[RUNS].stop(found)
    stopping = runs.RunAnswer(RUN + found.turn.turn_id, "stopping")
    return answer(stopping, headers=continuity_of(request).echo(found.session_id))


async def events(request: web.Request) -> web.StreamResponse:
    """Everything that happened in a run and will, or what came after the event that the client has seen last."""
    after = last_event_id(request.headers.get(LAST_EVENT_ID))
    found = await _found(request)
    request[ECHO] = echo = continuity_of(request).echo(found.session_id)
    async with EventStream(request) as stream:
        stream.announce(echo)
        await stream.begin()
        writer = RunStream(found.turn, after)
        await stream.send(writer.opening())
        await stream.tell_rest(found.chunks(), writer.piece)
        await stream.send(writer.ending(found.turn))
        return await stream.end()


async def _found(request: web.Request) -> Found:
    return await request.app[RUNS].find(request[TENANT], request.match_info["run_id"])
