"""/api/sessions: reading."""

from aiohttp import web

from api.context import LINEAGES, TENANT, answer
from api.wire import sessions
from api.wire.sessions import LIMIT_DEFAULT, LIMIT_MAX, MESSAGES_MAX, OFFSET_MAX, whole_number


async def list_(request: web.Request) -> web.StreamResponse:
    """The tenant's sessions, most recently active first."""
    limit = whole_number(request.query.get("limit"), "limit", LIMIT_DEFAULT, LIMIT_MAX)
    offset = whole_number(request.query.get("offset"), "offset", 0, OFFSET_MAX)
    rows = await request.app[LINEAGES].reader.session_rows(request[TENANT], limit + 1, offset)
    return answer(sessions.session_list(rows, limit, offset))


async def get(request: web.Request) -> web.StreamResponse:
    """One session."""
    row = await request.app[LINEAGES].reader.session_row(request[TENANT], request.match_info["session_id"])
    return answer(sessions.OneSession("hermes.session", sessions.session_entry(row)))


async def messages(request: web.Request) -> web.StreamResponse:
    """What was said in a session: the newest page, or the page at an offset."""
    limit = whole_number(request.query.get("limit"), "limit", MESSAGES_MAX, MESSAGES_MAX)
    given = request.query.get("offset")
    offset = whole_number(given, "offset", 0, OFFSET_MAX) if given is not None else None
    session = await request.app[LINEAGES].reader.whole_session(request[TENANT], request.match_info["session_id"])
    return answer(sessions.message_list(session, limit, offset))
