"""Whatever turnlog sends is valid by the SDK's own types: the SDK itself does not check, programs rely on it."""

import json
from typing import Any, get_args

import pydantic
import pytest
from openai.types import Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.conversations import Conversation, ConversationDeletedResource, ConversationItem, ConversationItemList
from openai.types.responses import (
    CompactedResponse,
    InputTokenCountResponse,
    Response,
    ResponseItemList,
    ResponseStreamEvent,
)

from tests.support.programs import asks_weather, says_thought
from tests.support.server import Server
from tests.support.upstream import Reply, Script, Upstream, calls, echo, refuses, says

FUNCTION: Any = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}
CUSTOM: Any = {"type": "custom", "name": "shell"}
PICTURE: Any = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "auto"}
CITED = {
    "type": "url_citation",
    "url_citation": {"start_index": 0, "end_index": 2, "title": "t", "url": "https://example.org"},
}


def refusing(_: dict[str, Any]) -> Reply:
    message = {"role": "assistant", "content": None, "refusal": "I will not."}
    return Reply(message=message, pieces=[{"role": "assistant"}, {"refusal": "I will"}, {"refusal": " not."}])


def citing(_: dict[str, Any]) -> Reply:
    message = {"role": "assistant", "content": "As said.", "annotations": [CITED]}
    return Reply(message=message, pieces=[{"content": "As said."}, {"annotations": [CITED]}])


def custom(_: dict[str, Any]) -> Reply:
    call = {"id": "call_c", "type": "custom", "custom": {"name": "shell", "input": "ls"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    return Reply(message=message, pieces=[{"tool_calls": [{"index": 0, **call}]}], finish_reason="tool_calls")


# What models say, and what they are asked with.
ANSWERS: dict[str, tuple[Script, dict[str, Any]]] = {
    "text": (echo, {"instructions": "Be brief.", "metadata": {"a": "b"}, "temperature": 0.5, "truncation": "auto"}),
    "parts": (echo, {"input": [{"role": "user", "content": [{"type": "input_text", "text": "look"}, PICTURE]}]}),
    "schema": (
        lambda _: says("{}"),
        {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}}},
    ),
    "call": (lambda _: asks_weather(), {"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "weather"}}),
    "empty call": (lambda _: calls("weather", ""), {"tools": [FUNCTION]}),
    "custom call": (custom, {"tools": [CUSTOM]}),
    "thought": (lambda _: says_thought(), {"reasoning": {"effort": "low", "summary": "auto"}}),
    "cut short": (lambda _: says("Once", finish_reason="length"), {"max_output_tokens": 16}),
    "filtered": (lambda _: says("Once", finish_reason="content_filter"), {}),
    "refusal": (refusing, {}),
    "citation": (citing, {}),
    "no usage": (lambda _: says("hello", usage=None), {}),
    "nothing": (lambda _: Reply(message={"role": "assistant", "content": ""}), {}),
}
answers = pytest.mark.parametrize("answer", ANSWERS)


def check(type_: Any, data: Any) -> Any:
    """What is valid by that type of the SDK's; raises where it is not. Returns the object."""
    return pydantic.TypeAdapter(type_).validate_python(data)


# The class of each event, so that an error is about that one and not about all there are.
EVENTS = {
    get_args(kind.model_fields["type"].annotation)[0]: kind for kind in get_args(get_args(ResponseStreamEvent)[0])
}


def check_event(event: dict[str, Any]) -> None:
    """An event must be one that the SDK knows, and valid."""
    check(EVENTS[event["type"]], event)


async def call(server: Server, method: str, path: str, **body: Any) -> Any:
    """What a request that goes well is answered."""
    async with server.http.request(method, path, json=body or None) as response:
        answer = await response.json()
        assert response.status == 200, answer
        return answer


async def events(server: Server, path: str, **body: Any) -> list[dict[str, Any]]:
    """The events or chunks of a stream."""
    async with server.http.request("POST" if body else "GET", path, json=body or None) as response:
        assert response.status == 200, await response.text()
        frames = (await response.text()).split("\n\n")
    data = [line.removeprefix("data: ") for frame in frames for line in frame.split("\n") if line.startswith("data: ")]
    assert data[-1] == "[DONE]"
    return [json.loads(line) for line in data[:-1]]


@answers
async def test_a_response_and_its_items(server: Server, upstream: Upstream, answer: str) -> None:
    upstream.script, more = ANSWERS[answer]
    conversation = check(Conversation, await call(server, "POST", "/v1/conversations", metadata={}))
    body = {"model": "m", "input": "hello", "conversation": conversation.id, **more}
    made = await call(server, "POST", "/v1/responses", **body)
    response = check(Response, made)
    assert await call(server, "GET", f"/v1/responses/{response.id}") == made
    check(ResponseItemList, await call(server, "GET", f"/v1/responses/{response.id}/input_items"))
    items = f"/v1/conversations/{conversation.id}/items"
    page = check(ConversationItemList, await call(server, "GET", items))
    for item in page.data:
        check(ConversationItem, await call(server, "GET", f"{items}/{item.id}"))
        check(Conversation, await call(server, "DELETE", f"{items}/{item.id}"))
    check(ConversationDeletedResource, await call(server, "DELETE", f"/v1/conversations/{conversation.id}"))


@answers
async def test_the_events_of_a_response(server: Server, upstream: Upstream, answer: str) -> None:
    upstream.script, more = ANSWERS[answer]
    seen = await events(server, "/v1/responses", **{"model": "m", "input": "hello", "stream": True, **more})
    for event in seen:
        check_event(event)
    final = seen[-1]["response"]
    assert await call(server, "GET", f"/v1/responses/{final['id']}") == final
    done = [event["item"] for event in seen if event["type"] == "response.output_item.done"]
    assert done == final["output"]
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))


