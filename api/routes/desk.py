"""/api/sessions: making, changing, deleting and forking."""

from aiohttp import web

from api.context import DESK, TENANT, answer, body_of, continuity_of
from api.problem import Problem
from api.routes.sessions import one
from api.wire import session_requests as wire
from api.wire.service import Deleted
from api.wire.session_requests import ERASE


async def create(request: web.Request) -> web.StreamResponse:
    """Make a session before its first turn."""
    asked = wire.decode_create(await body_of(request))
    headers = continuity_of(request).standing_in(asked.user)
    session_id = await request.app[DESK].create(wire.new_session(asked, request[TENANT], headers))
    return await one(request, session_id, status=201, headers=headers.echo(session_id))


async def change(request: web.Request) -> web.StreamResponse:
    """Rename, annotate or end a session, or the one that it has become; that is the answer."""
    wanted = wire.change_of(await body_of(request))
    return await one(request, await request.app[DESK].change(request[TENANT], request.match_info["session_id"], wanted))


async def delete(request: web.Request) -> web.StreamResponse:
    """Delete a session with all of its lineage."""
    if ERASE.of(request.query):
        raise Problem(
            "Erasing what is in the log is not available yet: leave 'erase' out to delete the session.",
            param="erase",
            code="unsupported_parameter",
        )
    session_id = request.match_info["session_id"]
    await request.app[DESK].delete(request[TENANT], session_id)
    return answer(Deleted(session_id, "hermes.session.deleted"))


async def fork(request: web.Request) -> web.StreamResponse:
    """Make a session that goes on from a turn of this one, which stays as it is."""
    asked = wire.decode_fork(await body_of(request))
    session_id = await request.app[DESK].fork(
        request[TENANT],
        request.match_info["session_id"],
        session_id=wire.wanted_id(asked),
        turn_id=wire.turn_id_of(asked.turn_id),
        title=None if asked.title is None else wire.title_of(asked.title),
    )
    return await one(request, session_id, status=201)
