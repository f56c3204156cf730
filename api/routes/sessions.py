"""/api/sessions: reading."""

from aiohttp import web

from api.context import LINEAGES, TENANT, answer
from api.wire import sessions
from api.wire.lineage import lineage_object
from api.wire.session_list import MESSAGES_LIMIT, MESSAGES_OFFSET, page_of


async def list_(request: web.Request) -> web.StreamResponse:
    """The tenant's sessions, most recently active first."""
    page = page_of(request.query)
    rows = await request.app[LINEAGES].reader.session_rows(request[TENANT], page.wanted, page.limit + 1)
    return answer(sessions.session_list(rows, page))


async def get(request: web.Request) -> web.StreamResponse:
    """One session."""
    return await one(request, request.match_info["session_id"])


async def one(
    request: web.Request, session_id: str, *, status: int = 200, headers: dict[str, str] | None = None
) -> web.StreamResponse:
    """The session of that id as an answer."""
    row = await request.app[LINEAGES].reader.session_row(request[TENANT], session_id)
    return answer(sessions.OneSession("hermes.session", sessions.session_entry(row)), status=status, headers=headers)


async def messages(request: web.Request) -> web.StreamResponse:
    """What was said in a session: the newest page, or the page at an offset."""
    limit = MESSAGES_LIMIT.of(request.query)
    offset = MESSAGES_OFFSET.of(request.query) if MESSAGES_OFFSET.name in request.query else None
    session = await request.app[LINEAGES].reader.whole_session(request[TENANT], request.match_info["session_id"])
    return answer(sessions.message_list(session, limit, offset))


async def lineage(request: web.Request) -> web.StreamResponse:
    """The sessions that rotations made of one, and what was forked from them."""
    found = await request.app[LINEAGES].reader.lineage(request[TENANT], request.match_info["session_id"])
    return answer(lineage_object(found))
