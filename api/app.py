"""The composition root: which parts there are, in which order they start, and in which they stop."""

import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial

import structlog
from aiohttp import hdrs, web

from api.boundary import boundary, on_prepare
from api.context import (
    DESK,
    EVICTION,
    GUARD,
    KEYRING,
    LINEAGES,
    MODEL,
    ROTATIONS,
    RUNS,
    SEARCH,
    SETTINGS,
    SOCKETS,
    TURNS,
)
from api.guard import Guard
from api.keys import Keyring
from api.models.builtin import BuiltinModel
from api.models.model import Model
from api.models.upstream import UpstreamModel
from api.routes import (
    aside,
    chat,
    compress,
    desk,
    responses,
    runs,
    search,
    service,
    session_chat,
    sessions,
    socket,
)
from api.settings import BODY_BYTES_MAX, Settings
from api.sockets import Sockets
from api.turns.background import Background
from api.turns.desk import Desk
from api.turns.eviction import Eviction
from api.turns.lineages import Lineages
from api.turns.rotation import Rotations
from api.turns.said_before import SaidBefore
from api.turns.search import Search
from api.turns.service import Turns
from eventstore.sqlite import SqliteLog
from projections.runner import VIEWS_FILE, Runner
from projections.views import VIEWS

_log = structlog.get_logger()

# Method, path, handler, and the name under which clients find it in the capabilities.
ROUTES = (
    (hdrs.METH_GET, "/health", service.health, "health"),
    (hdrs.METH_GET, "/v1/health", service.health, "health_v1"),
    (hdrs.METH_GET, "/v1/models", service.models, "models"),
    (hdrs.METH_GET, "/v1/capabilities", service.capabilities, "capabilities"),
    (hdrs.METH_POST, "/v1/chat/completions", chat.create, "chat_completions"),
    (hdrs.METH_POST, "/v1/responses", responses.create, "responses"),
    (hdrs.METH_GET, "/v1/responses", socket.connect, "responses_websocket"),
    (hdrs.METH_POST, "/v1/responses/compact", aside.compact, "responses_compact"),
    (hdrs.METH_POST, "/v1/responses/input_tokens", aside.input_tokens, "responses_input_tokens"),
    (hdrs.METH_GET, "/v1/responses/{response_id}", responses.get, "response"),
    (hdrs.METH_DELETE, "/v1/responses/{response_id}", responses.delete, "response_delete"),
    (hdrs.METH_POST, "/v1/runs", runs.create, "runs"),
    (hdrs.METH_GET, "/v1/runs/{run_id}", runs.get, "run_status"),
    (hdrs.METH_GET, "/v1/runs/{run_id}/events", runs.events, "run_events"),
    (hdrs.METH_POST, "/v1/runs/{run_id}/stop", runs.stop, "run_stop"),
    (hdrs.METH_GET, "/api/sessions", sessions.list_, "sessions"),
    (hdrs.METH_POST, "/api/sessions", desk.create, "session_create"),
    (hdrs.METH_GET, "/api/sessions/search", search.search, "session_search"),
    (hdrs.METH_GET, "/api/sessions/{session_id}", sessions.get, "session"),
    (hdrs.METH_PATCH, "/api/sessions/{session_id}", desk.change, "session_update"),
    (hdrs.METH_DELETE, "/api/sessions/{session_id}", desk.delete, "session_delete"),
    (hdrs.METH_GET, "/api/sessions/{session_id}/messages", sessions.messages, "session_messages"),
    (hdrs.METH_POST, "/api/sessions/{session_id}/compress", compress.create, "session_compress"),
    (hdrs.METH_GET, "/api/sessions/{session_id}/lineage", sessions.lineage, "session_lineage"),
    (hdrs.METH_POST, "/api/sessions/{session_id}/fork", desk.fork, "session_fork"),
    (hdrs.METH_POST, "/api/sessions/{session_id}/chat", session_chat.create, "session_chat"),
    (hdrs.METH_POST, "/api/sessions/{session_id}/chat/stream", session_chat.stream, "session_chat_stream"),
)


def _no_progress(_position: int) -> None:
    """For those who do not watch."""


def make_app(settings: Settings, *, progress: Callable[[int], None] = _no_progress) -> web.Application:
    """A server's application. `progress` is called with the position reached while views are rebuilt at the start."""
    app = web.Application(middlewares=[boundary], client_max_size=BODY_BYTES_MAX)
    app[SETTINGS] = settings
    app[GUARD] = Guard()
    app[KEYRING] = Keyring(settings.data if settings.auth else None, settings.api_key)
    sockets = app[SOCKETS] = Sockets()

    app.on_shutdown.append(sockets.close)
    app.cleanup_ctx.append(partial(_parts, progress=progress))
    app.on_response_prepare.append(on_prepare)
    for method, path, handler, name in ROUTES:
        app.router.add_route(method, path, handler, name=name)
    return app


async def _parts(app: web.Application, progress: Callable[[int], None]) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    async with contextlib.AsyncExitStack() as parts:
        log = await SqliteLog.open(settings.data, synchronous=settings.synchronous)
        parts.push_async_callback(log.close)
        parts.push_async_callback(app[GUARD].stop)
        await app[GUARD].start(log)
        views = await Runner.start(log, settings.data / VIEWS_FILE, VIEWS, progress=progress)
        parts.push_async_callback(views.stop)
        model = app[MODEL] = _model(settings, parts)
        lineages = app[LINEAGES] = Lineages(log, views, lock_wait_s=settings.lock_wait_s)
        summariser = model if settings.upstream else None  # the built-in model has nothing to say of its own
        rotations = app[ROTATIONS] = Rotations(lineages, summariser, settings.compression, settings.models)
        eviction = app[EVICTION] = Eviction(
            lineages, responses_max=settings.responses_max, ttl_s=settings.response_ttl_s
        )
        search_ = app[SEARCH] = Search(log, views, lineages.directory)
        parts.callback(search_.close)
        memory = SaidBefore(log, views, lineages.spoken)
        parts.callback(memory.close)
        parts.push_async_callback(rotations.stop)
        turns = app[TURNS] = Turns(
            lineages,
            model,
            rotations,
            turn_max_s=settings.timeouts.total_s,
            lock_wait_s=settings.lock_wait_s,
            eviction=eviction,
            restarts_runs=settings.runs_after_crash == "restart",
            matches_history=settings.match_history,
            answers_without_history=settings.history_on_failure == "empty",
            memory=memory if settings.memory else None,
        )
        app[DESK] = Desk(lineages, turns, eviction)
        background = app[RUNS] = Background(lineages, turns, runs_max=settings.runs_max)
        parts.push_async_callback(turns.stop, 0.0)
        if left_open := await turns.cancel_left_open():
            _log.warning("cancelled turns that a crash had left open", turns=left_open)
        await parts.enter_async_context(eviction.sweeping())
        if restarted := await background.start_again():
            _log.warning("started runs again that were cut short", runs=restarted)
        yield


def _model(settings: Settings, parts: contextlib.AsyncExitStack) -> Model:
    if not settings.upstream:
        return BuiltinModel()
    upstream = UpstreamModel(settings.upstream, settings.upstream_key, settings.timeouts)
    parts.push_async_callback(upstream.close)
    return upstream
