"""The WebSocket of /v1/responses: turns over one connection, with the official SDK and with plain frames."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import WSMsgType

from api import keys
from api.context import KEYRING, SOCKETS
from api.routes import events
from api.settings import BODY_BYTES_MAX
from tests.support.api import call
from tests.support.server import Process, Server, serving
from tests.support.upstream import Upstream, calls, echo, refuses, says

Event = dict[str, Any]
TERMINAL = ("response.completed", "response.incomplete", "response.failed", "response.steer.failed", "error")


class Socket:
    """A client that speaks plain frames."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def send(self, **event: Any) -> None:
        await self.socket.send_json({"type": "response.create", "model": "m"} | event)

    async def event(self) -> Event:
        message = await self.socket.receive(timeout=10)
        assert message.type is WSMsgType.TEXT, message
        event: Event = msgspec.json.decode(message.data)
        return event

    async def events(self) -> list[Event]:
        """All events up to and with the one that ends a turn."""
        events = [await self.event()]
        while events[-1]["type"] not in TERMINAL:
            events.append(await self.event())
        return events

    async def create(self, text: str, **event: Any) -> Event:
        """The response that a turn ends with."""
        await self.send(input=text, **event)
        last = (await self.events())[-1]
        assert last["type"] == "response.completed", last
        response: Event = last["response"]
        return response

    async def refused(self, **event: Any) -> Event:
        """The one event that a refused turn is answered with."""
        await self.send(**event)
        return await self.refusal()

    async def refusal(self) -> Event:
        events = await self.events()
        assert [event["type"] for event in events] == ["error"], events
        assert {"message", "type", "param", "code"} <= set(events[0]["error"])
        assert events[0]["error"]["message"]
        return events[0]

    async def closed(self) -> int:
        """The code that the server closes with."""
        message = await self.socket.receive(timeout=10)
        assert message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED), message
        code = message.data if message.type is WSMsgType.CLOSE else self.socket.close_code
        assert code is not None
        return int(code)


@contextlib.asynccontextmanager
async def connected(server: Server, **headers: str) -> AsyncIterator[Socket]:
    async with server.http.ws_connect("/v1/responses", headers=headers, max_msg_size=0) as socket:
        yield Socket(socket)


def text_of(response: Event) -> str:
    return "".join(part["text"] for item in response["output"] for part in item.get("content", ()))


# The events


async def test_a_turn_is_told_in_the_events_of_a_stream_one_a_frame(server: Server) -> None:
    async with connected(server) as socket:
        await socket.send(input="hello there")
        told = await socket.events()
    async with server.http.post("/v1/responses", json={"input": "hello there", "stream": True}) as response:
        streamed = await response.text()
    kinds = [line.removeprefix("event: ") for line in streamed.splitlines() if line.startswith("event: ")]
    assert [event["type"] for event in told] == kinds
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert text_of(told[-1]["response"]) == "1: hello there"


async def test_the_sdk_has_a_conversation_over_one_connection(server: Server, upstream: Upstream) -> None:
    async with server.openai.responses.connect() as connection:
        previous: str | None = None
        for text in ("one", "two"):
            await connection.response.create(model="m", input=text, previous_response_id=previous)
            async for event in connection:
                if event.type == "response.completed":
                    previous = event.response.id
                    break
        assert previous
        stored = await server.openai.responses.retrieve(previous)
    assert stored.output_text == "3: two"
    assert [len(messages) for messages in upstream.messages] == [1, 3]


async def test_the_sdk_understands_why_a_turn_is_refused(server: Server) -> None:
    async with server.openai.responses.connect() as connection:
        await connection.response.create(model="m", input="hi", previous_response_id="resp_nowhere")
        event = await connection.recv()
        assert event.type == "error"
        assert event.status == 400
        assert event.error.code == "previous_response_not_found"
        assert event.error.param == "previous_response_id"
        await connection.response.steer(input="faster", previous_response_id="resp_nowhere")
        failed = await connection.recv()
    assert failed.type == "response.steer.failed"
    assert failed.error.code == "steering_not_supported"
    assert failed.steer.input == "faster"


async def test_turns_that_are_asked_for_at_once_are_taken_one_after_another(server: Server) -> None:
    async with connected(server) as socket:
        for text in ("one", "two", "three"):
            await socket.send(input=text, conversation="row")
        answers = [text_of((await socket.events())[-1]["response"]) for _ in range(3)]
    assert answers == ["1: one", "3: two", "5: three"]


