"""A model server for tests: a real aiohttp server that speaks chat completions, scripted, and keeps what it was sent.
`responses_upstream.py` has one that speaks the Responses API.

No patching anywhere: turnlog's own client talks to it over HTTP. Nothing here sleeps; where a test needs an answer to
wait, it holds the `gate`.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

import msgspec
from aiohttp import web

Message = dict[str, Any]
U = TypeVar("U", bound="Upstream")
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


class Reply(msgspec.Struct, kw_only=True):
    """What the model server answers to one request.

    `message` is the assistant's; streamed, its text goes out in `pieces` (default: word by word). A `status` other than
    200 answers `body` as it is. `raw` replaces the whole body or stream. `break_after` hangs up after so many pieces.
    """

    message: Message = msgspec.field(default_factory=lambda: {"role": "assistant", "content": "ok"})
    finish_reason: str = "stop"
    usage: dict[str, Any] | None = msgspec.field(default_factory=lambda: dict(USAGE))
    pieces: Sequence[Message] | None = None
    status: int = 200
    body: Any = None
    headers: dict[str, str] = {}
    raw: bytes | None = None
    break_after: int | None = None
    extra: dict[str, Any] = {}


Script = Callable[[dict[str, Any]], Reply]


def says(text: str, **more: Any) -> Reply:
    """An answer in plain text."""
    return Reply(message={"role": "assistant", "content": text}, **more)


def calls(name: str, arguments: str, call_id: str = "call_1") -> Reply:
    """An answer that is a tool call."""
    call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
    return Reply(message={"role": "assistant", "content": None, "tool_calls": [call]}, finish_reason="tool_calls")


def refuses(status: int, message: str = "no", **error: Any) -> Reply:
    """An answer that is an error, in OpenAI's envelope."""
    return Reply(status=status, body={"error": {"message": message, "type": "x", "param": None, "code": None} | error})


def echo(body: dict[str, Any]) -> Reply:
    """Says how many messages it was sent and what the last one was."""
    last = body["messages"][-1]["content"]
    return says(f"{len(body['messages'])}: {last}")


class Upstream:
    """The scripted server. `requests` are the bodies it was sent, decoded, and `bodies` their bytes, in order; `url` is
    its base URL.

    `listed` are the models it lists; `lists` counts how often it did.
    """

    path = "/v1/chat/completions"

    def __init__(self) -> None:
        self.script: Script = echo
        self.requests: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.url = ""
        self.gate = asyncio.Event()
        self.gate.set()
        self.arrived = asyncio.Condition()
        self.stream_gate_after: int | None = None  # hold a stream at the gate after so many pieces
        self.pieces_sent = 0
        self.listed: list[dict[str, Any]] = [{"id": "m1", "object": "model", "created": 5, "owned_by": "me"}]
        self.lists = 0

    @property
    def messages(self) -> list[list[Message]]:
        """The messages of each request."""
        return [self.messages_in(request) for request in self.requests]

    def messages_in(self, body: dict[str, Any]) -> list[Message]:
        """The messages of a request."""
        messages: list[Message] = body["messages"]
        return messages

    async def wait_for_requests(self, count: int) -> None:
        """Return once `count` requests have come."""
        async with self.arrived:
            await self.arrived.wait_for(lambda: len(self.requests) >= count)

    async def wait_for_lists(self, count: int) -> None:
        """Return once its models were asked for `count` times."""
        async with self.arrived:
            await self.arrived.wait_for(lambda: self.lists >= count)

    async def wait_for_pieces(self, count: int) -> None:
        """Return once `count` streamed pieces have gone out."""
        async with self.arrived:
            await self.arrived.wait_for(lambda: self.pieces_sent >= count)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        body = msgspec.json.decode(raw)
        self.headers.append(dict(request.headers))
        async with self.arrived:
            self.requests.append(body)
            self.bodies.append(raw)
            self.arrived.notify_all()
        reply = self.script(body | {"messages": self.messages_in(body)})
        if self.stream_gate_after is None:
            await self.gate.wait()
        if reply.status != 200:
            return web.json_response(reply.body, status=reply.status, headers=reply.headers)
        if body.get("stream"):
            return await self._stream(request, body, reply)
        if reply.raw is not None:
            return web.Response(body=reply.raw, content_type="application/json")
        return web.json_response(self.answer_of(body, reply) | reply.extra)

    async def models(self, _request: web.Request) -> web.Response:
        async with self.arrived:
            self.lists += 1
            self.arrived.notify_all()
        await self.gate.wait()
        return web.json_response({"object": "list", "data": self.listed})

    def answer_of(self, body: dict[str, Any], reply: Reply) -> dict[str, Any]:
        """A whole answer."""
        choice = {"index": 0, "message": reply.message, "finish_reason": reply.finish_reason, "logprobs": None}
        answer = {"id": "up-1", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice]}
        return answer | ({"usage": reply.usage} if reply.usage else {})

    def frames_of(self, body: dict[str, Any], reply: Reply) -> tuple[list[bytes], bytes]:
        """The pieces of a streamed answer, and what follows them."""
        pieces = [_frame(body, {"index": 0, "delta": delta, "finish_reason": None}) for delta in _pieces(reply)]
        ending = _frame(body, {"index": 0, "delta": {}, "finish_reason": reply.finish_reason})
        if reply.usage:
            ending += _frame(body, None, usage=reply.usage)
        return pieces, ending + b"data: [DONE]\n\n"

    async def _stream(self, request: web.Request, body: dict[str, Any], reply: Reply) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        if reply.raw is not None:
            await response.write(reply.raw)
            return response
        pieces, ending = self.frames_of(body, reply)
        for number, piece in enumerate(pieces):
            if number == self.stream_gate_after:
                await self.gate.wait()
            if number == reply.break_after:
                assert request.transport is not None
                request.transport.abort()
                return response
            await response.write(piece)
            async with self.arrived:
                self.pieces_sent += 1
                self.arrived.notify_all()
        await response.write(ending)
        return response


def _pieces(reply: Reply) -> Sequence[Message]:
    if reply.pieces is not None:
        return reply.pieces
    pieces: list[Message] = [{"role": "assistant", "content": ""}]
    if text := reply.message.get("content"):
        words = text.split(" ")
        pieces += [{"content": word if number == 0 else f" {word}"} for number, word in enumerate(words)]
    for index, call in enumerate(reply.message.get("tool_calls") or ()):
        function = call["function"]
        pieces.append(
            {"tool_calls": [{"index": index, **call, "function": {"name": function["name"], "arguments": ""}}]}
        )
        half = len(function["arguments"]) // 2
        for part in (function["arguments"][:half], function["arguments"][half:]):
            pieces.append({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
    return pieces


def _frame(body: dict[str, Any], choice: dict[str, Any] | None, **more: Any) -> bytes:
    chunk = {"id": "up-1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
    return b"data: " + msgspec.json.encode(chunk | {"choices": [choice] if choice else []} | more) + b"\n\n"


@contextlib.asynccontextmanager
async def running(upstream: U) -> AsyncIterator[U]:
    """The scripted server, running."""
    app = web.Application(client_max_size=100_000_000)
    app.router.add_post(upstream.path, upstream.chat)
    app.router.add_get("/v1/models", upstream.models)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    upstream.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield upstream
    finally:
        upstream.gate.set()
        await runner.cleanup()


def scripted_upstream() -> AbstractAsyncContextManager[Upstream]:
    """A running scripted server."""
    return running(Upstream())
