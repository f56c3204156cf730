"""/api/sessions: reading."""

from aiohttp import web

from api.context import LINEAGES, MOMENTS, TENANT, answer
from api.turns.moments import PastReader
from api.turns.reader import Reader
from api.wire import sessions
from api.wire.lineage import lineage_object
from api.wire.moment import AS_OF
from api.wire.session_list import MESSAGES_LIMIT, MESSAGES_OFFSET, page_of


async def list_(request: web.Request) -> web.StreamResponse:
    """The tenant's sessions, most recently active first."""
    page = page_of(request.query)
    rows = await (await _reader(request)).session_rows(request[TENANT], page.wanted, page.limit + 1)
    return answer(sessions.session_list(rows, page))


async def get(request: web.Request) -> web.StreamResponse:
    """One session."""
    row = await (await _reader(request)).session_row(request[TENANT], request.match_info["session_id"])
    return answer(sessions.OneSession("hermes.session", sessions.session_entry(row)))


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
    session = await (await _reader(request)).whole_session(request[TENANT], request.match_info["session_id"])
    return answer(sessions.message_list(session, limit, offset))


async def lineage(request: web.Request) -> web.StreamResponse:
    """The sessions that rotations made of one, and what was forked from them."""
    found = await (await _reader(request)).lineage(request[TENANT], request.match_info["session_id"])
    return answer(lineage_object(found))


async def _reader(request: web.Request) -> Reader | PastReader:
    """Reads what is there now, or what was there at the moment that the query names; raises `Problem`."""
    moment = AS_OF.of(request.query)
    if moment is None:
        return request.app[LINEAGES].reader
    return await request.app[MOMENTS].reader(moment.position, moment.recorded_us)
