"""A model server that fails in every way there is: what the client is told, what is recorded, what the next turn knows.

The scripted model server plays what is still HTTP, `Canned` what is not. Most rows go to one server, one after the
other: that it still serves after each is part of what is tested. What is no matter of words is tested with a model
server of either dialect; `test_responses_upstream.py` has what only the Responses dialect can say amiss.
"""

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import msgspec
import openai
import pytest
import pytest_asyncio
from openai.types.responses import ResponseFailedEvent

from api.models.router import Dialect
from api.models.upstream import Timeouts
from eventstore.sqlite import SqliteLog
from tests.support.responses_upstream import ResponsesUpstream
from tests.support.server import Server, serving
from tests.support.upstream import Message, Reply, Upstream, echo, refuses, running, says

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
SESSION_ID = "X-Hermes-Session-Id"
POLLS_MAX = 500
POLL_S = 0.01
MOON = "because of the moon"

encode = msgspec.json.encode
both_apis = pytest.mark.parametrize("path", [CHAT, RESPONSES], ids=["chat", "responses"])
streamed_or_not = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
on_shared = pytest.mark.asyncio(loop_scope="module")
_numbers = itertools.count()


class Canned:
    """A model server that sends `bad` as it is, and hangs up; without it, it answers well, once a connection.

    While `holds`, it does not hang up. `messages` are those of each request.
    """

    def __init__(self) -> None:
        self.bad: bytes | None = None
        self.holds = asyncio.Event()
        self.messages: list[list[Message]] = []
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length: ")[2].partition(b"\r\n")[0]
        if length:
            body = msgspec.json.decode(await reader.readexactly(int(length)))
            self.messages.append(SERVERS["chat" if "messages" in body else "responses"]().messages_in(body))
        fine = RESPONSE if head.startswith(b"post /v1/responses") else whole(content="fine")
        writer.write(http(fine) if self.bad is None else self.bad)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            if self.holds.is_set():
                await reader.read()
        writer.close()


@contextlib.asynccontextmanager
async def canned_upstream() -> AsyncIterator[Canned]:
    """A running one."""
    canned = Canned()
    server = await asyncio.start_server(canned.serve, "127.0.0.1", 0)
    canned.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield canned
    finally:
        server.close()
        await server.wait_closed()


ModelServer: TypeAlias = Upstream | Canned


def mend(model: ModelServer) -> None:
    """Have the model server answer well from now on."""
    if isinstance(model, Canned):
        model.bad = None
        model.holds.clear()
    else:
        model.script = echo
        model.stream_gate_after = None
        model.gate.set()


def http(body: bytes, status: str = "200 OK", kind: str = "application/json", length: int | None = None) -> bytes:
    """An HTTP answer; `length` is what it says of its own body."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nconnection: close\r\ncontent-length: {length or len(body)}"
    return head.encode() + b"\r\n\r\n" + body


def whole(**message: Any) -> bytes:
    """A chat completion."""
    return encode({"model": "m", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})


def chunk(delta: Any, finish_reason: str | None = None) -> bytes:
    """A streamed chunk."""
    return sse({"model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]})


def sse(payload: Any) -> bytes:
    """A server-sent event."""
    return b"data: " + (payload if isinstance(payload, bytes) else encode(payload)) + b"\n\n"


SERVERS: dict[Dialect, type[Upstream]] = {"chat": Upstream, "responses": ResponsesUpstream}
RESPONSE = encode({"output": [{"type": "message", "content": [{"type": "output_text", "text": "fine"}]}]})
HI = chunk({"role": "assistant", "content": "hi"})
END = chunk({}, "stop") + sse(b"[DONE]")


class Outcome(NamedTuple):
    """What a client got of an answer."""

    status: int
    headers: dict[str, str]
    body: str

    @property
    def error(self) -> dict[str, Any]:
        """The error of a plain answer, checked to be in OpenAI's envelope."""
        assert self.headers["content-type"].startswith("application/json"), self.body
        assert self.headers["x-request-id"].startswith("req_")
        answer: dict[str, dict[str, Any]] = msgspec.json.decode(self.body)
        assert list(answer) == ["error"]
        assert set(answer["error"]) == {"message", "type", "param", "code"}
        return answer["error"]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The payloads of a stream that ends as it should, `[DONE]` left out."""
        assert self.status == 200, self.body
        assert self.headers["content-type"].startswith("text/event-stream")
        *frames, done, rest = self.body.split("\n\n")
        assert (done, rest) == ("data: [DONE]", ""), self.body
        return [decode(frame.split("\n")[-1].removeprefix("data: ")) for frame in frames if not frame.startswith(":")]

    def failure(self, path: str) -> dict[str, Any]:
        """The error at a stream's end, checked to be told in the way of its API."""
        *before, last = self.events
        if path == CHAT:
            assert not any("error" in event for event in before)
            assert set(last["error"]) == {"message", "type", "param", "code"}
            return dict(last["error"])
        assert [event["sequence_number"] for event in self.events] == list(range(len(self.events)))
        assert before[0]["type"] == "response.created"
        assert "response.failed" not in [event["type"] for event in before]
        assert last["type"] == "response.failed"
        assert last["response"]["status"] == "failed"
        error = last["response"]["error"]
        if error["code"] != "server_error":
            return dict(error)
        message, _, ours = error["message"].rpartition(" (")
        return {"code": ours.removesuffix(")"), "message": message}


