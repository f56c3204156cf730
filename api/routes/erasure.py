"""/api/erasures: erasing what was said, for good."""

from aiohttp import web

from api.context import ERASURES, TENANT, answer, body_of
from api.wire import erasure as wire


async def create(request: web.Request) -> web.StreamResponse:
    """Erase all of the sessions meant: one, that of a conversation, those of a user, or of a session key.

    From the log, the views and their files: the answer comes when nothing of it is left.
    """
    order = wire.order_of(await body_of(request), request[TENANT])
    return answer(wire.erasure_object(await request.app[ERASURES].erase(order)))
