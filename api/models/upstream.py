"""A model server that speaks OpenAI's `/v1/chat/completions`.

One connection pool, three time limits: to connect, to the first byte of an answer, and for the whole of it. Whatever
goes wrong comes out as a `ModelError` that says whose fault it is.
"""

import asyncio
import contextlib
import io
import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import aiohttp
import msgspec

from api.models.model import (
    NULL,
    Answer,
    Chunk,
    ModelBroke,
    ModelGarbage,
    ModelInfo,
    ModelRefused,
    ModelTimeout,
    ModelUnreachable,
    Prompt,
)
from api.models.sse import EventReader, EventTooLong

CONNECTIONS_MAX = 1_000
ANSWER_BYTES_MAX = 64_000_000
PIECE_BYTES = 1_000_000
ERROR_BYTES_MAX = 64_000
ERROR_CHARACTERS_MAX = 2_000
# Shorter than the five seconds after which common model servers close an idle connection.
IDLE_S = 4.0


class Timeouts(msgspec.Struct, frozen=True):
    """How long to wait for a model server, in seconds."""

    connect_s: float = 10.0
    first_byte_s: float = 300.0
    total_s: float = 600.0


class _Choice(msgspec.Struct):
    message: msgspec.Raw
    index: int = 0
    finish_reason: str | None = None
    logprobs: msgspec.Raw = NULL


class _Completion(msgspec.Struct):
    choices: list[_Choice] = []
    error: Any = None
    usage: msgspec.Raw = NULL
    model: str = ""
    system_fingerprint: str | None = None
    service_tier: str | None = None
    moderation: msgspec.Raw = NULL


class _StreamedChunk(Chunk):
    error: Any = None


class _Models(msgspec.Struct):
    data: list[ModelInfo]


_decode_completion = msgspec.json.Decoder(_Completion, strict=False).decode
_decode_chunk = msgspec.json.Decoder(_StreamedChunk, strict=False).decode
_decode_models = msgspec.json.Decoder(_Models, strict=False).decode
_encode = msgspec.json.Encoder().encode
_CODE = re.compile(r"[\w.:/-]{1,64}", re.ASCII)  # what a model server calls an error is told in headers and logs too


class UpstreamModel:
    """The model server at a base URL such as `https://api.openai.com/v1`. Use it as a context: it holds connections."""

    def __init__(self, base_url: str, key: str, timeouts: Timeouts) -> None:
        self._base_url = base_url.rstrip("/")
        self._timeouts = timeouts
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=CONNECTIONS_MAX, keepalive_timeout=IDLE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeouts.connect_s, connect=timeouts.connect_s),
            headers={"authorization": f"Bearer {key}"} if key else {},
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """Hang up."""
        await self._client.close()

    async def complete(self, prompt: Prompt) -> Answer:
        """See `Model.complete`."""
        async with self._ask("POST", "/chat/completions", _body(prompt)) as pieces:
            body = await _whole(pieces)
        try:
            body.decode()  # the message is kept as it is, and must be text
            return _answer(_decode_completion(body))
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise ModelGarbage(f"the model server's answer is not a chat completion: {error}") from error

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Chunk, None]:
        """See `Model.stream`."""
        body = _body(prompt, stream=True, stream_options={"include_usage": True})
        async with self._ask("POST", "/chat/completions", body) as pieces:
            events = EventReader()
            has_begun, is_empty = False, True
            async for piece in pieces:
                is_empty = False
                for data in _events(events, piece):
                    if data == b"[DONE]":
                        return
                    yield _chunk(data)
                    has_begun = True
            if not (has_begun or is_empty):
                raise ModelGarbage("the model server was asked for a stream and sent something else")

    async def models(self) -> list[ModelInfo]:
        """See `Model.models`."""
        async with self._ask("GET", "/models") as pieces:
            body = await _whole(pieces)
        try:
            return _decode_models(body).data
        except msgspec.DecodeError as error:
            raise ModelGarbage(f"the model server's list of models can not be read: {error}") from error

    @contextlib.asynccontextmanager
    async def _ask(
        self, method: str, path: str, body: bytes | None = None
    ) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """Send a request; the body of its answer, in pieces. Anything but a 200 is a `ModelRefused`."""
        give_up = asyncio.get_running_loop().time() + self._timeouts.total_s
        async with (
            await self._first_byte(method, path, body) as response,
            contextlib.aclosing(self._pieces(response, give_up)) as pieces,
        ):
            if response.status != 200:
                raise await _refusal(response, pieces)
            yield pieces

    async def _first_byte(self, method: str, path: str, body: bytes | None) -> aiohttp.ClientResponse:
        headers = {"content-type": "application/json"} if body else {}
        limits = self._timeouts
        wait_s = min(limits.first_byte_s, limits.total_s)
        try:
            async with asyncio.timeout(wait_s):
                return await self._client.request(method, self._base_url + path, data=_payload(body), headers=headers)
        except aiohttp.ServerTimeoutError:
            raise ModelTimeout(f"no connection to the model server within {limits.connect_s:g} s") from None
        except TimeoutError:
            raise ModelTimeout(f"the model server did not begin to answer in {wait_s:g} s") from None
        except aiohttp.ClientConnectorError as error:
            reason = error.strerror or str(error)
            raise ModelUnreachable(f"the model server at {self._base_url} can not be reached: {reason}") from error
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