def decode(text: str) -> dict[str, Any]:
    """A JSON object."""
    decoded: dict[str, Any] = msgspec.json.decode(text)
    return decoded


def asks(path: str, text: str, **more: Any) -> dict[str, Any]:
    """A body that asks something."""
    said = {"messages": [{"role": "user", "content": text}]} if path == CHAT else {"input": text}
    return {"model": "m"} | said | more


class Talk:
    """A session in which the turn "zero" went well, and "one" will not."""

    def __init__(self, server: Server, session_id: str) -> None:
        self.server = server
        self.session_id = session_id

    @property
    def headers(self) -> dict[str, str]:
        """The header that names the session."""
        return {SESSION_ID: self.session_id}

    async def one(self, path: str, *, stream: bool, **more: Any) -> Outcome:
        """The turn "one"."""
        body = asks(path, "one", stream=stream, **more)
        async with self.server.http.post(path, json=body, headers=self.headers) as answer:
            headers = {name.lower(): value for name, value in answer.headers.items()}
            return Outcome(answer.status, headers, await answer.text())

    async def shown(self) -> list[tuple[str, str]]:
        """The session's messages, each with the status of its turn."""
        return [(entry["content"], entry["status"]) for entry in await self.server.messages(self.session_id)]

    async def check_forgotten(self, model: ModelServer, said: Sequence[str] = (), status: str = "failed") -> None:
        """The turn "one" is shown with its status and what was said in it; the model is sent nothing of it in "two"."""
        shown = await self.shown()
        assert shown[0] == ("zero", "completed")
        assert shown[2:] == [(text, status) for text in ("one", *said)]
        answer, session_id = await self.server.chat("two", self.session_id)
        assert session_id == self.session_id
        assert answer["choices"][0]["message"]["content"]
        assert [message["content"] for message in model.messages[-1]] == ["zero", shown[1][0], "two"]


@contextlib.asynccontextmanager
async def talk(
    server: Server, model: ModelServer, said: Sequence[str] = (), status: str = "failed"
) -> AsyncIterator[Talk]:
    """A session to have a turn fail in; then the model server is mended, and the next turn knows nothing of it."""
    talk = Talk(server, f"session-{next(_numbers)}")
    await server.chat("zero", talk.session_id)
    try:
        yield talk
    finally:
        mend(model)
    await talk.check_forgotten(model, said, status)


class Shared(NamedTuple):
    """A server for many tests, and the model server behind it."""

    server: Server
    upstream: Upstream


