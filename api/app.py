"""The composition root: which parts there are, in which order they start, and in which they stop."""

import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import NamedTuple

import structlog
from aiohttp import web

from api import readonly
from api.audit import Audit
from api.boundary import boundary, on_prepare
from api.context import (
    AUDIT,
    CATALOGUE,
    CHANGING,
    COMPLETIONS,
    CONVERSATIONS,
    DESCRIPTION,
    DESK,
    ERASURES,
    EVICTION,
    FEED,
    GUARD,
    KEYRING,
    LINEAGES,
    MOMENTS,
    OPEN_PATHS,
    PROMPTS,
    RESPONSES,
    ROTATIONS,
    RUNS,
    SEARCH,
    SETTINGS,
    SOCKETS,
    STANDING,
    TURNS,
)
from api.description import Description
from api.guard import Guard
from api.keys import Keyring
from api.models.builtin import BuiltinModel
from api.models.catalogue import Catalogue
from api.models.chat import ChatModel
from api.models.model import Model
from api.models.responses import ResponsesModel
from api.models.router import Dialect, Router
from api.models.upstream import UpstreamServer
from api.routes.service import VERSION
from api.routes.table import ROUTES
from api.settings import BODY_BYTES_MAX, DEFAULT, Settings
from api.sockets import Sockets
from api.turns.background import Background
from api.turns.background_responses import BackgroundResponses
from api.turns.completions import Completions
from api.turns.conversations import Conversations
from api.turns.desk import Desk
from api.turns.erasure import Erasures, Live, finish
from api.turns.eviction import Eviction
from api.turns.feed import Feed
from api.turns.lineages import Lineages
from api.turns.moments import Moments
from api.turns.prompts import Prompts
from api.turns.queue import Queue
from api.turns.rotation import Rotations
from api.turns.said_before import SaidBefore
from api.turns.search import Search
from api.turns.service import Turns
from api.wire import feed as feed_wire
from eventstore.log import EventLog
from eventstore.proofs.audit_key import KEY_FILE, AuditKeyLost, of_log, publish
from eventstore.sqlite import SqliteLog
from projections.runner import VIEWS_FILE, Runner
from projections.still import StillViews
from projections.views import VIEWS

_log = structlog.get_logger()


def _no_progress(_position: int) -> None:
    """For those who do not watch."""


def make_app(settings: Settings, *, progress: Callable[[int], None] = _no_progress) -> web.Application:
    """A server's application. `progress` is called with the position reached while views are rebuilt at the start."""
    app = web.Application(middlewares=[boundary], client_max_size=BODY_BYTES_MAX)
    if settings.views:
        settings = readonly.lasting(settings)
    app[SETTINGS] = settings
    app[GUARD] = Guard()
    app[KEYRING] = Keyring(settings.data if settings.auth else None, settings.api_key)
    sockets = app[SOCKETS] = Sockets()

    app.on_shutdown.append(sockets.close)
    app.on_shutdown.append(_end_feed)
    app.cleanup_ctx.append(partial(_parts, progress=progress))
    app.on_response_prepare.append(on_prepare)
    app[DESCRIPTION] = Description(ROUTES, VERSION)
    app[CHANGING] = frozenset(route.name for route in ROUTES if route.changes)
    app[OPEN_PATHS] = frozenset(route.path for route in ROUTES if route.is_open)
    for route in ROUTES:
        app.router.add_route(route.method, route.path, route.handler, name=route.name)
    return app


class _Storage(NamedTuple):
    """What is read; and what can be changed, unless the server is read only."""

    log: EventLog
    views: Runner | StillViews
    live: tuple[SqliteLog, Runner] | None


async def _parts(app: web.Application, progress: Callable[[int], None]) -> AsyncIterator[None]:
    settings = app[SETTINGS]
    async with contextlib.AsyncExitStack() as parts:
        storage = await _storage(app, parts, progress)
        log, views, live = storage
        lineages = app[LINEAGES] = Lineages(log, views, lock_wait_s=settings.lock_wait_s)
        _readers(app, parts, storage)
        turns = _turns(app, parts, storage)
        app[CONVERSATIONS] = Conversations(log, lineages, turns)
        app[COMPLETIONS] = Completions(lineages)
        desk = app[DESK] = Desk(lineages, turns, app[EVICTION])
        background = app[RUNS] = Background(lineages, turns, runs_max=settings.runs_max)
        responses_ = app[RESPONSES] = BackgroundResponses(
            lineages, turns, background, app[EVICTION], Queue(log, views, lineages.directory)
        )
        parts.push_async_callback(turns.stop, 0.0)
        if live is None:
            await responses_.show_queued()
        else:
            audit = app[AUDIT] = await _audit(settings)
            parts.push_async_callback(audit.stop)
            at_work = Live(turns, desk, responses_, app[MOMENTS], app[FEED])
            erasures = app[ERASURES] = Erasures(live[0], lineages, live[1], settings.data / VIEWS_FILE, at_work)
            parts.push_async_callback(erasures.stop)
            await _take_up(turns, background, responses_)
            await parts.enter_async_context(app[EVICTION].sweeping())
        yield


