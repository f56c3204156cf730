"""Bad input over real HTTP: a clear error in OpenAI's envelope, nothing stored, a next turn as if it had never been.

Most rows go to one server, one after the other: that it still serves after each is part of what is tested. What
aiohttp's client would not send goes over a raw socket.
"""

import asyncio
import contextlib
import gzip
import io
import itertools
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec
import openai
import pytest
import pytest_asyncio
from multidict import CIMultiDict

from api import keys
from api.routes.table import ROUTES
from api.settings import BODY_BYTES_MAX
from api.wire.headers import CONTINUITY, IDEMPOTENCY_KEY, SESSION_ID, SESSION_KEY
from eventstore.sqlite import SqliteLog
from tests.support.server import KEY, Server, serving
from tests.support.upstream import Message, Upstream, says, scripted_upstream

CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
HI: Message = {"role": "user", "content": "hi"}
SAID: Message = {"role": "assistant", "content": "so"}

encode = msgspec.json.encode
both_apis = pytest.mark.parametrize("path", [CHAT, RESPONSES], ids=["chat", "responses"])


def good(path: str) -> dict[str, Any]:
    """A body with nothing wrong."""
    return {"model": "m", "messages": [HI]} if path == CHAT else {"model": "m", "input": "hi"}


def lower(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers, their names in lower case."""
    return {name.lower(): value for name, value in headers.items()}


def check_envelope(headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """The error of an answer, which is in OpenAI's envelope and has a request id."""
    assert headers["x-request-id"].startswith("req_")
    assert headers["content-type"].startswith("application/json")
    answer: dict[str, dict[str, Any]] = msgspec.json.decode(body)
    assert list(answer) == ["error"]
    error = answer["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert error["type"]
    assert error["code"]
    return error


async def refused(
    server: Server,
    path: str,
    status: int,
    *,
    method: str = "POST",
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> dict[str, Any]:
    """The error that a request gets, with that status."""
    async with server.http.request(method, path, headers=headers, **more) as answer:
        body = await answer.read()
        assert answer.status == status, body
        return check_envelope(lower(answer.headers), body)


class Raw(NamedTuple):
    """An answer as it came over a socket; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


async def connect(server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the server."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    return await asyncio.open_connection(host, int(port))


async def send_raw(server: Server, request: bytes, wait_s: float = 5.0) -> Raw:
    """Send bytes as they are and read one answer."""
    reader, writer = await connect(server)
    try:
        async with asyncio.timeout(wait_s):
            writer.write(request)
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await reader.readexactly(int(headers["content-length"]))
            return Raw(int(first.split()[1]), headers, body)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def raw_post(body: bytes = b"", **headers: bytes) -> bytes:
    """A chat request with our key; header names with underscores for dashes."""
    named = {b"host": b"x", b"authorization": b"Bearer " + KEY.encode()}
    named |= {name.replace("_", "-").encode(): value for name, value in headers.items()}
    if not {b"content-length", b"transfer-encoding"} & named.keys():
        named[b"content-length"] = b"%d" % len(body)
    head = b"".join(b"%b: %b\r\n" % header for header in named.items())
    return b"POST " + CHAT.encode() + b" HTTP/1.1\r\n" + head + b"\r\n" + body


async def positions(data: Path) -> int:
    """How much is in the log, read beside the running server."""
    log = await SqliteLog.open_read_only(data)
    try:
        return log.head().position
    finally:
        await log.close()


class Shared(NamedTuple):
    """A server for many tests, the model server behind it, and its data."""

    server: Server
    upstream: Upstream
    data: Path


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shared]:
    """A server that all the bad input of this module goes to."""
    data = tmp_path_factory.mktemp("shared") / "data"
    async with scripted_upstream() as upstream, serving(data, upstream=upstream.url) as server:
        yield Shared(server, upstream, data)


on_shared = pytest.mark.asyncio(loop_scope="module")
_numbers = itertools.count()


@contextlib.asynccontextmanager
async def unharmed(server: Server, upstream: Upstream, data: Path) -> AsyncIterator[dict[str, str]]:
    """Gives the header of a session that has had a turn.

    Nothing that happens inside is stored or sent to the model, and the session goes on as if it had not happened.
    """
    session_id = f"session-{next(_numbers)}"
    await server.chat("one", session_id)
    position, sent = await positions(data), len(upstream.requests)
    yield {SESSION_ID: session_id}
    assert len(upstream.requests) == sent
    assert await positions(data) == position
    await server.chat("two", session_id)
    assert [message["content"] for message in upstream.messages[-1]] == ["one", "1: one", "two"]


# Bodies

NOT_JSON = {
    "nothing": b"",
    "the beginning of an object": b'{"model": "m"',
    "something behind the object": encode(good(CHAT) | good(RESPONSES)) + b" x",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "NaN": b'{"model": "m", "temperature": NaN}',
    "a raw control character": b'{"model": "a\x01b"}',
    "half a surrogate pair": b'{"model": "\\ud800"}',
    "bytes that are not UTF-8": b'{"model": "\xff"}',
    "brackets a hundred thousand deep": b'{"messages": %b, "input": []}' % (b"[" * 100_000 + b"]" * 100_000),
}
# Where a body is passed on byte for byte, nobody else looks at it.
NOT_UTF8_INSIDE = [
    b'{"messages": [{"role": "user", "content": "hi", "x": "\xff"}], "input": "hi", "x": "\xff"}',
    b'{"messages": [{"role": "user", "content": "hi"}], "input": [{"role": "user", "content": "hi", "x": "\xff"}]}',
]


@both_apis
@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
@on_shared
async def test_a_body_that_is_not_json_is_400(shared: Shared, path: str, body: bytes) -> None:
    async with unharmed(*shared) as session:
        error = await refused(shared.server, path, 400, data=body, headers=session)
        assert (error["param"], error["code"]) == (None, "invalid_json")
        assert error["message"].startswith("Invalid JSON in request body: ")


@both_apis
@pytest.mark.parametrize("body", NOT_UTF8_INSIDE, ids=["in an unknown field", "in an item"])
async def test_a_body_that_is_not_utf8_where_it_is_only_passed_on_is_400(
    server: Server, upstream: Upstream, data: Path, path: str, body: bytes
) -> None:
    async with unharmed(server, upstream, data) as session:
        error = await refused(server, path, 400, data=body, headers=session)
        assert error["code"] == "invalid_json"


@both_apis
@pytest.mark.parametrize("body", [b"[1]", b'"x"', b"null", b"1", b"true"])
@on_shared
async def test_a_body_that_is_not_an_object_is_400(shared: Shared, path: str, body: bytes) -> None:
    async with unharmed(*shared) as session:
        error = await refused(shared.server, path, 400, data=body, headers=session)
        assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, "invalid_type")
        assert error["message"].startswith("Request body must be a JSON object")


async def send_nested(server: Server, path: str, depth: int) -> list[int]:
    """The statuses that brackets so deep get, as a parameter and in a message."""
    deep = msgspec.Raw(b"[" * depth + b"]" * depth)
    item = HI | {"x": deep}
    statuses = []
    for body in (good(path) | {"x": deep}, good(path) | {"messages": [item], "input": [item]}):
        async with server.http.post(path, data=encode(body)) as answer:
            statuses.append(answer.status)
    return statuses


async def deepest(server: Server, path: str) -> int:
    """How deep brackets can be before all are refused."""
    taken, too_deep = 10, 10_000
    while too_deep - taken > 1:
        depth = (taken + too_deep) // 2
        taken, too_deep = (taken, depth) if await send_nested(server, path, depth) == [400, 400] else (depth, too_deep)
    return taken


@both_apis
async def test_nesting_about_as_deep_as_can_be_read_is_taken_or_refused(
    server: Server, upstream: Upstream, path: str
) -> None:
    upstream.script = lambda _: says("ok")
    edge = await deepest(server, path)
    for depth in range(edge - 9, edge + 2):
        assert set(await send_nested(server, path, depth)) <= {200, 400}, depth


@both_apis
async def test_nesting_that_is_refused_leaves_no_session(server: Server, upstream: Upstream, path: str) -> None:
    upstream.script = lambda _: says("ok")
    edge = await deepest(server, path)
    before = len((await server.get("/api/sessions"))["data"])
    statuses = [status for depth in range(edge - 9, edge + 2) for status in await send_nested(server, path, depth)]
    assert len((await server.get("/api/sessions"))["data"]) - before == statuses.count(200)


# Fields


class Row(NamedTuple):
    """Fields that are wrong, and how they are refused."""

    fields: dict[str, Any]
    param: str
    code: str = "invalid_value"


MISSING = "missing_required_parameter"
SIXTEEN_AND_ONE = {f"key-{number}": "v" for number in range(17)}

EITHER_FIELDS = [
    Row({"model": 5}, "model"),
    Row({"stream": "yes"}, "stream"),
    Row({"store": "no"}, "store"),
    Row({"user": 5}, "user"),
    Row({"temperature": "hot"}, "temperature"),
    Row({"temperature": 3}, "temperature"),
    Row({"temperature": -0.1}, "temperature"),
    Row({"top_p": 1.1}, "top_p"),
    Row({"top_p": "all"}, "top_p"),
    Row({"top_logprobs": 21}, "top_logprobs"),
    Row({"parallel_tool_calls": "x"}, "parallel_tool_calls"),
    Row({"tools": "x"}, "tools"),
    Row({"tools": [5]}, "tools[0]"),
    Row({"tools": [{}]}, "tools[0].type", MISSING),
    Row({"tool_choice": 5}, "tool_choice"),
    Row({"tool_choice": {"type": ["function"]}}, "tool_choice.type"),
    Row({"metadata": "x"}, "metadata"),
    Row({"metadata": SIXTEEN_AND_ONE}, "metadata"),
    Row({"metadata": {"k" * 65: "v"}}, "metadata"),
    Row({"metadata": {"k": "v" * 513}}, "metadata"),
    Row({"metadata": {"k": 5}}, "metadata"),
]
CHAT_FIELDS = [
    Row({"messages": "x"}, "messages"),
    Row({"messages": None}, "messages"),
    Row({"messages": []}, "messages"),
    Row({"messages": [1]}, "messages[0]"),
    Row({"messages": [HI, {"role": "alien", "content": "x"}]}, "messages[1].role"),
    Row({"messages": [HI, {"content": "x"}]}, "messages[1].role", MISSING),
    Row({"messages": [{"role": "user", "content": 5}]}, "messages[0].content"),
    Row({"messages": [{"role": "user", "content": [{"text": "x"}]}]}, "messages[0].content[0].type", MISSING),
    Row({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content[0].text", MISSING),
    Row({"messages": [{"role": "user", "content": ""}]}, "messages[0].content", "empty_message"),
    Row({"messages": [{"role": "user", "content": " \n"}]}, "messages[0].content", "empty_message"),
    Row({"messages": [{"role": "user", "content": []}]}, "messages[0].content", "empty_message"),
    Row({"messages": [{"role": "user"}]}, "messages[0].content", "empty_message"),
    Row({"messages": [HI | {"name": 5}]}, "messages[0].name"),
    Row({"messages": [{"role": "system", "content": "be brief"}]}, "messages", "no_user_message"),
    Row({"messages": [{"role": "developer", "content": "be brief"}]}, "messages", "no_user_message"),
    Row({"stream_options": {"include_usage": "x"}}, "stream_options.include_usage"),
    Row({"max_tokens": 0}, "max_tokens"),
    Row({"max_completion_tokens": 1.5}, "max_completion_tokens"),
    Row({"n": 0}, "n"),
    Row({"presence_penalty": 3}, "presence_penalty"),
    Row({"stop": 5}, "stop"),
    Row({"seed": "x"}, "seed"),
    Row({"response_format": "json"}, "response_format"),
]
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "12"}
RESPONSES_FIELDS = [
    Row({"input": 5}, "input"),
    Row({"input": None}, "input"),
    Row({"input": []}, "input", "empty_input"),
    Row({"input": ""}, "input", "empty_message"),
    Row({"input": " \n"}, "input", "empty_message"),
    Row({"input": [5]}, "input[0]"),
    Row({"input": [{"type": "alien"}]}, "input[0].type", "unsupported_item"),
    Row({"input": [{"type": None, "role": "user", "content": "x"}]}, "input[0].type"),
    Row({"input": [HI, {"role": "alien", "content": "x"}]}, "input[1].role"),
    Row({"input": [{"content": "x"}]}, "input[0].role", MISSING),
    Row({"input": [{"role": "user"}]}, "input[0].content", MISSING),
    Row({"input": [{"role": "user", "content": ""}]}, "input[0].content", "empty_message"),
    Row({"input": [{"role": "user", "content": []}]}, "input[0].content", "empty_message"),
    Row({"input": [{"role": "user", "content": [{"type": "input_text", "text": 5}]}]}, "input[0].content[0].text"),
    Row({"input": [{"type": "function_call_output", "output": "12"}]}, "input[0].call_id", MISSING),
    Row({"input": [{"type": "function_call_output", "call_id": "c1"}]}, "input[0].output", MISSING),
    Row({"input": [OUTPUT | {"call_id": 5}]}, "input[0].call_id"),
    Row({"input": [HI, {"type": "function_call", "call_id": "c1", "name": "f"}]}, "input[1].arguments", MISSING),
    Row({"input": [{"type": "custom_tool_call", "call_id": "c1", "name": "f", "input": 5}]}, "input[0].input"),
    Row({"input": [{"type": "reasoning", "summary": []}]}, "input", "empty_input"),
    Row({"instructions": 5}, "instructions"),
    Row({"conversation": 5}, "conversation"),
    Row({"conversation": {}}, "conversation.id", MISSING),
    Row({"conversation": {"id": 5}}, "conversation.id"),
    Row({"conversation": "x" * 257}, "conversation", "invalid_conversation"),
    Row({"conversation": "a\nb"}, "conversation", "invalid_conversation"),
    Row({"previous_response_id": 5}, "previous_response_id"),
    Row({"conversation": "a", "previous_response_id": "resp_1"}, "conversation", "mutually_exclusive_parameters"),
    Row({"conversation_history": [5]}, "conversation_history[0]"),
    Row({"background": True, "store": False}, "background", "unsupported_parameter"),
    Row({"background": "x"}, "background"),
    Row({"tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported_tool"),
    Row({"max_output_tokens": 0}, "max_output_tokens"),
    Row({"max_output_tokens": "many"}, "max_output_tokens"),
    Row({"max_tool_calls": 0}, "max_tool_calls"),
    Row({"text": "x"}, "text"),
    Row({"reasoning": "x"}, "reasoning"),
    Row({"truncation": 5}, "truncation"),
    Row({"service_tier": 5}, "service_tier"),
]


@pytest.mark.parametrize(
    ("path", "row"),
    [
        pytest.param(
            path,
            row,
            id=f"{path.split('/')[2]}-{encode(row.fields).decode()[:60]}",
        )
        for path, own in ((CHAT, CHAT_FIELDS), (RESPONSES, RESPONSES_FIELDS))
        for row in (*EITHER_FIELDS, *own)
    ],
)
@on_shared
async def test_a_wrong_field_is_400_and_named(shared: Shared, path: str, row: Row) -> None:
    async with unharmed(*shared) as session:
        error = await refused(shared.server, path, 400, json=good(path) | row.fields, headers=session)
        assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", row.param, row.code)


@pytest.mark.parametrize(("path", "param"), [(CHAT, "messages"), (RESPONSES, "input")], ids=["chat", "responses"])
@on_shared
async def test_a_body_without_its_one_required_field_is_400(shared: Shared, path: str, param: str) -> None:
    error = await refused(shared.server, path, 400, json={"model": "m"})
    assert (error["param"], error["code"]) == (param, MISSING)
    assert error["message"] == f"Missing required parameter: '{param}'."


@both_apis
async def test_a_model_must_be_named_where_there_is_no_default(data: Path, upstream: Upstream, path: str) -> None:
    body = good(path)
    del body["model"]
    async with serving(data, upstream=upstream.url, default_model="") as server:
        error = await refused(server, path, 400, json=body)
        assert (error["param"], error["code"]) == ("model", MISSING)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        pytest.param(CHAT, {"messages": [HI, SAID]}, id="chat"),
        pytest.param(RESPONSES, {"input": [HI, SAID]}, id="responses"),
        pytest.param(
            RESPONSES,
            {"input": [HI, SAID], "conversation": "slug"},
            id="responses, with a new slug",
        ),
    ],
)
@on_shared
async def test_a_body_with_nothing_new_for_its_session_is_400(
    shared: Shared, path: str, fields: dict[str, Any]
) -> None:
    async with unharmed(*shared) as session:
        error = await refused(shared.server, path, 400, json=good(path) | fields, headers=session)
        assert error["code"] == "nothing_new"


@both_apis
@pytest.mark.parametrize("user", ["a\r\nX-Evil: 1", "\x01", "u" * 257, "u" * 20_000])
@on_shared
async def test_a_user_that_could_not_be_a_header_is_not_echoed_as_one(shared: Shared, path: str, user: str) -> None:
    async with shared.server.http.post(path, json=good(path) | {"user": user}) as answer:
        assert answer.status == 200
        assert not {"X-Hermes-User-Id", "X-Evil"} & set(answer.headers)


@on_shared
async def test_an_id_that_is_far_too_long_is_not_said_back_whole(shared: Shared) -> None:
    body = good(RESPONSES) | {"previous_response_id": "r" * 100_000}
    error = await refused(shared.server, RESPONSES, 404, json=body)
    assert error["code"] == "previous_response_not_found"
    assert len(error["message"]) < 1_000


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 3}, "temperature"),
        ({"metadata": SIXTEEN_AND_ONE}, "metadata"),
        ({"background": True, "store": False}, "background"),
    ],
    ids=["temperature", "metadata", "background"],
)
@on_shared
async def test_the_sdk_tells_what_was_wrong(shared: Shared, stream: bool, fields: dict[str, Any], param: str) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        await shared.server.openai.responses.create(model="m", input="hi", stream=stream, extra_body=fields)
    error = raised.value
    assert (error.param, error.type) == (param, "invalid_request_error")
    assert (error.request_id or "").startswith("req_")
    assert error.response.headers["content-type"].startswith("application/json")


# Sizes


@pytest.mark.parametrize("chunked", [False, True], ids=["content-length", "chunked"])
@on_shared
async def test_a_body_over_ten_million_bytes_is_413(shared: Shared, chunked: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(101):
            yield b" " * 100_000

    async with unharmed(*shared) as session:
        body = pieces() if chunked else io.BytesIO(b" " * (BODY_BYTES_MAX + 1))
        error = await refused(shared.server, CHAT, 413, data=body, headers=session)
        assert error["code"] == "body_too_large"
        assert "10,000,000" in error["message"]


async def test_a_body_of_ten_million_bytes_is_taken(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: says("long")
    frame = len(encode({"model": "m", "messages": [HI | {"content": ""}]}))
    body = encode({"model": "m", "messages": [HI | {"content": "x" * (BODY_BYTES_MAX - frame)}]})
    assert len(body) == BODY_BYTES_MAX
    async with server.http.post(CHAT, data=io.BytesIO(body)) as answer:
        assert answer.status == 200


@on_shared
async def test_a_body_that_says_it_is_too_large_is_not_waited_for(shared: Shared) -> None:
    answer = await send_raw(shared.server, raw_post(b"{", content_length=b"10000001"), wait_s=0.3)
    assert answer.status == 413
    assert check_envelope(answer.headers, answer.body)["code"] == "body_too_large"


@on_shared
async def test_a_small_body_that_unpacks_to_a_large_one_is_413(shared: Shared) -> None:
    packed = gzip.compress(b" " * (BODY_BYTES_MAX + 1), 1)
    error = await refused(shared.server, CHAT, 413, data=packed, headers={"content-encoding": "gzip"})
    assert error["code"] == "body_too_large"


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
@on_shared
async def test_a_body_that_is_not_packed_as_it_says_is_400(shared: Shared, encoding: str) -> None:
    headers = {"content-encoding": encoding}
    await refused(shared.server, CHAT, 400, data=encode(good(CHAT)), headers=headers)


# Headers

all_names = pytest.mark.parametrize("name", CONTINUITY)


@all_names
@on_shared
async def test_a_continuity_header_over_256_characters_is_400(shared: Shared, name: str) -> None:
    async with unharmed(*shared) as session:
        for characters in (257, 9_000):
            headers = session | {name: "x" * characters}
            error = await refused(shared.server, CHAT, 400, json=good(CHAT), headers=headers)
            assert (error["param"], error["code"]) == (name, "header_too_long")
            assert f"at most 256 characters, got {characters}" in error["message"]


@all_names
@on_shared
async def test_256_characters_are_taken_and_echoed(shared: Shared, name: str) -> None:
    value = "ü" * 256
    async with shared.server.http.post(RESPONSES, json=good(RESPONSES), headers={name: value}) as answer:
        assert answer.status == 200
        assert answer.headers[name] == value


@both_apis
@on_shared
async def test_a_session_id_that_looks_like_a_path_is_400(shared: Shared, path: str) -> None:
    async with unharmed(*shared):
        for session_id in ("..", "a..b", "/etc/passwd", "a/b", "a\\b"):
            headers = {SESSION_ID: session_id}
            error = await refused(shared.server, path, 400, json=good(path), headers=headers)
            assert (error["param"], error["code"]) == (SESSION_ID, "invalid_session_id")


@on_shared
async def test_a_session_key_may_look_like_a_path(shared: Shared) -> None:
    key = "tenants/a/../b\\c"
    async with shared.server.http.post(CHAT, json=good(CHAT), headers={SESSION_KEY: key}) as answer:
        assert answer.status == 200
        assert answer.headers[SESSION_KEY] == key


UNPRINTABLE = (b"a\x00b", b"a\x01b", b"a\tb", b"a\rb", b"a\x1fb", b"a\x7fb", b"a\xc2\x85b", b"a\xffb")


@all_names
@on_shared
async def test_control_characters_in_a_continuity_header_are_400(shared: Shared, name: str) -> None:
    async with unharmed(*shared):
        for value in UNPRINTABLE:
            request = raw_post(encode(good(CHAT)), **{name.replace("-", "_"): value})
            answer = await send_raw(shared.server, request)
            assert answer.status == 400, value
            assert name in check_envelope(answer.headers, answer.body)["message"]


@pytest.mark.parametrize("name", [*CONTINUITY, IDEMPOTENCY_KEY])
@on_shared
async def test_a_header_of_twenty_kilobytes_is_400_before_anybody_reads_it(shared: Shared, name: str) -> None:
    async with unharmed(*shared):
        request = raw_post(encode(good(CHAT)), **{name.replace("-", "_"): b"x" * 20_000})
        answer = await send_raw(shared.server, request)
        assert answer.status == 400
        assert check_envelope(answer.headers, answer.body)["code"] == "bad_http"


@both_apis
@pytest.mark.parametrize("key", ["x" * 256, "a b", "ü", "a\tb"])
@on_shared
async def test_a_malformed_idempotency_key_is_400(shared: Shared, path: str, key: str) -> None:
    async with unharmed(*shared) as session:
        headers = session | {IDEMPOTENCY_KEY: key}
        error = await refused(shared.server, path, 400, json=good(path), headers=headers)
        assert (error["param"], error["code"]) == (IDEMPOTENCY_KEY, "invalid_idempotency_key")


async def test_continuity_headers_are_403_where_no_key_is_configured(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url, auth=False, api_key="") as server:
        for path in (CHAT, RESPONSES):
            for name in CONTINUITY:
                error = await refused(server, path, 403, json=good(path), headers={name: "mine"})
                assert error["code"] == "session_requires_key"
                assert name in error["message"]
        assert not upstream.requests
        async with server.http.post(CHAT, json=good(CHAT)) as answer:
            assert answer.status == 200


# Routes and methods


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nope", "/v1/chat/completions/", "/api/sessions/a/b", "/%"])
@on_shared
async def test_an_unknown_route_is_404(shared: Shared, path: str) -> None:
    for method in ("GET", "POST", "DELETE", "OPTIONS"):
        error = await refused(shared.server, path, 404, method=method)
        assert (error["param"], error["code"]) == (None, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", CHAT, "GET, POST"),
        ("PUT", CHAT, "GET, POST"),
        ("OPTIONS", RESPONSES, "GET, POST"),
        ("PATCH", "/v1/responses/resp_1", "DELETE, GET"),
        ("POST", "/health", "GET"),
        ("POST", "/api/sessions/s1/messages", "GET"),
    ],
)
@on_shared
async def test_a_wrong_method_is_405_and_told_the_right_ones(
    shared: Shared, method: str, path: str, allowed: str
) -> None:
    async with shared.server.http.request(method, path) as answer:
        assert (answer.status, answer.headers["allow"]) == (405, allowed)
        error = check_envelope(lower(answer.headers), await answer.read())
        assert error["code"] == "method_not_allowed"
        assert error["message"] == f"Method {method} is not allowed here; allowed: {allowed}."


@pytest.mark.parametrize(
    ("method", "path", "param", "code"),
    [
        ("GET", "/api/sessions/nope", "session_id", "session_not_found"),
        ("GET", "/api/sessions/nope/messages", "session_id", "session_not_found"),
        ("GET", "/api/sessions/%2E%2E%2Fetc", "session_id", "session_not_found"),
        ("GET", "/api/sessions/%ff%00/messages", "session_id", "session_not_found"),
        ("GET", "/v1/responses/nope", "response_id", "response_not_found"),
        ("GET", "/v1/responses/resp_nope", "response_id", "response_not_found"),
        pytest.param(
            *("GET", "/v1/responses/resp_nope?stream=true", "response_id", "response_not_found"),
        ),
        ("DELETE", "/v1/responses/resp_nope", "response_id", "response_not_found"),
    ],
)
@on_shared
async def test_an_unknown_id_is_404(shared: Shared, method: str, path: str, param: str, code: str) -> None:
    error = await refused(shared.server, path, 404, method=method)
    assert (error["param"], error["code"]) == (param, code)


@pytest.mark.parametrize(("path", "name"), [("", "limit"), ("", "offset"), ("/s1/messages", "limit")])
@on_shared
async def test_a_page_that_is_not_a_number_is_400(shared: Shared, path: str, name: str) -> None:
    for value in ("x", "-1", "1.5", "", "%ff", "0x10", "٣"):
        error = await refused(shared.server, f"/api/sessions{path}?{name}={value}", 400, method="GET")
        assert (error["param"], error["code"]) == (name, "invalid_value")


# Keys and tenants

NO_KEYS = {
    "no header": {},
    "nothing in it": {"authorization": ""},
    "no key": {"authorization": "Bearer"},
    "no scheme": {"authorization": KEY},
    "another scheme": {"authorization": f"Basic {KEY}"},
    "a wrong key": {"authorization": "Bearer wrong-key-0123456789"},
    "more than the key": {"authorization": f"Bearer {KEY} {KEY}"},
    "not ASCII": {"authorization": "Bearer clé"},
}


@pytest.mark.parametrize("headers", NO_KEYS.values(), ids=NO_KEYS.keys())
@on_shared
async def test_a_missing_or_wrong_key_is_401(shared: Shared, headers: dict[str, str]) -> None:
    async with unharmed(*shared) as session, aiohttp.ClientSession(shared.server.url) as http:
        for path in (CHAT, RESPONSES):
            async with http.post(path, json=good(path), headers=session | headers) as answer:
                assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
                error = check_envelope(lower(answer.headers), await answer.read())
                assert error["code"] == "invalid_api_key"


@on_shared
async def test_another_scheme_is_told_the_right_one(shared: Shared) -> None:
    headers = {"authorization": f"Basic {KEY}"}
    error = await refused(shared.server, CHAT, 401, json=good(CHAT), headers=headers)
    assert "Bearer" in error["message"]


@on_shared
async def test_every_route_but_the_open_ones_asks_for_a_key(shared: Shared) -> None:
    async with aiohttp.ClientSession(shared.server.url) as http:
        for route in ROUTES:
            async with http.request(route.method, route.path.replace("{", "").replace("}", "")) as answer:
                assert answer.status == (200 if route.is_open else 401), route.path


@on_shared
async def test_the_sdk_knows_a_wrong_key(shared: Shared) -> None:
    with pytest.raises(openai.AuthenticationError) as raised:
        await shared.server.openai.with_options(api_key="wrong-key-0123456789").models.list()
    assert raised.value.code == "invalid_api_key"


class Tenants(NamedTuple):
    """A server with two tenants; acme has a session, a slug and a response."""

    server: Server
    acme: dict[str, str]
    bravo: dict[str, str]
    response_id: str


@contextlib.asynccontextmanager
async def two_tenants(data: Path, upstream: Upstream) -> AsyncIterator[Tenants]:
    """Two tenants on one server: acme has said "secret" in session s1, which is the conversation "notes" too."""
    data.mkdir()
    acme, bravo = ({"authorization": f"Bearer {keys.add(data, name, name)}"} for name in ("acme", "bravo"))
    async with serving(data, upstream=upstream.url, api_key="") as server:
        body = {"model": "m", "input": "secret", "conversation": "notes"}
        async with server.http.post(RESPONSES, json=body, headers=acme | {SESSION_ID: "s1"}) as answer:
            assert answer.status == 200
            response_id = (await answer.json())["id"]
        yield Tenants(server, acme, bravo, response_id)


async def test_what_another_tenant_has_is_as_unknown_as_what_nobody_has(data: Path, upstream: Upstream) -> None:
    async with two_tenants(data, upstream) as (server, acme, bravo, response_id):
        for method, path, theirs, nobodys in (
            ("GET", "/api/sessions/{}", "s1", "s9"),
            ("GET", "/api/sessions/{}/messages", "s1", "s9"),
            ("GET", "/v1/responses/{}", response_id, "resp_9"),
            ("DELETE", "/v1/responses/{}", response_id, "resp_9"),
        ):
            one = await refused(server, path.format(theirs), 404, method=method, headers=bravo)
            other = await refused(server, path.format(nobodys), 404, method=method, headers=bravo)
            assert one | {"message": one["message"].replace(theirs, nobodys)} == other
        async with server.http.get("/api/sessions", headers=bravo) as answer:
            assert (await answer.json())["data"] == []
        async with server.http.get(f"/v1/responses/{response_id}", headers=acme) as answer:
            assert answer.status == 200


@pytest.mark.parametrize("store", [True, False])
async def test_a_turn_behind_another_tenants_response_is_404(data: Path, upstream: Upstream, store: bool) -> None:
    async with two_tenants(data, upstream) as (server, _, bravo, response_id):
        body = good(RESPONSES) | {"previous_response_id": response_id, "store": store}
        error = await refused(server, RESPONSES, 404, json=body, headers=bravo)
        assert (error["param"], error["code"]) == ("previous_response_id", "previous_response_not_found")
        assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("headers", "fields"),
    [({SESSION_ID: "s1"}, {}), ({}, {"conversation": "notes"}), ({SESSION_ID: "s1"}, {"conversation": "notes"})],
    ids=["session", "slug", "both"],
)
async def test_the_same_name_is_another_session_for_another_tenant(
    data: Path, upstream: Upstream, headers: dict[str, str], fields: dict[str, str]
) -> None:
    async with two_tenants(data, upstream) as (server, acme, bravo, _):
        for key, text in ((bravo, "mine"), (acme, "again")):
            body = {"model": "m", "input": text} | fields
            async with server.http.post(RESPONSES, json=body, headers=key | headers) as answer:
                assert answer.status == 200
        assert [[message["content"] for message in messages] for messages in upstream.messages] == [
            ["secret"],
            ["mine"],
            ["secret", "1: secret", "again"],
        ]
        async with server.http.get("/api/sessions", headers=bravo) as answer:
            assert [session["preview"] for session in (await answer.json())["data"]] == ["mine"]


# Browsers

APP = "https://app.example"
ORIGIN = {"origin": APP}


def listed(headers: Mapping[str, str], name: str) -> set[str]:
    """A header that is a list, in lower case."""
    return {entry.strip().lower() for entry in headers[name].split(",")}


@on_shared
async def test_a_page_of_any_origin_is_403_where_none_is_allowed(shared: Shared) -> None:
    preflight = {"access-control-request-method": "POST"}
    async with unharmed(*shared) as session:
        for method, path in (("GET", "/health"), ("POST", CHAT), ("OPTIONS", CHAT), ("GET", "/nope")):
            headers = session | ORIGIN | (preflight if method == "OPTIONS" else {})
            async with shared.server.http.request(method, path, headers=headers) as answer:
                assert answer.status == 403
                assert "access-control-allow-origin" not in answer.headers
                error = check_envelope(lower(answer.headers), await answer.read())
                assert error["code"] == "origin_not_allowed"
                assert APP in error["message"]


async def test_a_page_of_another_origin_than_the_allowed_ones_is_403(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url, cors_origins=(APP,)) as server:
        for origin in ("https://evil.example", f"{APP}.evil.example", "http://app.example", "null"):
            error = await refused(server, "/health", 403, method="GET", headers={"origin": origin})
            assert error["code"] == "origin_not_allowed"


@pytest.mark.parametrize("origins", [(APP,), ("https://other.example", APP), ("*",)], ids=["one", "two", "any"])
async def test_a_preflight_needs_no_key_and_allows_the_session_headers(
    data: Path, upstream: Upstream, origins: tuple[str, ...]
) -> None:
    asks = ORIGIN | {"access-control-request-method": "POST", "access-control-request-headers": "x-hermes-session-id"}
    wanted = {"authorization", "content-type", IDEMPOTENCY_KEY.lower(), *map(str.lower, CONTINUITY)}
    async with (
        serving(data, upstream=upstream.url, cors_origins=origins) as server,
        aiohttp.ClientSession(server.url) as http,
    ):
        for path in (CHAT, RESPONSES, "/v1/responses/resp_1", "/api/sessions"):
            async with http.options(path, headers=asks) as answer:
                assert answer.status in (200, 204)
                assert answer.headers["access-control-allow-origin"] == APP
                assert answer.headers["access-control-max-age"] == "600"
                assert {"get", "post", "delete"} <= listed(answer.headers, "access-control-allow-methods")
                assert wanted <= listed(answer.headers, "access-control-allow-headers")


@pytest.mark.parametrize(
    ("status", "path", "fields", "headers"),
    [
        pytest.param(200, CHAT, {}, {}, id="plain"),
        pytest.param(200, CHAT, {"stream": True}, {}, id="streamed chat"),
        pytest.param(200, RESPONSES, {"stream": True}, {}, id="streamed response"),
        pytest.param(400, CHAT, {"temperature": 3}, {}, id="bad request"),
        pytest.param(400, CHAT, {}, {SESSION_ID: "a/b"}, id="bad header"),
        pytest.param(401, CHAT, {}, {"authorization": "Bearer wrong"}, id="wrong key"),
        pytest.param(404, RESPONSES, {"previous_response_id": "resp_1"}, {}, id="unknown response"),
        pytest.param(404, "/nope", {}, {}, id="unknown route"),
        pytest.param(405, "/health", {}, {}, id="wrong method"),
    ],
)
async def test_a_page_can_read_the_session_headers_of_every_answer(
    data: Path, upstream: Upstream, status: int, path: str, fields: dict[str, Any], headers: dict[str, str]
) -> None:
    async with (
        serving(data, upstream=upstream.url, cors_origins=(APP,)) as server,
        server.http.post(path, json=good(path) | fields, headers=ORIGIN | headers) as answer,
    ):
        assert answer.status == status
        assert answer.headers["access-control-allow-origin"] == APP
        assert "origin" in listed(answer.headers, "vary")
        exposed = listed(answer.headers, "access-control-expose-headers")
        assert {"x-request-id", "retry-after", *map(str.lower, CONTINUITY)} <= exposed
        assert (SESSION_ID in answer.headers) == (status == 200)


# What is not even HTTP

NOT_HTTP = {
    "words": b"hello world\r\n\r\n",
    "zeros": b"\x00\xff" * 100,
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 50,
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "an unknown version": b"GET /health HTTP/9.9\r\nhost: x\r\n\r\n",
    "an unknown method": b"BREW /health HTTP/1.1\r\nhost: x\r\n\r\n",
    "no host": b"GET /health HTTP/1.1\r\n\r\n",
    "a negative length": raw_post(content_length=b"-1"),
    "a length that is none": raw_post(content_length=b"ten"),
    "a length and chunks": raw_post(b"0\r\n\r\n", content_length=b"5", transfer_encoding=b"chunked"),
    "broken chunks": raw_post(b"zz\r\nhello\r\n0\r\n\r\n", transfer_encoding=b"chunked"),
    "a line that does not end": b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
    "three hundred headers": raw_post(**{f"x_{number}": b"v" for number in range(300)}),
}


@pytest.mark.parametrize("request_", NOT_HTTP.values(), ids=NOT_HTTP.keys())
@on_shared
async def test_what_is_not_http_gets_an_envelope_too(shared: Shared, request_: bytes) -> None:
    async with unharmed(*shared):
        answer = await send_raw(shared.server, request_)
        assert answer.status == 400
        error = check_envelope(answer.headers, answer.body)
        assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", None, "bad_http")
        assert error["message"].startswith("This is not a valid HTTP request: ")


@on_shared
async def test_a_client_that_hangs_up_in_the_middle_of_its_body_leaves_nothing(shared: Shared) -> None:
    async with unharmed(*shared) as session:
        request = raw_post(encode(good(CHAT)), X_Hermes_Session_Id=session[SESSION_ID].encode(), content_length=b"1000")
        reader, writer = await connect(shared.server)
        writer.write(request)
        writer.write_eof()
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


@on_shared
async def test_two_session_headers_that_differ_are_400(shared: Shared) -> None:
    headers = CIMultiDict([("X-Hermes-Session-Id", "one"), ("X-Hermes-Session-Id", "two")])
    error = await refused(shared.server, CHAT, 400, json=good(CHAT), headers=headers)
    assert (error["param"], error["code"]) == ("X-Hermes-Session-Id", "duplicate_header")


@on_shared
async def test_a_tool_message_says_which_call_it_answers(shared: Shared) -> None:
    body = {"model": "m", "messages": [{"role": "tool", "content": "12"}]}
    error = await refused(shared.server, CHAT, 400, json=body)
    assert (error["param"], error["code"]) == ("messages[0].tool_call_id", MISSING)


async def test_a_preflight_lets_openais_sdk_in_a_browser_send_its_headers(data: Path) -> None:
    origin = "https://chat.example"
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    asked["Access-Control-Request-Headers"] = "authorization, x-stainless-lang, x-other"
    async with (
        serving(data, cors_origins=(origin,)) as server,
        server.http.options("/v1/responses", headers=asked) as answer,
    ):
        allowed = answer.headers["Access-Control-Allow-Headers"].lower()
    assert "x-stainless-lang" in allowed
    assert "x-other" not in allowed
