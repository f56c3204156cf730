"""/api/sessions/{id}/chat and /chat/stream over HTTP, in the shapes that clients of the older system know."""

import asyncio
from typing import Any

import pytest

from tests.support.api import SentEvent, call, events_of, rotate
from tests.support.server import Server
from tests.support.upstream import Upstream, calls, refuses, says

CHATS = ["chat", "chat/stream"]


async def made(server: Server, **body: Any) -> str:
    """The path of a session without turns."""
    await call(server, "POST", "/api/sessions", 201, json={"id": "s1"} | body)
    return "/api/sessions/s1"


async def streamed(server: Server, path: str, **body: Any) -> list[SentEvent]:
    """The events of a streamed turn; what holds for all of them holds."""
    async with server.http.post(f"{path}/chat/stream", json={"message": "hello"} | body) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        effective = answer.headers["X-Hermes-Session-Id"]
        events = events_of(await answer.read())
    assert [event.data["seq"] for event in events] == list(range(1, len(events) + 1))
    assert {event.data["session_id"] for event in events} == {effective}
    assert len({event.data["run_id"] for event in events}) == 1
    times = [event.data["ts"] for event in events]
    assert times == sorted(times)
    return events


async def test_a_message_is_answered(server: Server, upstream: Upstream) -> None:
    path = await made(server)
    headers = {"X-Hermes-Session-Key": "k", "X-Hermes-User-Id": "ada"}
    async with server.http.post(f"{path}/chat", json={"message": "hello"}, headers=headers) as answer:
        assert answer.status == 200
        assert await answer.json() == {
            "object": "hermes.session.chat.completion",
            "session_id": "s1",
            "message": {"role": "assistant", "content": "1: hello"},
            "usage": {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18},
        }
        assert {name: answer.headers[name] for name in headers} == headers
        assert answer.headers["X-Hermes-Session-Id"] == "s1"
    await call(server, "POST", f"{path}/chat", 200, json={"input": "again", "stream": True, "temperature": 9})
    assert [message["content"] for message in upstream.messages[-1]] == ["hello", "1: hello", "again"]
    assert len(await server.messages("s1")) == 4


@pytest.mark.parametrize("chat", CHATS)
async def test_instructions_and_model_are_this_turns_alone(server: Server, upstream: Upstream, chat: str) -> None:
    path = await made(server, system_prompt="Be kind.", model="m9")
    for body in ({"system_message": "Be brief.", "model": "m2"}, {"instructions": "Be long."}, {}):
        async with server.http.post(f"{path}/{chat}", json={"message": "hello"} | body) as answer:
            assert answer.status == 200
            await answer.read()
    assert [request["model"] for request in upstream.requests] == ["m2", "m9", "m9"]
    systems = [[message["content"] for message in sent if message["role"] == "system"] for sent in upstream.messages]
    assert systems == [["Be kind.", "Be brief."], ["Be kind.", "Be long."], ["Be kind."]]


