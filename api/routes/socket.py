"""GET /v1/responses, upgraded to a WebSocket: turns over one connection.

Theory of operation. The handler's own task reads frames, so that a client which hangs up or pings is noticed at once;
what it asks for waits in a bounded queue. A second task takes the turns one after another, as POST /v1/responses
would; whatever goes wrong with one is an event, and the connection stays open. A third pings, for the proxies on the
way to a client that thinks; no answer is waited for, as many clients only answer while they read. Whichever of the
tasks ends, the others do, and a turn that is under way then is cancelled like that of any client that hangs up.
"""

import asyncio
import contextlib
import time
from collections.abc import Coroutine, Iterable, Sequence

from aiohttp import WSCloseCode, WSMsgType, hdrs, web

from api.context import SETTINGS, SOCKETS, TURNS, continuity_of
from api.errors import SOON
from api.problem import Problem
from api.routes.events import not_stalled
from api.routes.socket_turns import SocketTurns
from api.settings import BODY_BYTES_MAX
from api.sockets import Socket
from api.turns.refusals import ShuttingDown
from api.wire import socket as wire
from api.wire.headers import IDEMPOTENCY_KEY, Continuity
from api.wire.socket import Create, Steer

CLOSE_S = 2.0  # for a client to answer that the connection is closed
FRAME_BYTES_MAX = 2 * BODY_BYTES_MAX  # one beyond the limit of a body is read and refused; beyond this, cut off (1009)
WAITING_MAX = 16
WAITING_BYTES_MAX = BODY_BYTES_MAX


async def connect(request: web.Request) -> web.StreamResponse:
    """Upgrade, and take turns until one side has had enough."""
    headers = _checked(request)
    socket = Socket(timeout=CLOSE_S, compress=False, max_msg_size=FRAME_BYTES_MAX, decode_text=False)
    try:
        await socket.prepare(request)
    except web.HTTPBadRequest as error:
        raise Problem(f"Not a WebSocket handshake: {error.text}", code="bad_handshake") from None
    with request.app[SOCKETS].holding(socket):
        await _Connection(request, socket, headers).run()
    return socket


def _checked(request: web.Request) -> Continuity:
    """The continuity headers, which hold for all turns of the connection; raises `Problem`, `ShuttingDown`."""
    headers = continuity_of(request)
    if request.headers.get(hdrs.UPGRADE, "").strip().lower() != "websocket":
        raise Problem(
            "GET /v1/responses is for WebSockets: upgrade the connection, or POST.",
            status=426,
            code="upgrade_required",
            headers={"upgrade": "websocket", "connection": "upgrade"},
        )
    if headers.idempotency_key:
        raise Problem(
            f"{IDEMPOTENCY_KEY} can not be used with a WebSocket: it would stand for each of its turns.",
            param=IDEMPOTENCY_KEY,
            code="unsupported_header",
        )
    if request.app[TURNS].work.is_draining:
        raise ShuttingDown("the server is stopping: try again in a moment")
    if request.app[SOCKETS].is_full:
        raise Problem(
            "Too many WebSocket connections are open: try again in a moment.",
            status=429,
            type_="rate_limit_error",
            code="too_many_connections",
            headers=dict(SOON),
        )
    return headers


class _Connection:
    """One client's socket, and what waits to be done on it."""

    def __init__(self, request: web.Request, socket: Socket, headers: Continuity) -> None:
        self._request = request
        self._socket = socket
        self._began_s = time.monotonic()
        self._waiting: asyncio.Queue[Create | Problem] = asyncio.Queue()
        self._waiting_bytes = 0
        self._turns = SocketTurns(request, headers, self._tell)
        self._is_over = False

    async def run(self) -> None:
        """Read, work and ping until the connection ends."""
        ways = (self._work(), self._keep_alive())
        tasks = [asyncio.create_task(self._ending_it(way), name="socket") for way in ways]
        try:
            async for message in self._socket:
                await self._read(message.type, message.data)
        finally:
            self._is_over = True
            for task in tasks:
                task.cancel()
            await _ended(tasks)
        for task in tasks:
            if not task.cancelled():
                task.result()

    async def _ending_it(self, way: Coroutine[None, None, None]) -> None:
        """However that ends, the connection does not go on without it."""
        try:
            with contextlib.suppress(ConnectionError):  # there is nobody to tell
                await way
        finally:
            if not self._socket.closed and self._request.transport:
                self._request.transport.abort()

    async def _read(self, kind: WSMsgType, data: bytes) -> None:
        """Put what a frame asks for in the queue, in the order in which frames come."""
        if kind is WSMsgType.ERROR:
            return  # the connection is being closed for it
        try:
            asked = wire.decode(data) if kind is WSMsgType.TEXT else wire.not_text()
        except Problem as problem:
            asked = problem
        if isinstance(asked, Steer):
            await self._tell([wire.steer_failed(asked)])
            return
        size_bytes = _size_bytes(asked)
        has_room = self._waiting_bytes + size_bytes <= WAITING_BYTES_MAX and self._waiting.qsize() < WAITING_MAX
        if not has_room and not self._waiting.empty():
            lane = asked.lane if isinstance(asked, Create) else ""
            await self._tell([wire.error_event(wire.too_many_waiting(), lane)])
            return
        self._waiting_bytes += size_bytes
        self._waiting.put_nowait(asked)

    async def _work(self) -> None:
        """Take the turns that are asked for, until the connection has lasted long enough."""
        while not self._is_over:
            left_s = self._request.app[SOCKETS].connection_s - (time.monotonic() - self._began_s)
            try:
                async with asyncio.timeout(max(left_s, 0.0)):
                    asked = await self._next()
            except TimeoutError:
                await self._tell([wire.error_event(wire.limit_reached())])
                await self._socket.close(code=WSCloseCode.GOING_AWAY, message=b"connection limit reached")
                return
            # A task of its own, for a stop of the server waits for it.
            await asyncio.create_task(self._turns.take(asked), name="turn on a socket")

    async def _next(self) -> Create | Problem:
        await asyncio.sleep(0)  # where there is no time left, it strikes here, even if something waits
        asked = await self._waiting.get()
        self._waiting_bytes -= _size_bytes(asked)
        return asked

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(self._request.app[SETTINGS].keepalive_s)
            async with not_stalled():
                await self._socket.ping()

    async def _tell(self, frames: Sequence[bytes]) -> None:
        async with not_stalled():
            for frame in frames:
                await self._socket.send_frame(frame, WSMsgType.TEXT)


def _size_bytes(asked: Create | Problem) -> int:
    return len(asked.body) if isinstance(asked, Create) else 0


async def _ended(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Wait for tasks that were cancelled: what a turn records last is not left to itself."""
    left = set(tasks)
    while left:
        with contextlib.suppress(asyncio.CancelledError):  # the client is gone, which is why they end
            _, left = await asyncio.wait(left)
