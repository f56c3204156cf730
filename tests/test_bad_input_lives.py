"""Bad input to the routes of long lives, and from the model server: never a 500, never a hang, always the envelope.

What gets in must not stop anything either: after all of it every view answers, a restart goes through, and a replay is
equal to the live views. The random parts are seeded: a failure comes back.
"""

import asyncio
import base64
import itertools
import random
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
import structlog
from click.testing import CliRunner

from api.problem import MESSAGE_CHARACTERS_MAX, Problem, error_of
from api.routes.table import ROUTES
from api.turns.compress import Compression
from tests.support.raw import RawAnswer, raw
from tests.support.server import KEY, Server, serving
from tests.support.upstream import Message, Reply, Upstream, says
from tools.cli import main

encode = msgspec.json.encode


def envelope_of(answer: RawAnswer) -> dict[str, Any]:
    """The error of an answer that is one."""
    assert answer.headers["x-request-id"].startswith("req_")
    whole = msgspec.json.decode(answer.body)
    assert list(whole) == ["error"]
    error: dict[str, Any] = whole["error"]
    assert list(error) == ["message", "type", "param", "code"]
    assert error["message"]
    return error


async def replay_is_equal(data: Path) -> None:
    """`turnlog replay --verify`, on a stopped server's data."""
    verified = await asyncio.to_thread(CliRunner().invoke, main, ["replay", "--data", str(data), "--verify"])
    assert verified.exit_code == 0, verified.output
    assert "are equal" in verified.output


async def all_is_readable(server: Server) -> list[str]:
    """The ids of all sessions, every view of which has answered."""
    ids, cursor = [], ""
    while True:
        page = await server.get(f"/api/sessions?include_children=1&limit=200{cursor}")
        ids += [session["id"] for session in page["data"]]
        if not page["next_cursor"]:
            break
        cursor = f"&cursor={page['next_cursor']}"
    for session_id in ids:
        for view in ("", "/messages", "/lineage"):
            assert (await raw(server, "GET", f"/api/sessions/{quoted(session_id)}{view}")).status == 200
    await server.get("/api/sessions/search?q=hi")
    return ids


def quoted(name: str) -> str:
    """A path's segment, every byte of it spelled out."""
    return "".join(f"%{byte:02X}" for byte in name.encode())


# Requests


@pytest.mark.parametrize(
    ("header", "status", "code"), [("origin", 403, "origin_not_allowed"), ("x-turnlog-memory", 400, "invalid_value")]
)
@pytest.mark.parametrize("value", [b"\xff\xfe", b"\xed\xa0\x80"])
async def test_a_header_that_is_no_text_is_refused_in_the_envelope(
    server: Server, header: str, status: int, code: str, value: bytes
) -> None:
    body = encode({"messages": [{"role": "user", "content": "hi"}]})
    answer = await raw(server, "POST", "/v1/chat/completions", [(header, value)], body)
    assert (answer.status, envelope_of(answer)["code"]) == (status, code)


@pytest.mark.parametrize("path", ["/api/sessions", "/nowhere"])
@pytest.mark.parametrize("value", [b"x", b"\xff", b"100-continue, x"])
async def test_an_expectation_that_nobody_knows_is_417(server: Server, path: str, value: bytes) -> None:
    answer = await raw(server, "GET", path, [("expect", value)])
    assert (answer.status, envelope_of(answer)["param"]) == (417, "Expect")
    assert (await raw(server, "GET", "/api/sessions", [("expect", b"100-Continue")])).status in (100, 200)


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/api/sessions", [("authorization", f"Bearer {KEY}\x01".encode())]),
        ("/api/sessions", [("authorization", f"Bearer {KEY}".encode() * 1_000)]),
        (f"/api/sessions/search?q={KEY}\x01", []),
        (f"http://[::1/api/sessions/search?q={KEY}", []),
    ],
)
async def test_what_can_not_be_parsed_is_not_told_in_the_log(
    server: Server, path: str, headers: list[tuple[str, bytes]]
) -> None:
    with structlog.testing.capture_logs() as logs:
        answer = await raw(server, "GET", path, headers)
    assert (answer.status, envelope_of(answer)["code"]) == (400, "bad_http")
    assert [line["event"] for line in logs if line["log_level"] != "info"] == ["not a request"]
    assert KEY not in str(logs)


