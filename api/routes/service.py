"""What the server says of itself: health, models, capabilities."""

from importlib.metadata import version

from aiohttp import web

from api.context import CATALOGUE, GUARD, KEYRING, SETTINGS, STANDING, TURNS, answer
from api.turns.refusals import ShuttingDown
from api.wire.headers import IDEMPOTENCY_KEY, IDENTITY, MEMORY, SESSION_ID, SESSION_KEY

VERSION = version("turnlog")


async def health(request: web.Request) -> web.StreamResponse:
    """Whether the server takes turns; 503 while it is stopping, or when its log is damaged."""
    request.app[GUARD].ensure_whole()
    if request.app[TURNS].work.is_draining:
        raise ShuttingDown("the server is stopping")
    said: dict[str, object] = {"status": "ok", "platform": "turnlog", "version": VERSION}
    if standing := request.app.get(STANDING):
        said |= {"read_only": True, "position": standing.position}
    return answer(said)


async def models(request: web.Request) -> web.StreamResponse:
    """The models of the model servers, by names that lead to them."""
    return answer({"object": "list", "data": await request.app[CATALOGUE].all()})


async def model(request: web.Request) -> web.StreamResponse:
    """One of them, by its name."""
    return answer(await request.app[CATALOGUE].one(request.match_info["model"]))


async def capabilities(request: web.Request) -> web.StreamResponse:
    """What clients can rely on, so that they need not guess."""
    settings = request.app[SETTINGS]
    return answer(
        {
            "object": "hermes.api_server.capabilities",
            "platform": "turnlog",
            "version": VERSION,
            "model": settings.default_model or None,
            "auth": {"type": "bearer", "required": not request.app[KEYRING].is_open},
            "features": {
                "chat_completions": True,
                "chat_completions_streaming": True,
                "responses_api": True,
                "responses_streaming": True,
                "background_responses": True,
                "responses_websocket": True,
                "conversation_slugs": True,
                "session_resources": True,
                "history_matching": settings.match_history,
                "session_continuity_header": SESSION_ID,
                "session_key_header": SESSION_KEY,
                "identity_headers": list(IDENTITY),
                "identity_body_user_fallback": True,
                "session_fork": True,
                "session_chat": True,
                "session_chat_streaming": True,
                "run_submission": True,
                "run_status": True,
                "run_events_sse": True,
                "run_stop": True,
                "session_search": True,
                "session_memory": settings.memory,
                "memory_header": MEMORY,
                "idempotency_key_header": IDEMPOTENCY_KEY,
                "compression": True,
                "audit_checkpoints": True,
                "audit_proofs": True,
                "cors": bool(settings.cors_origins),
                "read_only": STANDING in request.app,
                "position": standing.position if (standing := request.app.get(STANDING)) else None,
            },
            "endpoints": {
                route.name: {"method": route.method, "path": _path(route)}
                for route in request.app.router.routes()
                if route.name and route.method != "HEAD"
            },
        }
    )


def _path(route: web.AbstractRoute) -> str:
    return route.resource.canonical if route.resource else ""