@pytest.mark.parametrize("chat", CHATS)
async def test_parts_are_sent_as_a_chat_names_them(server: Server, upstream: Upstream, chat: str) -> None:
    upstream.script = lambda _: says("ok")
    path = await made(server)
    url = "data:image/png;base64,AA=="
    for message, sent in (
        ([{"type": "input_text", "text": "hello"}], "hello"),
        (
            [{"type": "text", "text": "look"}, {"type": "input_image", "image_url": url, "detail": "low"}],
            [{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": url, "detail": "low"}}],
        ),
        ([{"type": "image_url", "image_url": {"url": url}}], [{"type": "image_url", "image_url": {"url": url}}]),
    ):
        async with server.http.post(f"{path}/{chat}", json={"message": message}) as answer:
            assert answer.status == 200
            await answer.read()
        assert upstream.messages[-1][-1] == {"role": "user", "content": sent}


async def test_any_id_of_the_lineage_leads_to_its_tip(server: Server, upstream: Upstream) -> None:
    path = await made(server)
    await call(server, "POST", f"{path}/chat", 200, json={"message": "one"})
    await rotate(server, "s1", "s2", tail=2)
    answer = await call(server, "POST", f"{path}/chat", 200, json={"message": "two"})
    assert answer["session_id"] == "s2"
    assert {event.data["session_id"] for event in await streamed(server, path)} == {"s2"}
    assert [message["content"] for message in upstream.messages[1]] == ["summary of s1", "one", "1: one", "two"]


async def test_a_turn_is_streamed_in_named_events(server: Server, upstream: Upstream) -> None:
    path = await made(server)
    upstream.script = lambda _: says("one two three")
    events = await streamed(server, path)
    started, message, *deltas, completed, ran, done = events
    assert (started.name, started.data["user_message"]) == ("run.started", {"role": "user", "content": "hello"})
    assert (message.name, message.data["message"]["role"]) == ("message.started", "assistant")
    message_id = message.data["message"]["id"]
    assert [(delta.name, delta.data["message_id"]) for delta in deltas] == [("assistant.delta", message_id)] * 3
    assert [delta.data["delta"] for delta in deltas] == ["one", " two", " three"]
    told = {name: completed.data[name] for name in ("message_id", "content", "completed", "partial", "interrupted")}
    assert completed.name == "assistant.completed"
    assert told == {
        "message_id": message_id,
        "content": "one two three",
        "completed": True,
        "partial": False,
        "interrupted": False,
    }
    assert (ran.name, ran.data["completed"], ran.data["message_id"]) == ("run.completed", True, message_id)
    assert ran.data["messages"] == [{"role": "assistant", "content": "one two three"}]
    assert ran.data["usage"] == {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}
    assert (done.name, set(done.data)) == ("done", {"session_id", "run_id", "seq", "ts"})
    turn_id = (await server.messages("s1"))[0]["turn_id"]
    assert {event.data["run_id"] for event in events} == {f"run_{turn_id}"}


async def test_a_turn_that_is_cut_short_says_that_it_is_partial(server: Server, upstream: Upstream) -> None:
    path = await made(server)
    upstream.script = lambda _: says("half", finish_reason="length")
    completed = next(event for event in await streamed(server, path) if event.name == "assistant.completed")
    assert (completed.data["completed"], completed.data["partial"]) == (True, True)


async def test_a_tool_that_the_model_wants_called_is_told_of(server: Server, upstream: Upstream) -> None:
    path = await made(server)
    upstream.script = lambda _: calls("find", '{"q": "x"}')
    events = await streamed(server, path)
    tool = events[2]
    assert [event.name for event in events][2:] == ["tool.started", "assistant.completed", "run.completed", "done"]
    assert (tool.data["tool_name"], tool.data["preview"], tool.data["args"]) == ("find", '{"q": "x"}', {"q": "x"})
    assert events[-2].data["messages"][0]["tool_calls"][0]["function"]["name"] == "find"
    answer = await call(server, "POST", f"{path}/chat", 200, json={"message": "again"})
    assert answer["message"]["content"] == ""
    assert answer["message"]["tool_calls"][0]["id"] == "call_1"


async def test_a_stream_that_breaks_off_ends_with_an_error_and_done(server: Server, upstream: Upstream) -> None:
    path = await made(server)
    upstream.script = lambda _: says("one two three", break_after=2)
    *_, error, done = await streamed(server, path)
    assert (error.name, done.name) == ("error", "done")
    assert error.data["message"]
    assert (await server.messages("s1"))[0]["status"] == "failed"


@pytest.mark.parametrize("chat", CHATS)
async def test_what_the_model_refuses_is_answered_plainly(server: Server, upstream: Upstream, chat: str) -> None:
    path = await made(server)
    upstream.script = lambda _: refuses(429, "too many")
    error = await call(server, "POST", f"{path}/{chat}", 429, json={"message": "hello"})
    assert error["message"] == "too many"


@pytest.mark.parametrize("chat", CHATS)
async def test_parallel_messages_are_taken_one_by_one(server: Server, upstream: Upstream, chat: str) -> None:
    path = await made(server)

    async def say(number: int) -> None:
        async with server.http.post(f"{path}/{chat}", json={"message": f"{number}"}) as answer:
            assert answer.status == 200
            await answer.read()

    await asyncio.gather(*(say(number) for number in range(6)))
    assert [message["role"] for message in await server.messages("s1")] == ["user", "assistant"] * 6
    assert sorted(len(sent) for sent in upstream.messages) == [1, 3, 5, 7, 9, 11]


@pytest.mark.parametrize("chat", CHATS)
@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "message", "missing_message"),
        ({"message": ""}, "message", "missing_message"),
        ({"message": None, "input": []}, "message", "missing_message"),
        ({"message": "  "}, "message", "empty_message"),
        ({"input": " "}, "input", "empty_message"),
        ({"message": 1}, "message", "invalid_value"),
        ({"message": {"role": "user"}}, "message", "invalid_value"),
        ({"message": ["x"]}, "message[0]", "invalid_value"),
        ({"message": [{"text": "x"}]}, "message[0].type", "missing_required_parameter"),
        ({"message": [{"type": "text"}]}, "message[0].text", "missing_required_parameter"),
        ({"message": "x", "system_message": 1}, "system_message", "invalid_system_message"),
        ({"message": "x", "instructions": ["x"]}, "instructions", "invalid_system_message"),
        ({"message": "x", "model": 1}, "model", "invalid_value"),
        ({"message": "x", "user": 1}, "user", "invalid_value"),
    ],
    ids=lambda value: ascii(value)[:40],
)
async def test_a_message_that_is_wrong_is_400_and_sends_nothing(
    server: Server, upstream: Upstream, chat: str, body: dict[str, Any], param: str, code: str
) -> None:
    path = await made(server)
    error = await call(server, "POST", f"{path}/{chat}", 400, json=body)
    assert (error["param"].replace("[...]", "[0]"), error["code"]) == (param, code)
    assert upstream.requests == []
    assert await server.messages("s1") == []
