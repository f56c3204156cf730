"""GET /api/turns/{id}/prompt."""

from aiohttp import web

from api.context import PROMPTS, TENANT, answer
from api.wire.prompts import prompt_object


async def get(request: web.Request) -> web.StreamResponse:
    """What exactly the model was sent for a turn, whatever has become of its session since.

    The turn is known by its own id, or that of its response, chat completion or run. What was deleted is not found.
    """
    return answer(prompt_object(await request.app[PROMPTS].of(request[TENANT], request.match_info["turn_id"])))