@answers
async def test_the_events_of_a_response_in_the_background(server: Server, upstream: Upstream, answer: str) -> None:
    upstream.script, more = ANSWERS[answer]
    body = {"model": "m", "input": "hello", "stream": True, "background": True, **more}
    live = await events(server, "/v1/responses", **body)
    for event in live:
        check_event(event)
    response_id = live[0]["response"]["id"]
    assert await events(server, f"/v1/responses/{response_id}?stream=true") == live
    assert await call(server, "GET", f"/v1/responses/{response_id}") == live[-1]["response"]


async def test_a_response_that_failed_or_was_cancelled(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: refuses(400, "no such thing")
    body = {"model": "m", "input": "hello", "background": True}
    *seen, failed = await events(server, "/v1/responses", stream=True, **body)
    for event in seen:
        check_event(event)
    assert failed["type"] == "response.failed"
    check_event(failed)
    upstream.gate.clear()
    waiting = check(Response, await call(server, "POST", "/v1/responses", **body))
    cancelled = check(Response, await call(server, "POST", f"/v1/responses/{waiting.id}/cancel"))
    assert cancelled.status == "cancelled"


async def test_what_is_made_of_a_prompt_without_a_turn(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: says("The user is Ada.")
    body = {"model": "m", "input": [{"role": "user", "content": "I am Ada."}, {"role": "assistant", "content": "Hi."}]}
    check(InputTokenCountResponse, await call(server, "POST", "/v1/responses/input_tokens", **body))
    compacted = await call(server, "POST", "/v1/responses/compact", **body)
    # A user's message in a window has input parts, at OpenAI too; the SDK's type knows only a model's message.
    compacted["output"] = [item for item in compacted["output"] if item["type"] == "compaction"]
    assert check(CompactedResponse, compacted).output


CHATS: dict[str, tuple[Script, dict[str, Any]]] = {
    "text": (echo, {"metadata": {"a": "b"}}),
    "call": (lambda _: asks_weather(), {}),
    "thought": (lambda _: says_thought(), {}),
    "refusal": (refusing, {}),
    "no usage": (lambda _: says("hello", usage=None), {}),
    "nothing": (lambda _: Reply(message={"role": "assistant", "content": ""}), {}),
}


@pytest.mark.parametrize("answer", CHATS)
async def test_a_completion_and_what_is_stored_of_it(server: Server, upstream: Upstream, answer: str) -> None:
    upstream.script, more = CHATS[answer]
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "store": True, **more}
    made = check(ChatCompletion, await call(server, "POST", "/v1/chat/completions", **body))
    stored = await call(server, "GET", f"/v1/chat/completions/{made.id}")
    assert check(ChatCompletion, stored).choices == made.choices
    listed = await call(server, "GET", "/v1/chat/completions")
    assert [check(ChatCompletion, completion).id for completion in listed["data"]] == [made.id]


@pytest.mark.parametrize("answer", CHATS)
async def test_the_chunks_of_a_completion(server: Server, upstream: Upstream, answer: str) -> None:
    upstream.script, more = CHATS[answer]
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], "stream": True, **more}
    for chunk in await events(server, "/v1/chat/completions", **body):
        check(ChatCompletionChunk, chunk)


async def test_models(server: Server) -> None:
    listed = (await call(server, "GET", "/v1/models"))["data"]
    assert listed
    for model in listed:
        assert check(Model, await call(server, "GET", f"/v1/models/{model['id']}")) == check(Model, model)
