"""/v1/chat/completions: those that are stored."""

from aiohttp import web

from api.context import COMPLETIONS, TENANT, answer, body_of
from api.wire import stored_completions
from api.wire.service import Deleted
from api.wire.stored_completions import page_of, slice_of


async def list_(request: web.Request) -> web.StreamResponse:
    """The tenant's stored completions, oldest first unless asked otherwise.

    `metadata[key]=value`, once or more often, is for those alone that have these pairs.
    """
    page = page_of(request.query)
    turns, has_more = await request.app[COMPLETIONS].page(request[TENANT], page.stored, page.limit)
    return answer(stored_completions.completion_list(turns, has_more=has_more))


async def get(request: web.Request) -> web.StreamResponse:
    """One of them."""
    _, turn = await request.app[COMPLETIONS].read(request[TENANT], request.match_info["completion_id"])
    return answer(stored_completions.stored_completion(turn))


async def update(request: web.Request) -> web.StreamResponse:
    """Replace its metadata."""
    metadata = stored_completions.new_metadata(await body_of(request))
    completion_id = request.match_info["completion_id"]
    turn = await request.app[COMPLETIONS].annotate(request[TENANT], completion_id, metadata)
    return answer(stored_completions.stored_completion(turn))


async def delete(request: web.Request) -> web.StreamResponse:
    """Make it unaddressable. Its turn stays in the session."""
    completion_id = request.match_info["completion_id"]
    await request.app[COMPLETIONS].delete(request[TENANT], completion_id)
    return answer(Deleted(completion_id, "chat.completion.deleted"))


async def messages(request: web.Request) -> web.StreamResponse:
    """A page of the messages that it answered."""
    completion_id = request.match_info["completion_id"]
    page = slice_of(request.query, completion_id)
    said = await request.app[COMPLETIONS].messages(request[TENANT], completion_id)
    return answer(stored_completions.message_list(completion_id, said, page))