def _payload(body: bytes | None) -> io.BytesIO | bytes | None:
    """A large body as a file: aiohttp sends that in pieces, where bytes would hold up everybody else."""
    return io.BytesIO(body) if body and len(body) > PIECE_BYTES else body


def _body(prompt: Prompt, **fields: object) -> bytes:
    messages = [msgspec.Raw(message) for message in prompt.messages]
    return _encode({"model": prompt.model, "messages": messages, **prompt.parameters, **fields})


def _answer(completion: _Completion) -> Answer:
    if completion.error:
        raise _told(502, completion.error)
    if not completion.choices:
        raise ValueError("it has no choices")
    if not all(bytes(choice.message).lstrip().startswith(b"{") for choice in completion.choices):
        raise ValueError("a choice's message is not an object")
    first, *others = sorted(completion.choices, key=lambda choice: choice.index)
    extra = {
        "logprobs": first.logprobs,
        "system_fingerprint": completion.system_fingerprint,
        "service_tier": completion.service_tier,
        "moderation": completion.moderation,
        "choices": [{"finish_reason": o.finish_reason or "stop", "logprobs": o.logprobs} for o in others] or None,
    }
    said = {name: value for name, value in extra.items() if value not in (None, NULL)}
    return Answer(
        message=bytes(first.message),
        finish_reason=first.finish_reason or "stop",
        usage=b"" if completion.usage == NULL else bytes(completion.usage),
        model=completion.model,
        alternatives=tuple(bytes(choice.message) for choice in others),
        extra=_encode(said) if said else b"",
    )


def _events(events: EventReader, piece: bytes) -> list[bytes]:
    try:
        return list(events.feed(piece))
    except EventTooLong as error:
        raise ModelGarbage(f"the model server's stream can not be read: {error}") from error


def _chunk(data: bytes) -> Chunk:
    try:
        chunk = _decode_chunk(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelGarbage(f"the model server's stream holds what is not a chat chunk: {error}") from error
    if chunk.error:
        raise _told(502, chunk.error)
    if not all(_is_delta(choice.delta) for choice in chunk.choices):
        raise ModelGarbage("the model server's stream holds a delta that can not be added to a message")
    return chunk


def _is_delta(delta: dict[str, Any]) -> bool:
    """Whether what we add up is of a kind that can be; what we only keep may be anything."""
    calls = delta.get("tool_calls") or []
    return (
        isinstance(delta.get("content") or "", str | list)
        and isinstance(calls, list)
        and all(isinstance(call, dict) and isinstance(call.get("function") or {}, dict) for call in calls)
    )


async def _whole(pieces: AsyncIterator[bytes]) -> bytes:
    body = bytearray()
    async for piece in pieces:
        body += piece
        if len(body) > ANSWER_BYTES_MAX:
            raise ModelGarbage(f"the model server's answer is longer than {ANSWER_BYTES_MAX} bytes")
    return bytes(body)


async def _refusal(response: aiohttp.ClientResponse, pieces: AsyncIterator[bytes]) -> ModelRefused:
    body = (await _whole(pieces))[:ERROR_BYTES_MAX]
    try:
        told = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        told = body.decode(errors="replace")
    if isinstance(told, dict):
        told = told.get("error") or told
    return _told(response.status, told, response.headers.get("retry-after", ""))


def _told(status: int, told: object, retry_after: str = "") -> ModelRefused:
    """A refusal from whatever a model server says: OpenAI's envelope, another object, or plain text."""
    error = told if isinstance(told, dict) else {"message": told}
    message = str(error.get("message") or error.get("detail") or told or "no reason given")
    code, param = error.get("code"), error.get("param")
    return ModelRefused(
        status,
        message[:ERROR_CHARACTERS_MAX],
        code=code if isinstance(code, str) and _CODE.fullmatch(code) else None,
        param=param if isinstance(param, str) else None,
        retry_after=retry_after,
    )