@contextlib.asynccontextmanager
async def sharing(data: Path, dialect: Dialect) -> AsyncIterator[Shared]:
    """One of them."""
    async with (
        running(SERVERS[dialect]()) as upstream,
        serving(data, upstream=upstream.url, upstream_api=dialect) as server,
    ):
        yield Shared(server, upstream)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shared]:
    """A server that outlives all the faults of this module, before one that speaks the chat dialect."""
    async with sharing(tmp_path_factory.mktemp("shared") / "data", "chat") as shared:
        yield shared


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["chat", "responses"], ids="to-{}".format)
async def either(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> AsyncIterator[Shared]:
    """The same, before one of either dialect."""
    async with sharing(tmp_path_factory.mktemp("either") / "data", request.param) as shared:
        yield shared


@pytest.fixture(params=["chat", "responses"], ids="to-{}".format)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    """What the model server speaks."""
    dialect: Dialect = request.param
    return dialect


@pytest_asyncio.fixture
async def model(dialect: Dialect) -> AsyncIterator[Upstream]:
    """A scripted model server that speaks it."""
    async with running(SERVERS[dialect]()) as upstream:
        yield upstream


# Refused by the model server


class Refusal(NamedTuple):
    """An answer that is an error, and what becomes of it."""

    reply: Reply
    status: int
    code: str
    message: str
    param: str | None = None
    retry_after: str | None = None


def refusal(status: int, headers: dict[str, str] | None = None, **error: Any) -> Reply:
    """An error of the model server."""
    return msgspec.structs.replace(refuses(status, MOON, **error), headers=headers or {})


SOON = {"retry-after": "7"}
TOO_LONG = "context_length_exceeded"
OUR_KEY = "refused turnlog's own key"
REFUSALS = {
    "400": Refusal(refusal(400), 400, "upstream_refused", MOON),
    "400 with a code": Refusal(refusal(400, code=TOO_LONG, param="messages"), 400, TOO_LONG, MOON, "messages"),
    "400 in plain text": Refusal(Reply(status=400, body=MOON), 400, "upstream_refused", MOON),
    "400 with a list": Refusal(Reply(status=400, body=[MOON]), 400, "upstream_refused", MOON),
    "404 unknown model": Refusal(refusal(404, code="model_not_found"), 404, "model_not_found", MOON, "model"),
    "422 with a detail": Refusal(Reply(status=422, body={"detail": MOON}), 422, "upstream_refused", MOON),
    "401": Refusal(refusal(401, code="invalid_api_key"), 502, "upstream_auth", OUR_KEY),
    "403": Refusal(refusal(403), 502, "upstream_auth", OUR_KEY),
    "429": Refusal(refusal(429), 429, "rate_limit_exceeded", MOON),
    "429 with retry-after": Refusal(refusal(429, SOON, code="slow_down"), 429, "slow_down", MOON, retry_after="7"),
    "500": Refusal(refusal(500, code="oops"), 502, "upstream_error", f"(500): {MOON}"),
    "500 with nothing": Refusal(Reply(status=500, body={}), 502, "upstream_error", "no reason given"),
    "503": Refusal(refusal(503, SOON), 502, "upstream_error", f"(503): {MOON}"),
    "204": Refusal(Reply(status=204), 502, "upstream_error", "(204)"),
}


@both_apis
@streamed_or_not
@pytest.mark.parametrize("expected", REFUSALS.values(), ids=REFUSALS.keys())
@on_shared
async def test_what_the_model_server_refuses_is_a_plain_error(
    either: Shared, path: str, stream: bool, expected: Refusal
) -> None:
    async with talk(*either) as session:
        either.upstream.script = lambda _: expected.reply
        outcome = await session.one(path, stream=stream)
        error = outcome.error
        assert (outcome.status, error["code"], error["param"]) == (expected.status, expected.code, expected.param)
        assert expected.message in error["message"]
        assert outcome.headers.get("retry-after") == expected.retry_after


@both_apis
@streamed_or_not
async def test_an_error_page_is_no_message(data: Path, dialect: Dialect, path: str, stream: bool) -> None:
    async with (
        canned_upstream() as canned,
        serving(data, upstream=canned.url, upstream_api=dialect) as server,
        talk(server, canned) as session,
    ):
        page = b"<html><head><title>502 Bad Gateway</title></head><body><h1>nginx</h1>%b</body></html>" % (
            b" " * 100_000
        )
        canned.bad = http(page, "502 Bad Gateway", "text/html")
        outcome = await session.one(path, stream=stream)
        assert (outcome.status, outcome.error["code"]) == (502, "upstream_error")
        assert "(502)" in outcome.error["message"]
        assert len(outcome.error["message"]) < 2_500


# Answers that are none

WHOLE = {
    "not JSON": b"{{{",
    "nothing": b"",
    "a page": b"<html>hello</html>",
    "a list": b"[]",
    "null": b"null",
    "no choices": b"{}",
    "empty choices": b'{"choices": []}',
    "null choices": b'{"choices": null}',
    "a choice without a message": b'{"choices": [{"index": 0}]}',
    "a message that is null": b'{"choices": [{"message": null}]}',
    "a message that is a number": b'{"choices": [{"message": 5}]}',
    "a message that is a text": b'{"choices": [{"message": "hi"}]}',
    "content that is not UTF-8": b'{"choices": [{"message": {"role": "assistant", "content": "\xff"}}]}',
    "brackets a hundred thousand deep": b'{"choices": [{"message": %b}]}' % (b"[" * 100_000 + b"]" * 100_000),
}


@both_apis
@pytest.mark.parametrize("body", WHOLE.values(), ids=WHOLE.keys())
@on_shared
async def test_an_answer_that_is_none_is_502(shared: Shared, path: str, body: bytes) -> None:
    async with talk(*shared) as session:
        shared.upstream.script = lambda _: Reply(raw=body)
        outcome = await session.one(path, stream=False)
        assert (outcome.status, outcome.error["code"]) == (502, "upstream_garbage")


@both_apis
@on_shared
async def test_an_error_in_an_answer_that_says_200_is_told(either: Shared, path: str) -> None:
    async with talk(*either) as session:
        either.upstream.script = lambda _: Reply(raw=encode({"error": {"message": MOON, "code": "bad"}}))
        outcome = await session.one(path, stream=False)
        assert outcome.status == 502
        assert MOON in outcome.error["message"]


@pytest.mark.parametrize(
    "usage",
    [
        "many",
        [1],
        {"prompt_tokens": "many"},
        {"prompt_tokens": 1.5},
        {"prompt_tokens": -1},
        {"prompt_tokens": 1, "prompt_tokens_details": 5},
        pytest.param({"prompt_tokens": 2**63}),
    ],
    ids=str,
)
async def test_a_usage_that_can_not_be_counted_harms_nothing(server: Server, upstream: Upstream, usage: Any) -> None:
    upstream.script = lambda _: Reply(usage=usage)
    for path, stream in itertools.product((CHAT, RESPONSES), (False, True)):
        outcome = await Talk(server, "s1").one(path, stream=stream)
        assert outcome.status == 200
        assert "upstream_" not in outcome.body
        assert not stream or outcome.events
    assert len((await server.get("/api/sessions"))["data"]) == 1


# Streams that break before their first chunk


class Garbage(NamedTuple):
    """What a stream holds, and what becomes of it."""

    raw: bytes
    code: str = "upstream_garbage"
    message: str = ""


EARLY = {
    "not JSON": Garbage(sse(b"{{{") + HI + END),
    "a list": Garbage(sse(b"[]") + HI + END),
    "choices that are a text": Garbage(sse({"choices": "x"}) + HI + END),
    "a delta that is null": Garbage(chunk(None) + HI + END),
    "an error": Garbage(sse({"error": {"message": MOON, "code": "bad"}}), "upstream_error", MOON),
    "an error that is a text": Garbage(sse({"error": MOON}), "upstream_error", MOON),
    "nothing": Garbage(b"", "upstream_broke_off"),
    "its end alone": Garbage(sse(b"[DONE]"), "upstream_broke_off"),
    "a page": Garbage(b"<html>hello</html>"),
    "a whole answer": Garbage(whole(role="assistant", content="hi")),
}


@both_apis
@pytest.mark.parametrize("row", EARLY.values(), ids=EARLY.keys())
@on_shared
async def test_a_stream_that_breaks_before_its_first_chunk_is_a_plain_502(
    shared: Shared, path: str, row: Garbage
) -> None:
    async with talk(*shared) as session:
        shared.upstream.script = lambda _: Reply(raw=row.raw)
        outcome = await session.one(path, stream=True)
        assert (outcome.status, outcome.error["code"]) == (502, row.code)
        assert row.message in outcome.error["message"]


@both_apis
@on_shared
async def test_a_stream_that_is_hung_up_on_before_its_first_chunk_is_a_plain_502(either: Shared, path: str) -> None:
    async with talk(*either) as session:
        either.upstream.script = lambda _: says("never", break_after=0)
        outcome = await session.one(path, stream=True)
        assert (outcome.status, outcome.error["code"]) == (502, "upstream_broke_off")


@both_apis
@on_shared
async def test_a_stream_without_any_choice_fails(shared: Shared, path: str) -> None:
    async with talk(*shared) as session:
        shared.upstream.script = lambda _: Reply(raw=sse({"choices": []}) + sse(b"[DONE]"))
        outcome = await session.one(path, stream=True)
        error = outcome.error if outcome.status == 502 else outcome.failure(path)
        assert error["code"] == "upstream_broke_off"


# Streams that break after it

LATE = {
    "not JSON": Garbage(sse(b"{{{") + END),
    "a list": Garbage(sse(b"[]") + END),
    "choices that are a text": Garbage(sse({"choices": "x"}) + END),
    "a delta that is null": Garbage(chunk(None) + END),
    "a finish reason that is a number": Garbage(sse({"choices": [{"delta": {}, "finish_reason": 5}]})),
    "bytes that are not UTF-8": Garbage(b'data: {"choices": [{"delta": {"content": "\xff"}}]}\n\n' + END),
    "an error": Garbage(sse({"error": {"message": MOON, "code": "bad"}}), "upstream_error", MOON),
    "an error that is a text": Garbage(sse({"error": MOON}), "upstream_error", MOON),
    "an error after the finish reason": Garbage(chunk({}, "stop") + sse({"error": MOON}), "upstream_error", MOON),
    "no finish reason": Garbage(sse(b"[DONE]"), "upstream_broke_off"),
    "no end": Garbage(b"", "upstream_broke_off"),
}


@both_apis
@pytest.mark.parametrize("row", LATE.values(), ids=LATE.keys())
@on_shared
async def test_a_stream_that_breaks_after_its_first_chunk_ends_with_the_error(
    shared: Shared, path: str, row: Garbage
) -> None:
    async with talk(*shared, said=["hi"]) as session:
        shared.upstream.script = lambda _: Reply(raw=HI + row.raw)
        outcome = await session.one(path, stream=True)
        error = outcome.failure(path)
        assert error["code"] == row.code
        assert row.message in error["message"]
        assert outcome.headers[SESSION_ID.lower()] == session.session_id


@both_apis
@on_shared
async def test_a_stream_that_is_hung_up_on_in_the_middle_ends_with_the_error(either: Shared, path: str) -> None:
    async with talk(*either, said=["one two"]) as session:
        either.upstream.script = lambda _: says("one two three", break_after=3)
        outcome = await session.one(path, stream=True)
        assert outcome.failure(path)["code"] == "upstream_broke_off"


# Answers that are odd, and yet can be shown

ODD = {
    "content that is a number": {"content": 5},
    "content that is an object": {"content": {"a": 1}},
    "content with parts that are numbers": {"content": [5]},
    "reasoning that is an object": {"reasoning": {"a": 1}},
    "a refusal that is a number": {"refusal": 5},
    "tool calls that are a text": {"tool_calls": "x"},
    "tool calls that are numbers": {"tool_calls": [5]},
    "a tool call of a text": {"tool_calls": [{"index": 0, "id": "c1", "function": "f"}]},
    "a tool call without anything": {"tool_calls": [{"index": 0}]},
    "a tool call whose index is a text": {"tool_calls": [{"index": "x", "id": "c1", "function": {"name": "f"}}]},
    "arguments that are an object": {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": {"a": 1}}}]},
    "a role that is a number": {"role": 5},
}


@both_apis
@streamed_or_not
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
@on_shared
async def test_an_odd_answer_is_taken_or_refused_but_no_failure_of_ours(
    shared: Shared, path: str, stream: bool, odd: dict[str, Any]
) -> None:
    session = Talk(shared.server, f"session-{next(_numbers)}")
    raw = HI + chunk(odd) + END if stream else whole(**{"role": "assistant"} | odd)
    shared.upstream.script = lambda _: Reply(raw=raw)
    outcome = await session.one(path, stream=stream)
    mend(shared.upstream)
    assert "internal_error" not in outcome.body
    assert outcome.status == 200 or outcome.error["code"] == "upstream_garbage"
    assert outcome.status != 200 or not stream or outcome.events
    assert {status for _, status in await session.shown()} <= {"completed", "failed"}
    await shared.server.chat("two", session.session_id)


# A model server that is not there, or does not speak HTTP


@both_apis
@streamed_or_not
async def test_a_model_server_that_is_down_is_502(
    data: Path, model: Upstream, dialect: Dialect, path: str, stream: bool
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        async with serving(data, upstream=model.url, upstream_api=dialect) as server:
            await server.chat("zero", "s1")
        async with serving(data, upstream=nowhere, upstream_api=dialect) as server:
            outcome = await Talk(server, "s1").one(path, stream=stream)
            assert (outcome.status, outcome.error["code"]) == (502, "upstream_unreachable")
            assert nowhere in outcome.error["message"]
    async with serving(data, upstream=model.url, upstream_api=dialect) as server:
        await Talk(server, "s1").check_forgotten(model)


@both_apis
@streamed_or_not
@pytest.mark.parametrize(
    ("bad", "code"),
    [
        pytest.param(b"", "upstream_unreachable", id="hangs up"),
        pytest.param(b"HTTP/1.1 200", "upstream_unreachable", id="hangs up in its first line"),
        pytest.param(b"hello world\r\n\r\n", "upstream_garbage", id="speaks no HTTP"),
        pytest.param(http(b'{"choi', length=1_000), "upstream_broke_off", id="hangs up in its body"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n",
            "upstream_garbage",
            id="breaks its chunks",
        ),
    ],
)
async def test_a_model_server_that_breaks_its_connection_is_502(
    data: Path, dialect: Dialect, path: str, stream: bool, bad: bytes, code: str
) -> None:
    async with (
        canned_upstream() as canned,
        serving(data, upstream=canned.url, upstream_api=dialect) as server,
        talk(server, canned) as session,
    ):
        canned.bad = bad
        outcome = await session.one(path, stream=stream)
        assert (outcome.status, outcome.error["code"]) == (502, code)
        assert outcome.error["type"] == "upstream_error"


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        pytest.param(b"", "upstream_unreachable", id="hangs up"),
        pytest.param(http(b"<html>"), "upstream_garbage", id="a page"),
        pytest.param(http(b'{"data": [{}]}'), "upstream_garbage", id="a model without a name"),
        pytest.param(http(b"{}", "401 Unauthorized"), "upstream_auth", id="401"),
        pytest.param(http(b"", "500 Oops"), "upstream_error", id="500"),
    ],
)
async def test_a_list_of_models_that_can_not_be_had_is_502(data: Path, dialect: Dialect, bad: bytes, code: str) -> None:
    async with canned_upstream() as canned, serving(data, upstream=canned.url, upstream_api=dialect) as server:
        canned.bad = bad
        with pytest.raises(openai.InternalServerError) as raised:
            await server.openai.models.list()
        assert (raised.value.status_code, raised.value.code) == (502, code)


# A model server that is slow

HURRY = Timeouts(connect_s=5.0, first_byte_s=0.1, total_s=5.0)
WORK_FAST = Timeouts(connect_s=5.0, first_byte_s=5.0, total_s=0.2)


@both_apis
@streamed_or_not
async def test_a_model_server_that_does_not_begin_in_time_is_504(
    data: Path, model: Upstream, dialect: Dialect, path: str, stream: bool
) -> None:
    async with (
        serving(data, upstream=model.url, upstream_api=dialect, timeouts=HURRY) as server,
        talk(server, model) as session,
    ):
        model.gate.clear()
        outcome = await session.one(path, stream=stream)
        assert (outcome.status, outcome.error["code"]) == (504, "upstream_timeout")
        assert "did not begin to answer in 0.1 s" in outcome.error["message"]


@both_apis
async def test_after_a_keep_alive_a_failure_is_told_in_the_stream(
    data: Path, model: Upstream, dialect: Dialect, path: str
) -> None:
    async with (
        serving(data, upstream=model.url, upstream_api=dialect, timeouts=HURRY, keepalive_s=0.01) as server,
        talk(server, model) as session,
    ):
        model.gate.clear()
        outcome = await session.one(path, stream=True)
        assert outcome.body.startswith(": keepalive\n\n")
        assert outcome.failure(path)["code"] == "upstream_timeout"
        assert outcome.headers[SESSION_ID.lower()] == session.session_id


@both_apis
async def test_a_stream_that_takes_too_long_ends_with_the_error(
    data: Path, model: Upstream, dialect: Dialect, path: str
) -> None:
    async with (
        serving(data, upstream=model.url, upstream_api=dialect, timeouts=WORK_FAST) as server,
        talk(server, model, said=["one"]) as session,
    ):
        model.script = lambda _: says("one two three")
        model.stream_gate_after = 2
        model.gate.clear()
        error = (await session.one(path, stream=True)).failure(path)
        assert error["code"] == "upstream_timeout"
        assert "more than 0.2 s" in error["message"]


@both_apis
async def test_a_stream_that_takes_too_long_to_its_first_chunk_is_504(
    data: Path, model: Upstream, dialect: Dialect, path: str
) -> None:
    async with (
        serving(data, upstream=model.url, upstream_api=dialect, timeouts=WORK_FAST) as server,
        talk(server, model) as session,
    ):
        model.stream_gate_after = 0
        model.gate.clear()
        outcome = await session.one(path, stream=True)
        assert (outcome.status, outcome.error["code"]) == (504, "upstream_timeout")


@both_apis
async def test_an_answer_that_takes_too_long_is_504(data: Path, dialect: Dialect, path: str) -> None:
    async with (
        canned_upstream() as canned,
        serving(data, upstream=canned.url, upstream_api=dialect, timeouts=WORK_FAST) as server,
        talk(server, canned) as session,
    ):
        canned.bad = http(b'{"choi', length=1_000)
        canned.holds.set()
        outcome = await session.one(path, stream=False)
        assert (outcome.status, outcome.error["code"]) == (504, "upstream_timeout")


@streamed_or_not
async def test_the_time_for_the_whole_answer_counts_before_its_first_byte_too(
    data: Path, model: Upstream, dialect: Dialect, stream: bool
) -> None:
    async with (
        serving(data, upstream=model.url, upstream_api=dialect, timeouts=WORK_FAST) as server,
        talk(server, model) as session,
    ):
        model.gate.clear()
        async with asyncio.timeout(0.5):
            outcome = await session.one(CHAT, stream=stream)
        assert (outcome.status, outcome.error["code"]) == (504, "upstream_timeout")


@both_apis
async def test_a_stream_that_waits_in_vain_for_its_session_is_whole(
    data: Path, model: Upstream, dialect: Dialect, path: str
) -> None:
    async with serving(data, upstream=model.url, upstream_api=dialect, lock_wait_s=0.1, keepalive_s=0.02) as server:
        model.gate.clear()
        first = asyncio.create_task(server.chat("zero", "s1"))
        await model.wait_for_requests(1)
        outcome = await Talk(server, "s1").one(path, stream=True)
        error = outcome.error if outcome.status == 409 else outcome.failure(path)
        assert error["code"] == "conversation_locked"
        model.gate.set()
        await first
        assert [text for text, _ in await Talk(server, "s1").shown()] == ["zero", "1: zero"]


# Nothing recorded


@both_apis
@streamed_or_not
async def test_a_failed_turn_that_is_not_to_be_stored_is_not(
    server: Server, upstream: Upstream, data: Path, path: str, stream: bool
) -> None:
    async def position() -> int:
        log = await SqliteLog.open_read_only(data)
        try:
            return log.head().position
        finally:
            await log.close()

    session = Talk(server, "s1")
    await server.chat("zero", "s1")
    before = await position()
    for reply in (refusal(500), says("a b c", break_after=2) if stream else Reply(raw=b"{")):
        upstream.script = lambda _, reply=reply: reply  # type: ignore[misc]
        outcome = await session.one(path, stream=stream, store=False)
        assert SESSION_ID.lower() not in outcome.headers
        assert (outcome.error if outcome.status == 502 else outcome.failure(path))["code"].startswith("upstream_")
    assert await position() == before


# As the SDK sees it


@pytest.mark.parametrize(
    ("reply", "error", "code"),
    [
        pytest.param(refusal(400, code=TOO_LONG), openai.BadRequestError, TOO_LONG, id="400"),
        pytest.param(refusal(404, code="model_not_found"), openai.NotFoundError, "model_not_found", id="404"),
        pytest.param(refusal(429, SOON), openai.RateLimitError, "rate_limit_exceeded", id="429"),
        pytest.param(refusal(401), openai.InternalServerError, "upstream_auth", id="401"),
        pytest.param(refusal(503), openai.InternalServerError, "upstream_error", id="503"),
    ],
)
@streamed_or_not
@on_shared
async def test_the_sdk_raises_what_the_model_server_refused(
    either: Shared, stream: bool, reply: Reply, error: type[openai.APIStatusError], code: str
) -> None:
    either.upstream.script = lambda _: reply
    with pytest.raises(error, match=MOON) as in_chat:
        await either.server.openai.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "one"}], stream=stream
        )
    with pytest.raises(error, match=MOON) as in_responses:
        await either.server.openai.responses.create(model="m", input="one", stream=stream)
    mend(either.upstream)
    for raised in (in_chat.value, in_responses.value):
        assert raised.code == code
        assert (raised.request_id or "").startswith("req_")
        assert raised.response.headers.get("retry-after") == reply.headers.get("retry-after")