async def test_clients_that_hang_up_are_not_told_as_failures(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: says("lorem " * 50)
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
    with structlog.testing.capture_logs() as logs:
        for number in range(30):
            session = {"X-Hermes-Session-Id": f"s{number % 3}"}
            async with server.http.post("/v1/chat/completions", json=body, headers=session) as response:
                await response.content.readany()
                response.close()
        await server.chat("hi", "after them")
    assert [line["event"] for line in logs if line["log_level"] != "info"] == []


async def test_a_body_that_is_not_packed_as_it_says_is_no_error_of_ours(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await raw(server, "POST", "/v1/runs", [("content-encoding", b"gzip")], b'{"input":"hi"}')
    assert (answer.status, envelope_of(answer)["code"]) == (400, "invalid_body")
    await server.get("/api/sessions")
    assert caplog.records == []


async def test_what_is_said_back_of_a_request_is_bounded(server: Server) -> None:
    answer = await raw(server, "GET", "/api/sessions?limit=" + "x" * 8_000)
    assert len(envelope_of(answer)["message"]) == MESSAGE_CHARACTERS_MAX + 1
    assert error_of(Problem("a" * MESSAGE_CHARACTERS_MAX)).message == "a" * MESSAGE_CHARACTERS_MAX


DEEP = b"[" * 5_000 + b"]" * 5_000
VALUES = (
    *(b"null", b"true", b"0", b"-1", b"1e999", b"1" + b"0" * 400, b"1.5", b"9223372036854775808", b'""', b'" "'),
    *(b'"\\ud800"', b'"\\u0000"', b'"\xff"', b'"\\ue000"', b'"\\u202e"', b'"' + b"x" * 3_000 + b'"', b'"a/b"', b'".."'),
    *(b"[]", b"{}", b"[null]", b"[1]", b'[""]', b"[{}]", b'{"":1}', DEEP, DEEP[4_100:5_900], b'{"a":1,"a":2}', b'"m"'),
    *(b'[{"type":"text","text":"hi"}]', b'[{"type":"input_text"}]', b'[{"role":"user","content":"\\u0000hi"}]'),
    *(b'[{"type":"reasoning"}]', b'[{"role":"assistant","content":"so"},{"role":"user","content":"hi"}]'),
    *(b'[{"type":"function_call","call_id":"","name":"","arguments":"{"},{"role":"user","content":"hi"}]', b'"conv_x"'),
)
FIELDS = (
    *("messages", "input", "model", "stream", "store", "instructions", "previous_response_id", "conversation"),
    *("conversation_history", "user", "metadata", "session_id", "id", "title", "system_prompt", "message", "focus"),
    *("system_message", "end_reason", "turn_id", "tools", "tool_choice", "context_management", "text", "\\ud800"),
)
SEGMENTS = (
    *("%00", "%ff", "%ED%A0%80", "..", "%2e%2e", "%2F", "a%2Fb", "%20", "%0d%0a", "x" * 3_000, "'", "%", "*", "search"),
    *("resp_", "run_", "resp_%00", "run_%00", "conv_x", "%EE%80%80", "-1", "0"),
)
QUERY_VALUES = (
    *("", "0", "-1", "1.5", "9" * 40, "%00", "%ff", "%ED%A0%80", "%2B1", "%D9%A3", "true", "maybe", "x" * 600, "%22"),
    *("*", "a*", "%22a*", "AND", "NEAR%28", "a%20OR%20b", "%5Ea", "said%3Aa", "%EE%80%80t", "e%CC%81", "%CC%81*", "hi"),
)
CURSORS = (
    *(b"[]", b"null", b'[1,"\\ud800",2]', b'[1,"\\u0000",2]', b'[-1,"a",1]', b'[9223372036854775808,"a",1]', b"\xff"),
    *(b'[1.0,"a",1]', b'[true,"a",1]', b'[1,"a",1,2]', DEEP[3_000:7_000]),
)
HEADERS = (
    *("x-hermes-session-id", "x-hermes-session-key", "x-hermes-user-id", "idempotency-key", "x-turnlog-memory"),
    *("last-event-id", "content-type", "content-encoding", "accept-encoding", "origin", "range", "cookie", "expect"),
)
HEADER_VALUES = (
    *(b"", b" ", b"x", b"on", b"0", b"-1", b"9" * 40, b"1.5", b"\xff\xfe", b"\xc3\xa9", b"x" * 257, b"..", b"a/b"),
    *(b"gzip", b"br", b"100-continue", b"key-1", b"\xd9\xa3", b"+1", b"\xed\xa0\x80", b"\xee\x80\x80"),
)
GOOD = {
    "chat_completions": {"messages": b'[{"role":"user","content":"hi"}]'},
    "responses": {"input": b'"hi"'},
    "runs": {"input": b'"hi"'},
    "session_chat": {"message": b'"hi"'},
    "session_chat_stream": {"message": b'"hi"'},
}


class Fuzz:
    """Requests that are mostly wrong, about what earlier ones have made."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311
        self.known: dict[str, list[str]] = {"session_id": [], "response_id": [], "run_id": []}

    async def send(self, server: Server) -> None:
        """One request; what it makes is learned of."""
        route = self.chance.choice(ROUTES)
        method, path, name = route.method, route.path, route.name
        if self.chance.random() < 0.05:
            method = self.chance.choice(("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
        path, headers, body = self._path(path), self._headers(), self._body(method, name)
        answer = await raw(server, method, path, headers, body)
        assert answer.status < 500, (method, path, headers, body[:300], answer.body)
        if answer.status >= 400:
            envelope_of(answer)
        elif answer.headers.get("content-type", "").startswith("application/json"):
            self._learn(msgspec.json.decode(answer.body), answer.headers)

    def _learn(self, said: dict[str, Any], headers: dict[str, str]) -> None:
        named = {"session_id": headers.get("x-hermes-session-id"), "run_id": said.get("run_id")}
        named |= {"response_id": said.get("id") if said.get("object") == "response" else None}
        for kind, name in named.items():
            if name:
                self.known[kind] = [*self.known[kind][-10:], quoted(name)]

    def _path(self, path: str) -> str:
        for kind, names in self.known.items():
            known = self.chance.choice(names) if names and self.chance.random() < 0.75 else None
            path = path.replace(f"{{{kind}}}", known or self.chance.choice(SEGMENTS))
        return path + "?" + "&".join(self._parameter() for _ in range(self.chance.randrange(3)))

    def _parameter(self) -> str:
        name = self.chance.choice(("limit", "offset", "cursor", "q", "q", "source", "include_children", "erase"))
        if name == "cursor":
            return "cursor=" + base64.urlsafe_b64encode(self.chance.choice(CURSORS)).decode().rstrip("=")
        return f"{name}={self.chance.choice(QUERY_VALUES)}"

    def _headers(self) -> list[tuple[str, bytes]]:
        count = self.chance.choice((0, 0, 0, 1, 1, 2))
        return [(self.chance.choice(HEADERS), self.chance.choice(HEADER_VALUES)) for _ in range(count)]

    def _body(self, method: str, name: str) -> bytes:
        if method not in ("POST", "PATCH"):
            return b""
        if self.chance.random() < 0.1:
            return self.chance.choice((b"", b"{", b"\xff", b"[1]", b"\xef\xbb\xbf{}", *VALUES))
        items = list(GOOD.get(name, {}).items())
        for _ in range(self.chance.choice((0, 1, 1, 2))):
            field = self.chance.choice(FIELDS)
            if self.chance.random() < 0.9:
                items = [item for item in items if item[0] != field]
            items.append((field, self.chance.choice(VALUES)))
        return b"{" + b",".join(b'"%b":%b' % (field.encode(), value) for field, value in items) + b"}"


async def test_no_request_breaks_anything(data: Path) -> None:
    fuzz = Fuzz(3)
    async with serving(data) as server:
        for _ in range(150):
            await asyncio.gather(*(fuzz.send(server) for _ in range(8)))
        before = await all_is_readable(server)
        assert len(before) > 20
    await replay_is_equal(data)
    async with serving(data) as server:
        assert await all_is_readable(server) == before


# What a model server says


def calling(**call: Any) -> Message:
    """A message with a tool call."""
    return {"role": "assistant", "content": None, "tool_calls": [{"index": 0, "id": "c"} | call]}


ODD_ANSWERS: dict[str, Message] = {
    "a role that is a list": {"role": ["assistant"], "content": "a"},
    "a role that is an object": {"role": {"a": 1}, "content": "a"},
    "a part whose type is a list": {"role": "assistant", "content": [{"type": ["text"], "text": "a"}]},
    "a part whose type is an object": {"role": "assistant", "content": [{"type": {}, "text": "a"}]},
    "a part whose text is a number": {"role": "assistant", "content": [{"type": "text", "text": 5}]},
    "a custom call that is a text": calling(custom="x"),
    "a custom call that is a list": calling(custom=["x"]),
    "a call's names that are no names": calling(id=["c"], type={}, function={"name": 5, "arguments": [5]}),
    "arguments that are a huge number": calling(function={"name": "f", "arguments": "1" + "0" * 400}),
    "arguments that are nested deeply": calling(function={"name": "f", "arguments": "[" * 3_000}),
}


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("message", ODD_ANSWERS.values(), ids=ODD_ANSWERS.keys())
async def test_an_odd_answer_is_an_answer(
    server: Server, upstream: Upstream, message: Message, *, stream: bool
) -> None:
    upstream.script = lambda _: Reply(message=message, pieces=[message])
    hi = {"role": "user", "content": "hi"}
    asked = [
        ("/v1/responses", encode({"input": "hi", "stream": stream})),  # first: it takes no message where a call waits
        ("/v1/chat/completions", encode({"messages": [hi], "stream": stream})),
        ("/api/sessions/s/chat" + ("/stream" if stream else ""), b'{"message":"hi"}'),
    ]
    for path, body in asked:
        answer = await raw(server, "POST", path, [("x-hermes-session-id", b"s")], body)
        assert answer.status == 200, answer.body
        assert b"internal_error" not in answer.body
    assert [entry["status"] for entry in await server.messages("s")] == ["completed"] * 6
    assert await all_is_readable(server) == ["s"]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
async def test_a_delta_that_is_nested_too_deeply_is_the_model_servers_fault(
    server: Server, upstream: Upstream, path: str
) -> None:
    deep = msgspec.Raw(b"[" * 800 + b"]" * 800)
    upstream.script = lambda _: Reply(pieces=[{"role": "assistant", "content": "a", "x": deep}])
    body = {"messages": [{"role": "user", "content": "hi"}], "input": "hi", "stream": True}
    answer = await raw(server, "POST", path, (), encode(body))
    assert (answer.status, envelope_of(answer)["code"]) == (502, "upstream_garbage")


# Many at once


class Crowd:
    """Clients of a few sessions. `told` are the answers that they were given: session, answer."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)  # noqa: S311
        self.numbers = itertools.count(1)
        self.told: list[tuple[str, str]] = []
        self.twice: list[list[str]] = []

    def script(self, body: dict[str, Any]) -> Reply:
        """A model server that fails, refuses, breaks off, and numbers its answers."""
        asked = [str(message["content"]) for message in body["messages"] if message["role"] == "user"]
        counted = Counter(text for text in asked if text.startswith("U"))
        self.twice += [[text] for text, count in counted.items() if count > 1]
        luck = self.chance.random()
        if luck < 0.05:
            return Reply(status=self.chance.choice((400, 429, 500)), body={"error": {"message": "no"}})
        if luck < 0.1:
            return Reply(raw=b"garbage")
        broken = 2 if luck < 0.2 else None
        return says(f"A{next(self.numbers)} " + "lorem " * self.chance.randrange(30), break_after=broken)

    async def act(self, server: Server) -> None:
        """One request of any kind."""
        session_id = f"s{self.chance.randrange(5)}"
        said = f"U{next(self.numbers)} " + "ipsum " * self.chance.randrange(30)
        kind = self.chance.randrange(8)
        if kind == 0:
            await server.http.post(f"/api/sessions/{session_id}/compress")
        elif kind == 1:
            await server.http.post(f"/api/sessions/{session_id}/fork", json={})
        elif kind == 2:
            await self._hang_up(server, session_id, said)
        elif kind == 3:
            await self._tell(server, f"/api/sessions/{session_id}/chat", {"message": said}, {})
        elif kind == 4:
            body = {"input": said, "conversation": f"slug {session_id}"}
            await self._tell(server, "/v1/responses", body, {})
        else:
            headers = {"X-Hermes-Session-Id": session_id, "X-Hermes-Session-Key": "k"}
            await self._tell(server, "/v1/chat/completions", {"messages": [{"role": "user", "content": said}]}, headers)

    async def _tell(self, server: Server, path: str, body: dict[str, Any], headers: dict[str, str]) -> None:
        headers["Idempotency-Key"] = f"key-{next(self.numbers)}"
        for _ in range(2):  # the second time is a retry, or tells the same again
            async with server.http.post(path, json=body, headers=headers) as response:
                answer = await response.json()
                assert response.status != 500, answer
        if response.status == 200:
            found = answer.get("choices") or answer.get("output") or [answer]
            content = found[0]["message"]["content"] if "message" in found[0] else found[0]["content"][0]["text"]
            self.told.append((response.headers["X-Hermes-Session-Id"], content.split(" ")[0] + " "))

    async def _hang_up(self, server: Server, session_id: str, said: str) -> None:
        body = {"messages": [{"role": "user", "content": said}], "stream": True}
        async with server.http.post(
            "/v1/chat/completions", json=body, headers={"X-Hermes-Session-Id": session_id}
        ) as response:
            await response.content.readany()
            response.close()


async def test_every_answer_that_was_told_is_in_its_session_once(data: Path, upstream: Upstream) -> None:
    crowd = Crowd(5)
    upstream.script = crowd.script
    settings: dict[str, Any] = {
        "upstream": upstream.url,
        "compression": Compression(context_tokens=900),
        "responses_max": 5,
    }
    for _ in range(3):
        async with serving(data, **settings) as server:
            for _ in range(12):
                await asyncio.gather(*(crowd.act(server) for _ in range(8)))
    async with serving(data, **settings) as server:
        said = {session_id: await completed(server, session_id) for session_id in {sid for sid, _ in crowd.told}}
        generations = [(await server.get(f"/api/sessions/{sid}/lineage"))["generations"] for sid in said]
    assert len(crowd.told) > 50
    assert [(sid, text) for sid, text in crowd.told if said[sid].count(text) != 1] == []
    assert crowd.twice == []
    assert max(map(len, generations)) > 2
    await replay_is_equal(data)


async def completed(server: Server, session_id: str) -> list[str]:
    """The first words of all answers in the session that came to their end."""
    messages = await server.messages(session_id)
    assert len(messages) < 500
    said = [message for message in messages if message["role"] == "assistant" and message["status"] == "completed"]
    return [str(message["content"]).split(" ")[0] + " " for message in said]


async def test_a_session_chat_that_waited_while_its_session_was_deleted_is_404(
    server: Server, upstream: Upstream
) -> None:
    await server.http.post("/api/sessions", json={"id": "s"})
    upstream.gate.clear()
    headers = {"Idempotency-Key": "key"}
    first, second = (
        asyncio.create_task(server.http.post("/api/sessions/s/chat", json={"message": "hi"}, headers=headers))
        for _ in range(2)
    )
    await upstream.wait_for_requests(1)
    for _ in range(10):
        await server.get("/health")  # the second request is waiting by now
    assert (await server.http.delete("/api/sessions/s")).status == 200
    upstream.gate.set()
    assert sorted([(await first).status, (await second).status]) == [404, 409]
    await server.get("/api/sessions/s", 404)
