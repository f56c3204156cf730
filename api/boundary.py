"""The one middleware: who asks, whether they may, what went wrong, and a line in the log.

Every answer of every route leaves through here, so every error has the same envelope and every answer its request id.
"""

import time
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import hdrs, web
from structlog.contextvars import bind_contextvars, clear_contextvars

from api.context import CHANGING, ECHO, GUARD, KEYRING, OPEN_PATHS, REQUEST_ID, SETTINGS, STANDING, TENANT, answer
from api.errors import problem_of
from api.ids import new_request_id
from api.keys import DEFAULT_TENANT
from api.problem import Problem, envelope
from api.wire.headers import CONTINUITY, IDEMPOTENCY_KEY, MEMORY, REMARKS

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

REQUEST_ID_HEADER = "x-request-id"
SERVER_NAME = "turnlog"
CLIENT_GONE = 499  # what other servers log for a client that hung up; never sent

_log = structlog.get_logger()

_ALLOWED = ("Authorization", "Content-Type", "Last-Event-ID", IDEMPOTENCY_KEY, MEMORY, *CONTINUITY)
_SDK_HEADERS = ("x-stainless-", "openai-")
_PREFLIGHT: dict[str, str] = {
    hdrs.ACCESS_CONTROL_ALLOW_METHODS: "GET, POST, PATCH, DELETE, OPTIONS",
    hdrs.ACCESS_CONTROL_MAX_AGE: "600",
}
_EXPOSED = ", ".join((*CONTINUITY, *REMARKS, REQUEST_ID_HEADER, "Retry-After"))


@web.middleware
async def boundary(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Let a request in, and its answer out."""
    began = time.perf_counter()
    request[REQUEST_ID] = request_id = new_request_id()
    clear_contextvars()  # a connection's requests share one task, and so one context
    bind_contextvars(request_id=request_id)
    status = CLIENT_GONE
    try:
        response = await _admitted(request, handler)
    except ConnectionError:
        raise  # the client hung up: there is nobody to tell
    except Exception as error:  # noqa: BLE001 (the outermost place: everything becomes an answer here)
        problem = _problem_of(error)
        status = problem.status
        log_failure(request, problem, error)
        headers = {**request.get(ECHO, {}), **problem.headers}
        return answer(envelope(problem), status=problem.status, headers=headers)
    else:
        status = response.status
        return response
    finally:
        _log.info("request", **_told(request), method=request.method, status=status, took_ms=took_ms(began))


async def on_prepare(request: web.Request, response: web.StreamResponse) -> None:
    """What every answer carries, streamed ones too."""
    response.headers[REQUEST_ID_HEADER] = request[REQUEST_ID]
    response.headers[hdrs.SERVER] = SERVER_NAME
    origin = request.headers.get(hdrs.ORIGIN)
    if origin and _is_listed(request, origin):
        response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
        response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = _EXPOSED
        response.headers[hdrs.VARY] = hdrs.ORIGIN


async def _admitted(request: web.Request, handler: Handler) -> web.StreamResponse:
    if origin := request.headers.get(hdrs.ORIGIN):
        _check_origin(request, origin)
        if request.method == hdrs.METH_OPTIONS and hdrs.ACCESS_CONTROL_REQUEST_METHOD in request.headers:
            return web.Response(headers=_preflight(request))
    if request.match_info.http_exception is None and request.path not in request.app[OPEN_PATHS]:
        request[TENANT] = admit(request)
        if (standing := request.app.get(STANDING)) and request.match_info.route.name in request.app[CHANGING]:
            standing.refuse()
    return await handler(request)


def admit(request: web.Request) -> str:
    """The tenant whose key the request brings; a long connection is asked again now and then.

    Raises `Problem` for a wrong key, and what is wrong with the log.
    """
    tenant = _tenant_of(request)
    request.app[GUARD].ensure_whole()
    return tenant


def _preflight(request: web.Request) -> dict[str, str]:
    """What a page may send: our own headers, and those that OpenAI's SDK in a browser adds to every request."""
    asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS, "").split(",")
    added = [name.strip() for name in asked if name.strip().lower().startswith(_SDK_HEADERS)]
    return {**_PREFLIGHT, hdrs.ACCESS_CONTROL_ALLOW_HEADERS: ", ".join((*_ALLOWED, *added))}


def _is_listed(request: web.Request, origin: str) -> bool:
    origins = request.app[SETTINGS].cors_origins
    return origin in origins or "*" in origins


def _check_origin(request: web.Request, origin: str) -> None:
    if not _is_listed(request, origin):
        raise Problem(
            f"Pages from {origin} may not use this server: start it with --cors-origin {origin} to let them.",
            status=403,
            type_="permission_error",
            code="origin_not_allowed",
        )


def _tenant_of(request: web.Request) -> str:
    keyring = request.app[KEYRING]
    if keyring.is_open:
        return DEFAULT_TENANT
    scheme, _, key = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    is_bearer = scheme.lower() == "bearer"
    tenant = keyring.tenant_of(key.strip()) if is_bearer else None
    if tenant is None:
        said = "Invalid API key." if is_bearer and key else "No API key: send 'Authorization: Bearer KEY'."
        raise Problem(said, status=401, code="invalid_api_key", headers={"www-authenticate": "Bearer"})
    return tenant


def _problem_of(error: Exception) -> Problem:
    if not isinstance(error, web.HTTPException):
        return problem_of(error)
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        message = f"Method {error.method} is not allowed here; allowed: {allowed}."
        return Problem(message, status=405, code="method_not_allowed", headers={"allow": allowed})
    if isinstance(error, web.HTTPNotFound):
        return Problem("There is no such route; /v1/capabilities lists those there are.", status=404, code="not_found")
    return Problem(error.reason, status=error.status, code="http_error")


def log_failure(request: web.Request, problem: Problem, error: Exception) -> None:
    """Tell the operator of what is not the client's fault."""
    if problem.status >= 500:
        _log.error("request failed", **_told(request), code=problem.code, reason=str(error), exc_info=_ours(problem))


def took_ms(began: float) -> float:
    """The milliseconds since `began`, a `time.perf_counter`."""
    return round((time.perf_counter() - began) * 1_000, 2)


def _ours(problem: Problem) -> bool:
    return problem.code == "internal_error"


def _told(request: web.Request) -> dict[str, str]:
    return {"tenant": request.get(TENANT, ""), "path": request.path}
