"""/v1/responses/{id}/input_items."""

from aiohttp import web

from api.context import RESPONSES, TENANT, answer
from api.wire.includes import check_included
from api.wire.item_list import asked_of, input_items, item_list, turn_items


async def list_(request: web.Request) -> web.StreamResponse:
    """What a response was made of: all that was said before it, and its own input; that alone while it is queued."""
    asked = asked_of(request.query)
    check_included(request.query)
    said = await request.app[RESPONSES].said_until(request[TENANT], request.match_info["response_id"])
    newest = said[-1]
    return answer(
        item_list(said, asked, lambda turn: input_items(turn) if turn.turn_id == newest.turn_id else turn_items(turn))
    )
