"""/v1/responses/{id}/input_items."""

from aiohttp import web

from api.context import EVICTION, LINEAGES, TENANT, answer
from api.wire.includes import check_included
from api.wire.item_list import asked_of, input_items, item_list, turn_items


async def list_(request: web.Request) -> web.StreamResponse:
    """What a response was made of: all that was said before it, and its own input."""
    asked = asked_of(request.query)
    check_included(request.query)
    session, turn = await request.app[EVICTION].read(request[TENANT], request.match_info["response_id"])
    said = await request.app[LINEAGES].reader.said_until(session, turn)
    newest = said[-1]
    return answer(
        item_list(said, asked, lambda turn: input_items(turn) if turn.turn_id == newest.turn_id else turn_items(turn))
    )
