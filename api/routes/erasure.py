"""/api/erasures: erasing what was said, for good."""

from aiohttp import hdrs, web

from api.context import ERASURES, KEYRING, TENANT, answer, body_of
from api.wire import erasure as wire


async def create(request: web.Request) -> web.StreamResponse:
    """Erase all of the sessions meant: one, that of a conversation, those of a user, or of a session key.

    From the log, the views and their files: the answer comes when nothing of it is left.
    """
    order = wire.order_of(await body_of(request), request[TENANT], asked_by(request))
    return answer(wire.erasure_object(await request.app[ERASURES].erase(order)))


def asked_by(request: web.Request) -> str:
    """Who asks, as an erasure records it: the tenant, and the name of the key where it has one."""
    _, _, key = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    name = request.app[KEYRING].name_of(key.strip())
    return f"tenant {request[TENANT]}, key {name}" if name else f"tenant {request[TENANT]}"
