"""/v1/conversations."""

from aiohttp import web

from api.context import CONVERSATIONS, TENANT, answer, body_of, continuity_of
from api.problem import Problem
from api.turns.refusals import ConversationNotFound
from api.wire import conversations as wire
from api.wire.item_list import asked_of
from api.wire.service import Deleted
from projections.conversations import ConversationRow


async def create(request: web.Request) -> web.StreamResponse:
    """Make a conversation, with or without its first items."""
    wanted = wire.new_conversation(await body_of(request))
    speaker = wire.speaker_of(request[TENANT], continuity_of(request))
    return await _one(request, await request.app[CONVERSATIONS].create(speaker, wanted))


async def get(request: web.Request) -> web.StreamResponse:
    """A conversation, by the id that the server made or by a slug."""
    return await _one(request, await request.app[CONVERSATIONS].get(request[TENANT], name_in(request)))


async def update(request: web.Request) -> web.StreamResponse:
    """Replace a conversation's metadata."""
    notes = wire.notes_of(await body_of(request))
    return await _one(request, await request.app[CONVERSATIONS].annotate(request[TENANT], name_in(request), notes))


async def delete(request: web.Request) -> web.StreamResponse:
    """Delete a conversation. Its session goes on, with all that was said."""
    name = name_in(request)
    await request.app[CONVERSATIONS].delete(request[TENANT], name)
    return answer(Deleted(name, "conversation.deleted"))


async def list_(request: web.Request) -> web.StreamResponse:
    """The tenant's conversations, newest first unless asked otherwise."""
    asked = asked_of(request.query)
    after = await _position(request, asked.after) if asked.after else None
    newest_first = asked.order == "desc"
    rows = await request.app[CONVERSATIONS].page(request[TENANT], after, asked.limit + 1, newest_first=newest_first)
    return answer(wire.conversation_list(rows, asked))


def name_in(request: web.Request) -> str:
    """The conversation that the path names."""
    return request.match_info["conversation_id"]


async def _position(request: web.Request, after: str) -> int:
    try:
        return (await request.app[CONVERSATIONS].get(request[TENANT], after)).position
    except ConversationNotFound:
        raise Problem(f"No conversation with id '{after}'.", param="after", code="invalid_value") from None


async def _one(request: web.Request, row: ConversationRow) -> web.Response:
    """The conversation as an answer, with the id of the session that it leads to."""
    session_id = await request.app[CONVERSATIONS].tip(row, request[TENANT])
    return answer(wire.conversation_object(row), headers=continuity_of(request).echo(session_id))