async def test_a_stream_id_is_said_back_in_every_event_of_its_turn(server: Server) -> None:
    async with connected(server) as socket:
        await socket.send(input="hi", stream_id="agent_1")
        await socket.send(input="hi")
        named, unnamed = await socket.events(), await socket.events()
        refusal = await socket.refused(input="", stream_id="agent_1")
    assert {event.get("stream_id") for event in named} == {"agent_1"}
    assert not any("stream_id" in event for event in unnamed)
    assert refusal["stream_id"] == "agent_1"


async def test_what_http_says_with_stream_and_background_can_be_said_here_too(server: Server) -> None:
    async with connected(server) as socket:
        assert text_of(await socket.create("hi", stream=True, background=False, generate=True)) == "1: hi"


async def test_a_tool_is_called_and_answered_without_anything_being_stored(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda body: calls("look", '{"at":1}') if len(body["messages"]) == 1 else echo(body)
    tools = [{"type": "function", "name": "look", "parameters": {}, "strict": False}]
    async with connected(server) as socket:
        asked = await socket.create("look!", store=False, tools=tools)
        output = {"type": "function_call_output", "call_id": asked["output"][0]["call_id"], "output": "a lamp"}
        await socket.send(input=[output], previous_response_id=asked["id"], store=False, tools=tools)
        answered = (await socket.events())[-1]["response"]
    assert text_of(answered) == "3: a lamp"
    assert [message["role"] for message in upstream.messages[1]] == ["user", "assistant", "tool"]
    assert (await server.get("/api/sessions"))["data"] == []


# What is not stored


async def test_an_unstored_response_is_continued_on_its_connection(server: Server, upstream: Upstream) -> None:
    async with connected(server) as socket:
        first = await socket.create("one", store=False)
        second = await socket.create("two", store=False, previous_response_id=first["id"])
        third = await socket.create("three", store=False, previous_response_id=second["id"])
    assert [len(messages) for messages in upstream.messages] == [1, 3, 5]
    assert third["previous_response_id"] == second["id"]
    assert third["store"] is False
    assert [message["content"] for message in upstream.messages[2]] == ["one", "1: one", "two", "3: two", "three"]
    await call(server, "GET", f"/v1/responses/{third['id']}", 404)
    assert (await server.get("/api/sessions"))["data"] == []


async def test_an_unstored_response_is_unknown_to_any_other_connection(server: Server) -> None:
    async with connected(server) as socket, connected(server) as other:
        first = await socket.create("one", store=False)
        refusal = await other.refused(input="two", store=False, previous_response_id=first["id"])
        assert refusal["error"]["code"] == "previous_response_not_found"
        assert (refusal["status"], refusal["error"]["param"]) == (400, "previous_response_id")
    error = await call(server, "POST", "/v1/responses", 404, json={"input": "two", "previous_response_id": first["id"]})
    assert error["code"] == "previous_response_not_found"


async def test_only_the_newest_unstored_response_is_kept(server: Server) -> None:
    async with connected(server) as socket:
        first = await socket.create("one", store=False)
        await socket.create("two", store=False, previous_response_id=first["id"])
        refusal = await socket.refused(input="again", store=False, previous_response_id=first["id"])
    assert refusal["error"]["code"] == "previous_response_not_found"


async def test_every_lane_keeps_its_newest_which_another_lane_can_fork(server: Server) -> None:
    async with connected(server) as socket:
        main = await socket.create("one", store=False, stream_id="main")
        await socket.create("else", store=False, stream_id="side")
        fork = await socket.create("two", store=False, stream_id="fork", previous_response_id=main["id"])
        on = await socket.create("two", store=False, stream_id="main", previous_response_id=main["id"])
    assert text_of(fork) == text_of(on) == "3: two"


async def test_a_turn_that_failed_takes_the_response_it_went_on_from_with_it(
    server: Server, upstream: Upstream
) -> None:
    async with connected(server) as socket:
        first = await socket.create("one", store=False)
        upstream.script = lambda _: refuses(400)
        await socket.refused(input="two", store=False, previous_response_id=first["id"])
        refusal = await socket.refused(input="two", store=False, previous_response_id=first["id"])
    assert refusal["error"]["code"] == "previous_response_not_found"


async def test_a_stored_response_that_goes_on_from_unstored_ones_is_stored_with_them(
    server: Server, upstream: Upstream
) -> None:
    async with connected(server) as socket:
        first = await socket.create("one", store=False, model="other")
        stored = await socket.create("two", previous_response_id=first["id"], model=None)
        assert stored["previous_response_id"] == first["id"]
        assert stored["model"] == "other"
    answer = await server.openai.responses.create(input="three", previous_response_id=stored["id"], model="m")
    assert answer.output_text == "5: three"
    assert [message["content"] for message in upstream.messages[2]] == ["one", "1: one", "two", "3: two", "three"]


async def test_an_unstored_turn_leaves_the_conversation_that_it_continues_as_it_is(server: Server) -> None:
    base = await server.openai.responses.create(input="one", conversation="home", model="m")
    async with connected(server) as socket:
        aside = await socket.create("two", previous_response_id=base.id, store=False)
        assert text_of(aside) == "3: two"
        assert text_of(await socket.create("three", previous_response_id=aside["id"], store=False)) == "5: three"
    again = await server.openai.responses.create(input="two", conversation="home", model="m")
    assert again.output_text == "3: two"


async def test_what_is_stored_behind_an_unstored_turn_makes_no_conversation_of_its_name(
    server: Server, upstream: Upstream
) -> None:
    async with connected(server) as socket:
        first = await socket.create("one", store=False, conversation="slug")
        stored = await socket.create("two", previous_response_id=first["id"])
    assert [message["content"] for message in upstream.messages[1]] == ["one", "1: one", "two"]
    assert stored["conversation"] is None
    await call(server, "GET", "/v1/conversations/slug", 404)
    answer = await server.openai.responses.create(input="three", previous_response_id=stored["id"], model="m")
    assert answer.output_text == "5: three"


async def test_what_is_stored_behind_an_unstored_turn_of_a_conversation_goes_into_a_session_of_its_own(
    server: Server, upstream: Upstream
) -> None:
    await server.openai.responses.create(input="one", conversation="home", model="m")
    async with connected(server) as socket:
        aside = await socket.create("two", conversation="home", store=False)
        more = await socket.create("three", previous_response_id=aside["id"], store=False)
        stored = await socket.create("four", previous_response_id=more["id"])
    said = ["one", "1: one", "two", "3: two", "three", "5: three", "four"]
    assert [message["content"] for message in upstream.messages[3]] == said
    assert stored["conversation"] is None
    again = await server.openai.responses.create(input="two", conversation="home", model="m")
    assert again.output_text == "3: two"
    on = await server.openai.responses.create(input="five", previous_response_id=stored["id"], model="m")
    assert on.output_text == "9: five"


async def test_what_is_stored_behind_an_unstored_turn_of_an_empty_conversation_leaves_it_empty(server: Server) -> None:
    made = await server.openai.conversations.create()
    async with connected(server) as socket:
        aside = await socket.create("one", conversation=made.id, store=False)
        assert text_of(await socket.create("two", previous_response_id=aside["id"])) == "3: two"
    assert (await server.openai.conversations.items.list(made.id)).data == []


async def test_what_is_kept_for_a_connection_has_a_limit(server: Server) -> None:
    long = "x" * (BODY_BYTES_MAX // 2)
    async with connected(server) as socket:
        first = await socket.create(long, store=False)
        refusal = await socket.refused(input="more", store=False, previous_response_id=first["id"])
    assert refusal["error"]["code"] == "previous_response_not_found"  # it was said twice, by user and model


# Warming up


async def test_a_turn_that_generates_nothing_waits_for_the_one_that_goes_on_from_it(
    server: Server, upstream: Upstream
) -> None:
    async with connected(server) as socket:
        await socket.send(input="the rules", generate=False)
        events = await socket.events()
        assert [event["type"] for event in events] == [
            "response.created",
            "response.in_progress",
            "response.completed",
        ]
        warm = events[-1]["response"]
        assert (warm["output"], warm["status"], warm["store"]) == ([], "completed", False)
        assert upstream.requests == []
        stored = await socket.create("go", previous_response_id=warm["id"])
    assert [message["content"] for message in upstream.messages[0]] == ["the rules", "go"]
    await call(server, "GET", f"/v1/responses/{warm['id']}", 404)
    await call(server, "GET", f"/v1/responses/{stored['id']}", 200)


@pytest.mark.parametrize("nothing", [{}, {"input": None}, {"input": []}])
async def test_a_turn_that_generates_nothing_needs_no_input(server: Server, upstream: Upstream, nothing: Event) -> None:
    async with connected(server) as socket:
        await socket.send(generate=False, instructions="be brief", **nothing)
        warm = (await socket.events())[-1]["response"]
        await socket.create("go", previous_response_id=warm["id"], store=False)
    assert [message["content"] for message in upstream.messages[0]] == ["go"]


async def test_a_turn_that_generates_nothing_is_checked_like_any(server: Server) -> None:
    async with connected(server) as socket:
        refusal = await socket.refused(generate=False, input="hi", previous_response_id="resp_nowhere")
        assert refusal["error"]["code"] == "previous_response_not_found"
        refusal = await socket.refused(generate=False, temperature=9)
        assert refusal["error"]["param"] == "temperature"


# What can not be done


@pytest.mark.parametrize(
    ("event", "param"),
    [
        ({}, "input"),
        ({"input": 5}, "input"),
        ({"input": ""}, "input"),
        ({"input": "hi", "temperature": 9}, "temperature"),
        ({"input": "hi", "background": True}, "background"),
        ({"input": "hi", "background": "yes"}, "background"),
        ({"input": "hi", "generate": "no"}, "generate"),
        ({"input": "hi", "stream_id": ""}, "stream_id"),
        ({"input": "hi", "stream_id": "a b"}, "stream_id"),
        ({"input": "hi", "stream_id": "x" * 257}, "stream_id"),
        ({"input": "hi", "stream_id": 5}, "stream_id"),
        ({"input": "hi", "previous_response_id": 5}, "previous_response_id"),
        ({"input": "hi", "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"type": "response.cancel"}, "type"),
        ({"type": 5}, "type"),
        ({"type": "response.steer", "previous_response_id": "resp_1"}, "input"),
        ({"type": "response.steer", "input": "hi"}, "previous_response_id"),
    ],
)
async def test_what_is_wrong_with_an_event_is_told_and_the_connection_stays(
    server: Server, event: Event, param: str
) -> None:
    async with connected(server) as socket:
        refusal = await socket.refused(**event)
        assert refusal["status"] == 400
        assert refusal["error"]["param"] == param
        assert text_of(await socket.create("still there?")) == "1: still there?"


@pytest.mark.parametrize("frame", ["{", "[]", "5", "", '{"type": "response.create", "input": "\\ud800", "model": "m"}'])
async def test_frames_that_are_no_event_are_told_so(server: Server, frame: str) -> None:
    async with connected(server) as socket:
        await socket.socket.send_str(frame)
        assert (await socket.refusal())["status"] == 400
        assert text_of(await socket.create("still there?")) == "1: still there?"


async def test_binary_frames_are_not_taken(server: Server) -> None:
    async with connected(server) as socket:
        await socket.socket.send_bytes(b'{"type": "response.create", "input": "hi"}')
        assert (await socket.refusal())["error"]["code"] == "invalid_frame"
        assert text_of(await socket.create("still there?")) == "1: still there?"


async def test_text_that_is_not_utf_8_is_not_taken(server: Server) -> None:
    async with connected(server) as socket:
        await socket.socket.send_frame(b'{"type": "response.create", "input": "\xff"}', WSMsgType.TEXT)
        assert (await socket.refusal())["error"]["code"] == "invalid_json"


async def test_a_frame_is_as_large_as_any_body_may_be_and_no_larger(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: says("ok")
    frame = b'{"type":"response.create","model":"m","input":"%s"}'
    padding = BODY_BYTES_MAX - len(frame) + 2
    async with connected(server) as socket:
        await socket.socket.send_frame(frame % (b"x" * padding), WSMsgType.TEXT)
        assert (await socket.events())[-1]["type"] == "response.completed"
        await socket.socket.send_frame(frame % (b"x" * (padding + 1)), WSMsgType.TEXT)
        refusal = await socket.refusal()
        assert (refusal["status"], refusal["error"]["code"]) == (413, "body_too_large")
        assert text_of(await socket.create("still there?")) == "ok"


async def test_a_frame_far_beyond_the_limit_ends_the_connection(server: Server) -> None:
    async with connected(server) as socket:
        with contextlib.suppress(ConnectionError):
            await socket.socket.send_str("x" * (2 * BODY_BYTES_MAX + 1))
        await socket.closed()
    async with connected(server) as socket:
        await socket.create("and a new one can be had")


async def test_no_more_waits_on_a_connection_than_may(server: Server, upstream: Upstream) -> None:
    upstream.gate.clear()
    async with connected(server) as socket:
        await socket.send(input="first")
        await upstream.wait_for_requests(1)
        for number in range(17):
            await socket.send(input=f"waiting {number}", stream_id=f"lane_{number}")
        refusal = await socket.refusal()
        assert (refusal["status"], refusal["error"]["code"]) == (429, "websocket_queue_full")
        assert refusal["stream_id"] == "lane_16"
        upstream.gate.set()
        assert [(await socket.events())[-1]["type"] for _ in range(17)] == ["response.completed"] * 17


async def test_a_connection_has_no_more_lanes_than_may_be(server: Server) -> None:
    async with connected(server) as socket:
        for number in range(32):
            await socket.create("hi", stream_id=f"lane_{number}", generate=False)
        refusal = await socket.refused(input="hi", stream_id="one_more")
        assert refusal["error"]["code"] == "websocket_stream_limit_reached"
        await socket.create("hi", stream_id="lane_0", generate=False)
        await socket.create("hi", generate=False)


async def test_a_refusal_of_the_model_server_is_an_event_with_its_headers(server: Server, upstream: Upstream) -> None:
    async with connected(server) as socket:
        upstream.script = lambda _: msgspec.structs.replace(refuses(429), headers={"retry-after": "7"})
        refusal = await socket.refused(input="hi")
        assert refusal["status"] == 429
        assert refusal["error"]["headers"] == {"retry-after": "7"}
        upstream.script = echo
        assert text_of(await socket.create("again")) == "1: again"


async def test_a_turn_that_fails_after_it_has_begun_ends_with_the_failed_response(
    server: Server, upstream: Upstream
) -> None:
    async with connected(server) as socket:
        upstream.script = lambda _: says("one two three", break_after=2)
        await socket.send(input="hi")
        events = await socket.events()
        assert events[-1]["type"] == "response.failed"
        assert events[-1]["response"]["error"]["code"]
        upstream.script = echo
        assert text_of(await socket.create("again")) == "1: again"


# The connection


async def test_a_client_that_closes_cancels_its_turn(server: Server, upstream: Upstream) -> None:
    upstream.stream_gate_after = 2
    upstream.gate.clear()
    async with connected(server, **{"X-Hermes-Session-Id": "s-1"}) as socket:
        await socket.send(input="one two three four")
        await upstream.wait_for_pieces(2)
        await socket.socket.close()
    upstream.gate.set()
    upstream.stream_gate_after = None
    answer, _ = await server.chat("next", "s-1")
    assert answer["choices"][0]["message"]["content"] == "1: next"
    last = [message for message in await server.messages("s-1") if message["role"] == "user"]
    assert len(last) == 2


async def test_a_client_that_reads_nothing_is_dropped(
    server: Server, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "STALL_S", 0.2)
    upstream.script = lambda _: says("", pieces=[{"content": "x" * 200_000}] * 60)
    async with connected(server, **{"X-Hermes-Session-Id": "s-1"}) as socket:
        await socket.send(input="one")
        await upstream.wait_for_requests(1)
        upstream.script = echo
        answer, _ = await server.chat("next", "s-1")  # waits until the turn before has ended
        assert answer["choices"][0]["message"]["content"] == "1: next"


async def test_the_headers_of_the_handshake_hold_for_all_turns(server: Server) -> None:
    async with connected(server, **{"X-Hermes-Session-Id": "s-1", "X-Hermes-User-Id": "ada"}) as socket:
        assert text_of(await socket.create("one")) == "1: one"
        assert text_of(await socket.create("two")) == "3: two"
    answer, _ = await server.chat("three", "s-1")
    assert answer["choices"][0]["message"]["content"] == "5: three"


async def test_a_connection_ends_after_an_hour_and_not_within_a_turn(server: Server, upstream: Upstream) -> None:
    assert server.app is not None
    upstream.gate.clear()
    async with connected(server) as socket:
        await socket.send(input="first")
        await upstream.wait_for_requests(1)
        server.app[SOCKETS].connection_s = 0.0
        await socket.send(input="second")
        upstream.gate.set()
        assert text_of((await socket.events())[-1]["response"]) == "1: first"
        refusal = await socket.refusal()
        assert (refusal["status"], refusal["error"]["code"]) == (400, "websocket_connection_limit_reached")
        assert await socket.closed() == 1001
    assert len(upstream.requests) == 1


async def test_an_idle_connection_ends_too(server: Server) -> None:
    assert server.app is not None
    server.app[SOCKETS].connection_s = 0.0
    async with connected(server) as socket:
        assert (await socket.refusal())["error"]["code"] == "websocket_connection_limit_reached"
        assert await socket.closed() == 1001


async def test_a_silent_client_is_pinged(data: Path) -> None:
    async with (
        serving(data, keepalive_s=0.01) as server,
        server.http.ws_connect("/v1/responses", autoping=False) as socket,
    ):
        assert (await socket.receive(timeout=10)).type is WSMsgType.PING


async def test_a_key_that_is_revoked_opens_no_more_turns(data: Path) -> None:
    data.mkdir()
    authorization = f"Bearer {keys.add(data, 'bridge')}"
    async with serving(data) as server, connected(server, authorization=authorization) as socket:
        await socket.create("one")
        keys.revoke(data, "bridge")
        assert server.app is not None
        server.app[KEYRING]._look_again = 0.0  # as a second later
        refusal = await socket.refused(input="two")
    assert (refusal["status"], refusal["error"]["code"]) == (401, "invalid_api_key")


async def test_a_server_that_stops_closes_its_sockets_once_their_turns_are_done(
    start: Callable[..., Awaitable[Process]], upstream: Upstream
) -> None:
    process = await start()
    upstream.gate.clear()
    async with connected(process.server) as idle, connected(process.server) as busy:
        await busy.send(input="last")
        await upstream.wait_for_requests(1)
        stopping = asyncio.create_task(process.terminate())
        event: Event = {}
        while event.get("type") != "error":  # until the signal has come through
            await idle.send(generate=False)
            event = (await idle.events())[-1]
        assert (event["status"], event["error"]["code"]) == (503, "shutting_down")
        upstream.gate.set()
        assert text_of((await busy.events())[-1]["response"]) == "1: last"
        assert await busy.closed() == 1001
        assert await idle.closed() == 1001
        assert await stopping == 0


# The handshake


async def test_a_plain_get_is_told_to_upgrade(server: Server) -> None:
    async with server.http.get("/v1/responses") as response:
        assert response.status == 426
        assert response.headers["upgrade"] == "websocket"
        assert (await response.json())["error"]["code"] == "upgrade_required"
    assert (await call(server, "PUT", "/v1/responses", 405))["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"authorization": "Bearer wrong"}, 401, "invalid_api_key"),
        ({"origin": "https://evil.example"}, 403, "origin_not_allowed"),
        ({"X-Hermes-Session-Id": "a/b"}, 400, "invalid_session_id"),
        ({"Idempotency-Key": "k"}, 400, "unsupported_header"),
        ({"sec-websocket-version": "1"}, 400, "bad_handshake"),
        ({"sec-websocket-key": "short"}, 400, "bad_handshake"),
    ],
)
async def test_a_handshake_is_refused_in_the_envelope(
    server: Server, headers: dict[str, str], status: int, code: str
) -> None:
    handshake = {
        "upgrade": "websocket",
        "connection": "upgrade",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    error = await call(server, "GET", "/v1/responses", status, headers=handshake | headers)
    assert error["code"] == code


async def test_no_more_sockets_are_open_than_may_be(server: Server) -> None:
    assert server.app is not None
    server.app[SOCKETS].sockets_max = 1
    async with connected(server):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            async with connected(server):
                pass
        assert refused.value.status == 429
    async with connected(server) as socket:
        await socket.create("hi")


async def test_a_listed_page_may_open_a_socket(data: Path) -> None:
    page = "https://chat.example"
    async with serving(data, cors_origins=(page,)) as server, connected(server, origin=page) as socket:
        await socket.create("hi")


async def test_the_answer_to_a_handshake_has_a_request_id(server: Server) -> None:
    async with connected(server) as socket:
        response = socket.socket._response
        assert response.headers["x-request-id"].startswith("req_")