async def _storage(app: web.Application, parts: contextlib.AsyncExitStack, progress: Callable[[int], None]) -> _Storage:
    settings = app[SETTINGS]
    if settings.views:
        cut, still, app[STANDING] = await readonly.opened(settings, parts, app[GUARD])
        parts.push_async_callback(app[GUARD].stop)
        await app[GUARD].start(cut)
        return _Storage(cut, still, None)
    log = await SqliteLog.open(settings.data, synchronous=settings.synchronous)
    parts.push_async_callback(log.close)
    parts.push_async_callback(app[GUARD].stop)
    await app[GUARD].start(log)
    await finish(log, settings.data / VIEWS_FILE)
    views = await Runner.start(log, settings.data / VIEWS_FILE, VIEWS, progress=progress)
    parts.push_async_callback(views.stop)
    return _Storage(log, views, (log, views))


def _readers(app: web.Application, parts: contextlib.AsyncExitStack, storage: _Storage) -> None:
    """Those that change nothing."""
    log, views, lineages = storage.log, storage.views, app[LINEAGES]
    app[PROMPTS] = Prompts(log, lineages.sessions, views)
    app[FEED] = Feed(log, lineages.directory, feed_wire.told)
    moments = app[MOMENTS] = Moments(log, lineages.reader, lineages.directory)
    parts.push_async_callback(moments.stop)
    search_ = app[SEARCH] = Search(log, views, lineages.directory)
    parts.callback(search_.close)


def _turns(app: web.Application, parts: contextlib.AsyncExitStack, storage: _Storage) -> Turns:
    """Those by which turns are taken."""
    settings, lineages = app[SETTINGS], app[LINEAGES]
    model = _model(settings, parts)
    catalogue = app[CATALOGUE] = Catalogue(model)
    parts.push_async_callback(catalogue.stop)
    summariser = model if settings.all_upstreams else None  # the built-in model has nothing to say of its own
    rotations = app[ROTATIONS] = Rotations(lineages, summariser, settings.compression, settings.models)
    parts.push_async_callback(rotations.stop)
    memory = SaidBefore(storage.log, storage.views, lineages.spoken)
    parts.callback(memory.close)
    app[EVICTION] = Eviction(lineages, responses_max=settings.responses_max, ttl_s=settings.response_ttl_s)
    turns = app[TURNS] = Turns(
        lineages,
        model,
        rotations,
        turn_max_s=settings.timeouts.total_s,
        lock_wait_s=settings.lock_wait_s,
        eviction=app[EVICTION],
        restarts_runs=settings.runs_after_crash == "restart",
        matches_history=settings.match_history,
        answers_without_history=settings.history_on_failure == "empty",
        memory=memory if settings.memory else None,
    )
    return turns


async def _end_feed(app: web.Application) -> None:
    """Streams of events end as the server stops: their clients come back to the next one."""
    await app[FEED].close()


async def _audit(settings: Settings) -> Audit:
    key_path = settings.audit_key or settings.data / KEY_FILE
    try:
        publish(settings.data, of_log(settings.data, key_path, settings.audit_name).verifier)
    except AuditKeyLost as error:
        return Audit.unable(error)
    return await Audit.start(settings.data, key_path, settings.checkpoint_every_s)


async def _take_up(turns: Turns, background: Background, responses_: BackgroundResponses) -> None:
    """What the process before this one has left, before any request is let in."""
    if left_open := await turns.cancel_left_open():
        _log.warning("cancelled turns that a crash had left open", turns=left_open)
    if restarted := await background.start_again():
        _log.warning("started runs again that were cut short", runs=restarted)
    if queued := await responses_.ask_again():
        _log.warning("responses that were queued wait on", responses=queued)


_DIALECTS: dict[Dialect, Callable[[UpstreamServer], Model]] = {"chat": ChatModel, "responses": ResponsesModel}


def _model(settings: Settings, parts: contextlib.AsyncExitStack) -> Model:
    upstreams = settings.all_upstreams
    if not upstreams:
        return BuiltinModel()
    models: dict[str, Model] = {}
    for upstream in upstreams:
        server = UpstreamServer(upstream.url, upstream.key, settings.timeouts, settings.retries)
        parts.push_async_callback(server.close)
        models[upstream.name] = _DIALECTS[upstream.api](server)
    return Router(upstreams, models) if settings.upstreams else models[DEFAULT]
