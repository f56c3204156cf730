"""A server's life: start, serve until told to stop, let running turns finish, stop."""

import asyncio
import signal
from collections.abc import Callable, Coroutine

import structlog
from aiohttp import web

from api.app import make_app
from api.connections import Runner
from api.context import STANDING, TURNS
from api.readonly import Standing
from api.settings import Settings

HEADER_BYTES_MAX = 16_384
CLOSE_S = 5.0

_log = structlog.get_logger()


async def serve(
    settings: Settings, *, ready: Callable[[str, Standing | None], None], progress: Callable[[int], None]
) -> None:
    """Serve until SIGTERM or SIGINT. `ready` is called with the URL once requests are taken, and with the
    moment that is served by a server that only reads.

    Raises `LogError` or `OSError` where the server can not start.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    app = make_app(settings, progress=progress)
    runner = Runner(
        app,
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=CLOSE_S,
        max_field_size=HEADER_BYTES_MAX,
    )
    try:
        if await _stopped_before(stop, runner.setup()):
            return
        site = web.TCPSite(runner, settings.host, settings.port, backlog=1024)
        await site.start()
        host, port = runner.addresses[0][:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        _log.info("serving", url=url, data=str(settings.data))
        ready(url, app.get(STANDING))
        await stop.wait()
        _log.info("stopping", grace_s=settings.grace_s)
        await app[TURNS].stop(settings.grace_s)
    finally:
        await runner.cleanup()
    _log.info("stopped")


async def _stopped_before(stop: asyncio.Event, starting: Coroutine[None, None, None]) -> bool:
    """Run `starting`, which may take long, unless the signal to stop comes first."""
    start, stopped = asyncio.ensure_future(starting), asyncio.ensure_future(stop.wait())
    await asyncio.wait((start, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not start.done():
        start.cancel()
        await asyncio.wait((start,))
        return True
    start.result()
    return False
