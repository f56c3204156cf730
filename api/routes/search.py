"""GET /api/sessions/search."""

from aiohttp import web

from api.context import SEARCH, TENANT, answer
from api.wire.search import LIMIT_DEFAULT, LIMIT_MAX, OFFSET_MAX, search_results, text_asked
from api.wire.session_list import whole_number


async def search(request: web.Request) -> web.StreamResponse:
    """The sessions in which something was said, or that are called so."""
    limit = whole_number(request.query, "limit", LIMIT_DEFAULT, LIMIT_MAX)
    offset = whole_number(request.query, "offset", 0, OFFSET_MAX)
    text = text_asked(request.query.get("q", ""))
    hits = await request.app[SEARCH].hits(request[TENANT], text, offset, limit + 1)
    return answer(search_results(hits, limit, offset))
