"""The turns of one socket: each asked for, told and remembered as far as the next one needs it."""

import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial

import structlog
from aiohttp import web

from api.boundary import CLIENT_GONE, admit, log_failure, took_ms
from api.context import RESPONSES, TENANT, TURNS, with_model
from api.errors import problem_of
from api.problem import Problem
from api.routes.streaming import tell_turn
from api.settings import BODY_BYTES_MAX
from api.turns.open_turn import LiveTurn
from api.turns.request import TurnRequest
from api.turns.unstored import Kept, behind, left_by, warmed_up
from api.wire import no_input
from api.wire import socket as wire
from api.wire.decode import encode
from api.wire.frames import lines
from api.wire.headers import Continuity
from api.wire.response import response_object
from api.wire.response_stream import ResponseStream
from api.wire.socket import Create
from projections.turn import Turn

KEPT_BYTES_MAX = BODY_BYTES_MAX  # a longer chain could not be sent as a whole either

_log = structlog.get_logger()

# Sends frames, each an event as JSON. Raises `ConnectionError` where the client has gone.
Tell = Callable[[Sequence[bytes]], Awaitable[None]]


class SocketTurns:
    """Takes the turns of one connection. `headers` are those of its handshake, and hold for each."""

    def __init__(self, request: web.Request, headers: Continuity, tell: Tell) -> None:
        self._request = request
        self._headers = headers
        self._tell = tell
        self._lanes = {""}
        self._kept = Kept(KEPT_BYTES_MAX)

    async def take(self, asked: Create | Problem) -> None:
        """Take a turn, or tell what is wrong with it; raises `ConnectionError` where the client has gone."""
        began, status = time.perf_counter(), CLIENT_GONE
        lane = asked.lane if isinstance(asked, Create) else ""
        try:
            await self._turn(_sound(asked))
            status = 200
        except ConnectionError:
            raise
        except Exception as error:  # noqa: BLE001 (the outermost place of a turn: everything becomes an event here)
            problem = problem_of(error)
            status = problem.status
            log_failure(self._request, problem, error)
            if isinstance(asked, Create):
                self._kept.evict(lane, asked.previous_response_id)
            await self._tell([wire.error_event(problem, lane)])
        finally:
            told = {"tenant": self._request[TENANT], "path": self._request.path, "lane": lane}
            _log.info("turn", **told, status=status, took_ms=took_ms(began))

    async def _turn(self, asked: Create) -> None:
        turn, stores = await self._read(asked)
        done = await self._told(asked, turn, stores=stores)
        if done is None:
            self._kept.evict(asked.lane, asked.previous_response_id)
        elif stores:
            self._kept.forget(asked.lane)
        else:
            response = response_object(done)
            self._kept.keep(asked.lane, left_by(response.id, turn, done, tuple(map(encode, response.output))))

    def _enter(self, lane: str) -> None:
        if lane not in self._lanes and len(self._lanes) > wire.LANES_MAX:
            raise wire.too_many_lanes()
        self._lanes.add(lane)

    async def _read(self, asked: Create) -> tuple[TurnRequest, bool]:
        """The turn that is asked for, and whether it is to be stored; raises `Problem`, `Refusal`, `LogError`."""
        tenant = self._request[TENANT] = admit(self._request)  # the key may have been revoked since the last turn
        self._enter(asked.lane)
        body, turn = no_input.turn_of(asked.body, tenant, self._headers, needs_input=asked.generates)
        if kept := self._kept.find(asked.previous_response_id):
            turn = behind(kept, turn)
        self._request.app[RESPONSES].ensure_over(turn)
        stores = asked.generates and body.store is not False
        return await with_model(self._request, turn), stores

    def _opened(self, asked: Create, turn: TurnRequest, *, stores: bool) -> AbstractAsyncContextManager[LiveTurn]:
        turns = self._request.app[TURNS]
        if not asked.generates:
            return warmed_up(turns, turn)
        return turns.turn(turn) if stores else turns.unrecorded(turn)

    async def _told(self, asked: Create, turn: TurnRequest, *, stores: bool) -> Turn | None:
        opened = self._opened(asked, turn, stores=stores)
        framing = lines(stream_id=asked.lane) if asked.lane else lines()
        return await tell_turn(_Told(self._tell), opened, partial(ResponseStream, store=stores, framing=framing))


def _sound(asked: Create | Problem) -> Create:
    if isinstance(asked, Problem):
        raise asked
    return asked


class _Told:
    """One turn's way to its client."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self.has_begun = False

    async def send(self, frames: bytes) -> None:
        """Send lines of JSON, each as a frame."""
        if frames:
            self.has_begun = True
            await self._tell(frames.splitlines())
