"""GET /api/sessions/search."""

from aiohttp import web

from api.context import SEARCH, TENANT, answer
from api.wire.search import LIMIT, OFFSET, search_results, text_asked


async def search(request: web.Request) -> web.StreamResponse:
    """The sessions in which something was said, or that are called so."""
    limit = LIMIT.of(request.query)
    offset = OFFSET.of(request.query)
    text = text_asked(request.query.get("q", ""))
    hits = await request.app[SEARCH].hits(request[TENANT], text, offset, limit + 1)
    return answer(search_results(hits, limit, offset))
