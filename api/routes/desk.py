"""/api/sessions: making, changing, deleting and forking."""

from aiohttp import web

from api.context import DESK, ERASURES, TENANT, answer, body_of, continuity_of
from api.routes.erasure import asked_by
from api.routes.sessions import one
from api.turns.erasure import Order
from api.turns.erasure_scope import Selection
from api.turns.refusals import NothingToErase, SessionNotFound
from api.wire import erasure
from api.wire import session_requests as wire
from api.wire.erasure import ERASE, WHY, DeletedSession


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
    """Delete a session with all of its lineage; with `erase`, have nothing of what was said be left anywhere."""
    session_id, is_erased, why = request.match_info["session_id"], ERASE.of(request.query), WHY.of(request.query)
    gone = DeletedSession(session_id, "hermes.session.deleted")
    if is_erased:
        order = Order(request[TENANT], Selection("session", session_id), asked_by(request), why)
        try:
            gone.erased = erasure.erasure_object(await request.app[ERASURES].erase(order))
        except NothingToErase:
            raise SessionNotFound(f"Session not found, or erased already: {session_id}") from None
    else:
        await request.app[DESK].delete(request[TENANT], session_id)
    return answer(gone)


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
