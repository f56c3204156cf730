"""/v1/conversations/{id}/items."""

from aiohttp import web

from api.context import CONVERSATIONS, TENANT, answer, body_of, continuity_of
from api.routes.conversations import name_in
from api.turns.conversations import Speaker
from api.turns.decide_conversation import item_not_found
from api.wire import conversations as wire
from api.wire.includes import check_included
from api.wire.item_list import asked_of, item_list


async def list_(request: web.Request) -> web.StreamResponse:
    """What was said and added in a conversation."""
    asked = asked_of(request.query)
    check_included(request.query)
    session, turns = await request.app[CONVERSATIONS].said(_speaker(request), name_in(request))
    return answer(item_list(turns, asked), headers=continuity_of(request).echo(session.session_id))


async def create(request: web.Request) -> web.StreamResponse:
    """Add items to the end of a conversation."""
    check_included(request.query)
    items = wire.new_items(await body_of(request))
    session, turn = await request.app[CONVERSATIONS].add(_speaker(request), name_in(request), items)
    return answer(wire.added_items(turn), headers=continuity_of(request).echo(session.session_id))


async def get(request: web.Request) -> web.StreamResponse:
    """One item."""
    check_included(request.query)
    item_id = request.match_info["item_id"]
    session, turns = await request.app[CONVERSATIONS].said(_speaker(request), name_in(request))
    found = wire.find_item(turns, item_id)
    if found is None:
        raise item_not_found(item_id)
    return answer(found[1], headers=continuity_of(request).echo(session.session_id))


async def delete(request: web.Request) -> web.StreamResponse:
    """Take an item out of a conversation, which is the answer."""
    name, item_id = name_in(request), request.match_info["item_id"]
    conversations = request.app[CONVERSATIONS]
    session = await conversations.remove(_speaker(request), name, item_id, wire.holder_of)
    row = await conversations.get(request[TENANT], name)
    return answer(wire.conversation_object(row), headers=continuity_of(request).echo(session.session_id))


def _speaker(request: web.Request) -> Speaker:
    return wire.speaker_of(request[TENANT], continuity_of(request))