@on_shared
async def test_the_sdk_raises_what_breaks_a_chat_off(either: Shared) -> None:
    heard: list[str] = []

    async def listen() -> None:
        chunks = await either.server.openai.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "one"}], stream=True
        )
        async for piece in chunks:
            heard.extend(choice.delta.content or "" for choice in piece.choices)

    either.upstream.script = lambda _: says("one two three", break_after=2)
    with pytest.raises(openai.APIError) as raised:
        await listen()
    mend(either.upstream)
    assert raised.value.code == "upstream_broke_off"
    assert "".join(heard) == "one"


@on_shared
async def test_the_sdk_is_told_what_breaks_a_response_off(either: Shared) -> None:
    either.upstream.script = lambda _: says("one two three", break_after=2)
    events = [event async for event in await either.server.openai.responses.create(model="m", input="one", stream=True)]
    mend(either.upstream)
    last = events[-1]
    assert isinstance(last, ResponseFailedEvent)
    assert last.response.error
    assert last.response.error.code == "server_error"
    assert last.response.error.message.endswith("(upstream_broke_off)")
    read = await either.server.openai.responses.retrieve(last.response.id)
    assert read.error == last.response.error


# Clients that hang up


async def until_ended(session: Talk) -> None:
    """Return once no turn of the session is open."""
    for _ in range(POLLS_MAX):
        if all(status != "in_progress" for _, status in await session.shown()):
            return
        await asyncio.sleep(POLL_S)
    raise AssertionError("the turn is still open")


