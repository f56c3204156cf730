"""A model server over HTTP, whatever it speaks.

One connection pool, three time limits: to connect, to the first byte of an answer, and for the whole of it. Whatever
goes wrong comes out as a `ModelError` that says whose fault it is. `chat.py` and `responses.py` are the dialects.
"""

import asyncio
import contextlib
import io
import itertools
import random
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import aiohttp
import msgspec

from api.models.model import (
    ModelBroke,
    ModelGarbage,
    ModelInfo,
    ModelRefused,
    ModelTimeout,
    ModelUnreachable,
)
from api.models.refused import refusal
from api.models.retries import BUSY, Retries, seconds_in
from api.models.sse import EventReader, EventTooLong

CONNECTIONS_MAX = 1_000
ANSWER_BYTES_MAX = 64_000_000
PIECE_BYTES = 1_000_000
ERROR_BYTES_MAX = 64_000
# Shorter than the five seconds after which common model servers close an idle connection.
IDLE_S = 4.0


class Timeouts(msgspec.Struct, frozen=True):
    """How long to wait for a model server, in seconds."""

    connect_s: float = 10.0
    first_byte_s: float = 300.0
    total_s: float = 600.0


class _NotConnected(ModelUnreachable):
    """No connection could be made: nothing was sent."""


class _Listed(msgspec.Struct):
    id: str
    created: Any = 0
    owned_by: Any = ""


class _List(msgspec.Struct):
    data: list[_Listed] | None  # Ollama says null where it has none


_decode_list = msgspec.json.Decoder(_List).decode


class UpstreamServer:
    """The model server at a base URL such as `https://api.openai.com/v1`. Close it: it holds connections."""

    def __init__(self, base_url: str, key: str, timeouts: Timeouts, retries: Retries) -> None:
        self._base_url = base_url.rstrip("/")
        self._timeouts = timeouts
        self._retries = retries
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX, keepalive_timeout=IDLE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeouts.connect_s, connect=timeouts.connect_s),
            headers={"authorization": f"Bearer {key}"} if key else {},
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Hang up."""
        await self._client.close()

    async def models(self) -> list[ModelInfo]:
        """See `Model.models`."""
        async with self.ask("GET", "/models") as pieces:
            body = await whole(pieces)
        try:
            listed = _decode_list(body).data or []
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ModelGarbage(f"the model server's list of models can not be read: {error}") from error
        return [_info(entry) for entry in listed]

    @contextlib.asynccontextmanager
    async def ask(
        self, method: str, path: str, body: bytes | None = None
    ) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """Send a request; the body of its answer, in pieces. Anything but a 200 is a `ModelRefused`."""
        give_up = asyncio.get_running_loop().time() + self._timeouts.total_s
        async with (
            await self._answered(method, path, body) as response,
            contextlib.aclosing(self._pieces(response, give_up)) as pieces,
        ):
            if response.status != 200:
                raise await _refused(response, pieces)
            yield pieces

    async def _answered(self, method: str, path: str, body: bytes | None) -> aiohttp.ClientResponse:
        """The beginning of an answer; the request is sent again where nothing can have come of it (`retries.py`)."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + min(self._timeouts.first_byte_s, self._timeouts.total_s)
        for tried in itertools.count():
            try:
                response = await self._first_byte(method, path, body, give_up)
            except _NotConnected:
                pause_s = self._retries.pause_before(tried, random.random())  # noqa: S311 (no secret)
                if pause_s is None or loop.time() + pause_s > give_up:
                    raise
            else:
                pause_s = self._pause_asked(response, tried) if response.status in BUSY else None
                if pause_s is None or loop.time() + pause_s > give_up:
                    return response
                response.close()
            await asyncio.sleep(pause_s)
        raise AssertionError  # counting does not end

    def _pause_asked(self, response: aiohttp.ClientResponse, tried: int) -> float | None:
        """How long a busy model server asks to be left alone; None where it does not, or not to be asked again."""
        asked_s = seconds_in(response.headers.get("retry-after", ""))
        if asked_s is None or response.headers.get("x-should-retry") == "false":
            return None
        return self._retries.pause_before(tried, random.random(), asked_s)  # noqa: S311 (no secret)

    async def _first_byte(self, method: str, path: str, body: bytes | None, give_up: float) -> aiohttp.ClientResponse:
        headers = {"content-type": "application/json"} if body else {}
        limits = self._timeouts
        try:
            async with asyncio.timeout_at(give_up):
                return await self._client.request(method, self._base_url + path, data=_payload(body), headers=headers)
        except aiohttp.ServerTimeoutError:
            raise ModelTimeout(f"no connection to the model server within {limits.connect_s:g} s") from None
        except TimeoutError:
            wait_s = min(limits.first_byte_s, limits.total_s)
            raise ModelTimeout(f"the model server did not begin to answer in {wait_s:g} s") from None
        except aiohttp.ClientConnectorError as error:
            reason = error.strerror or str(error)
            raise _NotConnected(f"the model server at {self._base_url} can not be reached: {reason}") from error
        except aiohttp.ClientResponseError as error:
            raise ModelGarbage(f"the model server at {self._base_url} does not speak HTTP: {error.message}") from error
        except aiohttp.ClientError as error:
            reason = str(error) or type(error).__name__
            raise ModelUnreachable(f"the model server at {self._base_url} hung up: {reason}") from error

    async def _pieces(self, response: aiohttp.ClientResponse, give_up: float) -> AsyncGenerator[bytes, None]:
        # The limit holds around each read and not around the loop: a consumer that is slow must not be cancelled.
        while True:
            try:
                async with asyncio.timeout_at(give_up):
                    piece = await response.content.readany()
            except TimeoutError:
                raise ModelTimeout(f"the model server took more than {self._timeouts.total_s:g} s") from None
            except (aiohttp.ClientPayloadError, aiohttp.ClientConnectionError) as error:
                raise ModelBroke(f"the model server broke off its answer: {error}") from error
            if not piece:
                return
            yield piece


async def whole(pieces: AsyncIterator[bytes]) -> bytes:
    """A body that is not streamed; raises `ModelGarbage` where it does not end."""
    body = bytearray()
    async for piece in pieces:
        body += piece
        if len(body) > ANSWER_BYTES_MAX:
            raise ModelGarbage(f"the model server's answer is longer than {ANSWER_BYTES_MAX} bytes")
    return bytes(body)


def events_in(events: EventReader, piece: bytes) -> list[bytes]:
    """The data of the events that a piece of a stream completes; raises `ModelGarbage`."""
    try:
        return list(events.feed(piece))
    except EventTooLong as error:
        raise ModelGarbage(f"the model server's stream can not be read: {error}") from error


def _payload(body: bytes | None) -> io.BytesIO | bytes | None:
    """A large body as a file: aiohttp sends that in pieces, where bytes would hold up everybody else."""
    return io.BytesIO(body) if body and len(body) > PIECE_BYTES else body


def _info(listed: _Listed) -> ModelInfo:
    """An entry as the SDKs have it, whatever the model server leaves out."""
    created = listed.created if isinstance(listed.created, int) else 0
    return ModelInfo(listed.id, created, listed.owned_by if isinstance(listed.owned_by, str) else "")


async def _refused(response: aiohttp.ClientResponse, pieces: AsyncIterator[bytes]) -> ModelRefused:
    body = (await whole(pieces))[:ERROR_BYTES_MAX]
    try:
        told = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        told = body.decode(errors="replace")
    if isinstance(told, dict):
        told = told.get("error") or told
    return refusal(response.status, told, response.headers.get("retry-after", ""))
