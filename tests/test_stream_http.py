"""Streams over HTTP: a real server, the real SDK, and a model server that thinks, refuses, calls and breaks off."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import Server, serving
from tests.support.upstream import Reply, Upstream, refuses, scripted_upstream

OPENS = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}
CUSTOM = {"index": 1, "id": "call_2", "type": "custom", "custom": {"name": "sql", "input": ""}}
ANNOTATION = {"type": "url_citation", "url_citation": {"start_index": 0, "end_index": 2, "title": "t", "url": "u"}}
EVERYTHING: list[dict[str, Any]] = [
    {"role": "assistant", "content": ""},
    {"reasoning_content": "let me"},
    {"reasoning_content": " think"},
    {"reasoning_summary": [{"index": 0, "text": "It"}]},
    {"reasoning_summary": [{"index": 0, "text": " thinks"}]},
    {"reasoning_items": [{"index": 0, "type": "reasoning", "id": "rs_up", "encrypted_content": "secret"}]},
    {"content": "so"},
    {"content": " be it"},
    {"annotations": [ANNOTATION]},
    {"refusal": "not "},
    {"refusal": "that"},
    {"tool_calls": [OPENS]},
    {"tool_calls": [{"index": 0, "function": {"arguments": '{"x"'}}]},
    {"tool_calls": [CUSTOM]},
    {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]},
    {"tool_calls": [{"index": 1, "custom": {"input": "SELECT 1"}}]},
    {"content": " and so on"},
]
TOLD = {
    *("created", "in_progress", "completed", "output_item.added", "output_item.done"),
    *("content_part.added", "content_part.done", "output_text.delta", "output_text.done"),
    *("output_text.annotation.added", "refusal.delta", "refusal.done", "reasoning_text.delta", "reasoning_text.done"),
    *("reasoning_summary_part.added", "reasoning_summary_part.done"),
    *("reasoning_summary_text.delta", "reasoning_summary_text.done"),
    *("function_call_arguments.delta", "function_call_arguments.done"),
    *("custom_tool_call_input.delta", "custom_tool_call_input.done"),
}


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with scripted_upstream() as running:
        yield running


@pytest.fixture
async def server(tmp_path: Path, upstream: Upstream) -> AsyncIterator[Server]:
    async with serving(tmp_path, upstream=upstream.url) as running:
        yield running


async def raw(server: Server, path: str, body: dict[str, Any], **headers: str) -> tuple[bytes, dict[str, str]]:
    """The bytes of a stream, and the headers of its answer."""
    async with server.http.post(path, json=body, headers=headers) as response:
        assert response.status == 200, await response.text()
        return await response.read(), dict(response.headers)


async def test_the_sdk_reads_every_event_as_what_it_is(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: Reply(pieces=EVERYTHING, finish_reason="tool_calls")
    stream = await server.openai.responses.create(model="m", input="one", stream=True)
    events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert {event.type.removeprefix("response.") for event in events} == TOLD
    for event in events:
        fields = event.model_dump(by_alias=True)
        fields.get("response", {}).pop("usage", None)
        again = type(event).model_validate(fields)  # the SDK itself reads leniently
        assert set(again.model_extra or {}) <= {"name"}, event.type
    final = await server.openai.responses.retrieve(events[-1].response.id)  # type: ignore[union-attr]
    assert final.model_dump() == events[-1].response.model_dump()  # type: ignore[union-attr]
    kinds = [item.type for item in final.output]
    assert kinds == ["reasoning", "message", "function_call", "custom_tool_call", "message"]


async def test_the_sdks_stream_helper_puts_the_answer_together(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: Reply(pieces=EVERYTHING, finish_reason="tool_calls")
    async with server.openai.responses.stream(model="m", input="one") as events:
        async for _ in events:
            pass
        final = await events.get_final_response()
    assert final.output_text == "so be it and so on"


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/chat/completions"])
@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(EVERYTHING[:3] + EVERYTHING[6:8], id="reasoning"),
        pytest.param([{"role": "assistant", "content": None}, *EVERYTHING[11:13]], id="a call"),
        pytest.param([{"role": "assistant", "content": None}, *EVERYTHING[11:16], {"content": "x"}], id="two calls"),
        pytest.param([{"role": "assistant", "content": ""}, {"refusal": "no"}], id="a refusal"),
        pytest.param([{"role": "assistant", "content": ""}, {"content": "é𝕏"}, {"content": " ü"}], id="text"),
    ],
)
async def test_a_stream_asked_for_again_is_the_same_byte_for_byte(
    server: Server, upstream: Upstream, path: str, pieces: list[dict[str, Any]]
) -> None:
    upstream.script = lambda _: Reply(pieces=pieces)
    asked: dict[str, Any] = {"model": "m", "stream": True}
    if path == "/v1/responses":
        asked["input"] = "one"
    else:
        asked |= {"messages": [{"role": "user", "content": "one"}], "stream_options": {"include_usage": True}}
    live, first = await raw(server, path, asked, **{"Idempotency-Key": "k"})
    again, second = await raw(server, path, asked, **{"Idempotency-Key": "k"})
    assert len(upstream.requests) == 1
    assert ("Idempotency-Replayed" in first, second["Idempotency-Replayed"]) == (False, "true")
    assert again == live


async def test_a_slow_model_is_bridged_by_comments_that_the_sdk_reads_over(tmp_path: Path, upstream: Upstream) -> None:
    upstream.script = lambda _: Reply(pieces=EVERYTHING, finish_reason="tool_calls")
    upstream.stream_gate_after = 0
    upstream.gate.clear()
    async with serving(tmp_path, upstream=upstream.url, keepalive_s=0.01) as server:
        asked = {"model": "m", "input": "one", "stream": True}
        async with server.http.post("/v1/responses", json=asked) as response:
            assert await response.content.readuntil(b"\n\n") == b": keepalive\n\n"
            reading = asyncio.create_task(_text_of(server))
            await upstream.wait_for_requests(2)
            upstream.gate.set()
            told = await response.read()
        assert told.startswith((b"event: response.created\n", b": keepalive\n\n"))
        assert await reading == "so be it and so on"


async def _text_of(server: Server) -> str:
    stream = await server.openai.responses.create(model="m", input="two", stream=True)
    return "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])


async def test_a_failure_before_the_first_event_is_a_plain_answer(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: refuses(422, "no such thing", code="bad")
    async with server.http.post("/v1/responses", json={"model": "m", "input": "one", "stream": True}) as response:
        error = (await response.json())["error"]
        assert (response.status, response.content_type, error["code"]) == (422, "application/json", "bad")


async def test_a_failure_behind_a_comment_is_told_in_the_stream(tmp_path: Path, upstream: Upstream) -> None:
    upstream.script = lambda _: refuses(422, "no such thing", code="bad")
    upstream.gate.clear()
    async with serving(tmp_path, upstream=upstream.url, keepalive_s=0.01) as server:
        asked = {"model": "m", "input": "one", "stream": True}
        async with server.http.post("/v1/responses", json=asked) as response:
            assert await response.content.readuntil(b"\n\n") == b": keepalive\n\n"
            upstream.gate.set()
            told = await response.read()
    frames = [frame for frame in told.split(b"\n\n") if frame and not frame.startswith(b":")]
    assert [frame.split(b"\n")[0] for frame in frames[:-1]] == [
        *(b"event: response.created", b"event: response.in_progress", b"event: response.failed"),
    ]
    assert b'"error":{"code":"bad"' in frames[-2]
    assert frames[-1] == b"data: [DONE]"


async def test_what_came_before_a_failure_is_read_later_as_it_was_told(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: Reply(pieces=EVERYTHING, break_after=12)
    stream = await server.openai.responses.create(model="m", input="one", stream=True)
    events = [event async for event in stream]
    assert events[-1].type == "response.failed"
    assert events[-1].response.error is not None
    later = await server.openai.responses.retrieve(events[-1].response.id)
    assert later.model_dump() == events[-1].response.model_dump()
    assert [item.type for item in later.output] == ["reasoning", "message", "function_call"]
    assert [item.status for item in later.output] == ["completed", "completed", "incomplete"]  # type: ignore[union-attr]
