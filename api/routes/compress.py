"""POST /api/sessions/{session_id}/compress."""

from aiohttp import web

from api.context import ROTATIONS, TENANT, answer, body_of, continuity_of
from api.wire import compress


async def create(request: web.Request) -> web.StreamResponse:
    """Compress a session now. Its old ids go on leading to it."""
    asked = compress.decode(await body_of(request))
    session_id = request.match_info["session_id"]
    rotated = await request.app[ROTATIONS].by_hand(request[TENANT], session_id, asked.focus or "")
    return answer(compress.compressed(rotated), headers=continuity_of(request).echo(rotated.session_id))
