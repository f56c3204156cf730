"""POST /v1/responses/input_tokens and /v1/responses/compact: what is asked about a turn that is not taken."""

import time

from aiohttp import web

from api.context import ROTATIONS, TENANT, TURNS, answer, body_of, continuity_of
from api.ids import new_id
from api.turns import aside
from api.wire import compaction
from api.wire import input_tokens as tokens
from api.wire.input_tokens import InputTokens


async def input_tokens(request: web.Request) -> web.StreamResponse:
    """How long the prompt of a response would be, history and all."""
    asked = tokens.turn_request(await body_of(request), request[TENANT], continuity_of(request))
    return answer(InputTokens(await aside.input_tokens(request.app[TURNS], asked)))


async def compact(request: web.Request) -> web.StreamResponse:
    """A shorter input that stands for a conversation, which stays as it is."""
    asked = compaction.turn_request(await body_of(request), request[TENANT], continuity_of(request))
    window = await aside.compact(request.app[TURNS], request.app[ROTATIONS], asked)
    return answer(compaction.compacted_response(window, new_id(), time.time_ns() // 1_000))