@both_apis
@on_shared
async def test_a_client_that_hangs_up_in_the_middle_of_a_stream_cancels_its_turn(either: Shared, path: str) -> None:
    server, upstream = either
    async with talk(server, upstream, said=["one"], status="cancelled") as session:
        upstream.script = lambda _: says("one two three")
        upstream.stream_gate_after = 2
        upstream.gate.clear()
        answer = await server.http.post(path, json=asks(path, "one", stream=True), headers=session.headers)
        heard = b""
        while b'"one"' not in heard:
            heard += await answer.content.readany()
        assert (await session.shown())[-1] == ("one", "in_progress")
        answer.close()
        await until_ended(session)


@both_apis
@streamed_or_not
@on_shared
async def test_a_client_that_hangs_up_before_the_first_byte_cancels_its_turn(
    either: Shared, path: str, stream: bool
) -> None:
    server, upstream = either
    async with talk(server, upstream, status="cancelled") as session:
        upstream.gate.clear()
        sent = len(upstream.requests)
        waiting = asyncio.create_task(session.one(path, stream=stream))
        await upstream.wait_for_requests(sent + 1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await until_ended(session)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_an_error_tells_the_session_that_the_failed_turn_is_in(
    server: Server, upstream: Upstream, stream: bool
) -> None:
    upstream.script = lambda _: refuses(500)
    body = {"model": "m", "stream": stream, "messages": [{"role": "user", "content": "hi"}]}
    async with server.http.post("/v1/chat/completions", json=body) as answer:
        assert answer.status == 502
        session_id = answer.headers["X-Hermes-Session-Id"]
    assert [message["status"] for message in await server.messages(session_id)] == ["failed"]
