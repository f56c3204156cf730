"""A model server that speaks the Responses API, behind both of ours: over HTTP, with the official client."""

import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import openai
import pytest
import pytest_asyncio

from tests.support.responses_upstream import (
    ResponsesUpstream,
    Scripted,
    scripted_responses_upstream,
    speaks,
    sse,
    thinks,
    wants,
)
from tests.support.server import Server, serving
from tests.support.upstream import Reply, Upstream, calls, echo, refuses, says

SESSION_ID = "X-Hermes-Session-Id"
CHAT = "/v1/chat/completions"
RESPONSES = "/v1/responses"
FUNCTION = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": True}

both_apis = pytest.mark.parametrize("path", [CHAT, RESPONSES], ids=["chat", "responses"])
streamed_or_not = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
_numbers = itertools.count()


class Shared(NamedTuple):
    """A server, and the model server behind it."""

    server: Server
    model: ResponsesUpstream


@pytest_asyncio.fixture
async def shared(data: Path) -> AsyncIterator[Shared]:
    """Both, running."""
    async with (
        scripted_responses_upstream() as model,
        serving(data, upstream=model.url, upstream_api="responses") as server,
    ):
        yield Shared(server, model)


class Heard(NamedTuple):
    """What a client heard of an answer, whichever API it came by."""

    text: str
    calls: list[tuple[str, str]]
    end: str
    usage: tuple[int, int, int, int]


async def ask(server: Server, path: str, text: str, session_id: str, *, stream: bool, **more: Any) -> Heard:
    """One turn with the official client."""
    headers = {SESSION_ID: session_id}
    if path == RESPONSES:
        made: Any = server.openai.responses.create(model="m", input=text, extra_headers=headers, **more, stream=stream)
        response = [event async for event in await made][-1].response if stream else await made
        wanted = [(item.name, item.arguments) for item in response.output if item.type == "function_call"]
        usage, details = response.usage, response.usage.output_tokens_details
        counts = (usage.input_tokens, usage.output_tokens, usage.total_tokens, details.reasoning_tokens)
        return Heard(response.output_text, wanted, response.status, counts)
    body = {"model": "m", "messages": [{"role": "user", "content": text}]} | more
    answer: Any
    if not stream:
        answer = await server.openai.chat.completions.create(**body, extra_headers=headers)
    else:
        async with server.openai.chat.completions.stream(
            **body, extra_headers=headers, stream_options={"include_usage": True}
        ) as events:
            async for _ in events:
                pass
            answer = events.current_completion_snapshot
    choice = answer.choices[0]
    wanted = [(call.function.name, call.function.arguments) for call in choice.message.tool_calls or ()]
    usage, details = answer.usage, answer.usage.completion_tokens_details
    counts = (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens, details.reasoning_tokens)
    return Heard(choice.message.content or "", wanted, choice.finish_reason, counts)


@both_apis
@streamed_or_not
async def test_a_conversation_goes_on(shared: Shared, path: str, stream: bool) -> None:
    server, model = shared
    first = await ask(server, path, "one", "s1", stream=stream)
    second = await ask(server, path, "two", "s1", stream=stream)
    assert (first.text, second.text) == ("1: one", "3: two")
    assert first.end == ("stop" if path == CHAT else "completed")
    assert first.usage == (11, 7, 18, 2)
    sent = model.requests[-1]
    assert [message["content"] for message in model.messages[-1]] == ["one", "1: one", "two"]
    assert (sent["store"], sent["include"]) == (False, ["reasoning.encrypted_content"])
    assert sent.get("stream", False) is stream


@both_apis
@streamed_or_not
async def test_a_tool_is_called_and_answers(shared: Shared, path: str, stream: bool) -> None:
    server, model = shared
    model.script = lambda _: calls("weather", '{"city": "Rome"}')
    nested = {name: value for name, value in FUNCTION.items() if name != "type"}
    tool = FUNCTION if path == RESPONSES else {"type": "function", "function": nested}
    heard = await ask(server, path, "weather?", "s1", stream=stream, tools=[tool])
    assert heard.calls == [("weather", '{"city": "Rome"}')]
    assert heard.end == ("tool_calls" if path == CHAT else "completed")
    assert model.requests[-1]["tools"] == [FUNCTION]
    model.script = lambda _: says("sunny")
    await server.http.post(
        CHAT,
        json={"model": "m", "messages": [{"role": "tool", "tool_call_id": "call_1", "content": "21"}]},
        headers={SESSION_ID: "s1"},
    )
    call = {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "Rome"}'}
    output = {"type": "function_call_output", "call_id": "call_1", "output": "21"}
    assert model.requests[-1]["input"][1:] == [call, output]


@both_apis
@streamed_or_not
async def test_what_it_thought_is_given_back_whole(shared: Shared, path: str, stream: bool) -> None:
    server, model = shared
    model.script = lambda _: Scripted(output=[thinks("hm"), speaks("hi"), wants("f", "{}")])
    await ask(server, path, "one", "s1", stream=stream)
    model.script = echo
    await server.chat("ignored", "s1", messages=[{"role": "tool", "tool_call_id": "call_1", "content": "5"}])
    assert model.requests[-1]["input"][1] == thinks("hm")
    assert [item["type"] for item in model.requests[-1]["input"]] == [
        "message",
        "reasoning",
        "message",
        "function_call",
        "function_call_output",
    ]


async def test_a_session_goes_on_over_either_dialect(data: Path, upstream: Upstream) -> None:
    """Begun over one, continued over the other, and back: nothing is lost, and none is told what is not its own."""
    async with scripted_responses_upstream() as model:
        async with serving(data, upstream=upstream.url) as server:
            upstream.script = lambda _: Reply(message={"role": "assistant", "content": "A", "reasoning_content": "hm"})
            await server.chat("one", "s1")
        async with serving(data, upstream=model.url, upstream_api="responses") as server:
            model.script = lambda _: Scripted(output=[thinks("deep"), speaks("B")])
            await ask(server, RESPONSES, "two", "s1", stream=True)
            assert [message["content"] for message in model.messages[-1]] == ["one", "A", "two"]
            assert "reasoning" not in [item["type"] for item in model.requests[-1]["input"]]
        async with serving(data, upstream=upstream.url) as server:
            upstream.script = echo
            await server.chat("three", "s1")
            assert [message["content"] for message in upstream.messages[-1]] == ["one", "A", "two", "B", "three"]
            assert upstream.messages[-1][1]["reasoning_content"] == "hm"
            assert set(upstream.messages[-1][3]) == {"role", "content"}
        async with serving(data, upstream=model.url, upstream_api="responses") as server:
            await server.chat("four", "s1")
            assert thinks("deep") in model.requests[-1]["input"]


async def test_instructions_images_and_schemas_arrive(shared: Shared) -> None:
    server, model = shared
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    create: Any = server.openai.responses.create
    await create(
        model="m",
        instructions="Be brief.",
        input=[
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "What is it?"},
                    {"type": "input_image", "image_url": "https://x/y.png", "detail": "low"},
                ],
            }
        ],
        text={"format": schema},
        reasoning={"effort": "low", "summary": "auto"},
        max_output_tokens=50,
    )
    sent = model.requests[-1]
    assert sent["input"] == [
        {"type": "message", "role": "system", "content": "Be brief."},
        {
            "type": "message",
            "role": "user",
            "content": [
                {"type": "input_text", "text": "What is it?"},
                {"type": "input_image", "image_url": "https://x/y.png", "detail": "low"},
            ],
        },
    ]
    assert sent["text"] == {"format": schema}
    assert sent["reasoning"] == {"effort": "low", "summary": "auto"}
    assert sent["max_output_tokens"] == 50


async def test_a_chat_server_is_not_sent_what_only_responses_servers_know(server: Server, upstream: Upstream) -> None:
    await server.openai.responses.create(model="m", input="one", reasoning={"effort": "low", "summary": "auto"})
    assert upstream.requests[-1]["reasoning_effort"] == "low"
    assert not any("summary" in name for name in upstream.requests[-1])


@streamed_or_not
async def test_a_parameter_without_counterpart_is_400_and_names_it(shared: Shared, stream: bool) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        await shared.server.openai.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "one"}], seed=5, stream=stream
        )
    assert (raised.value.code, raised.value.param) == ("unsupported_parameter", "seed")
    assert not shared.model.requests


@both_apis
@streamed_or_not
async def test_an_answer_that_was_cut_short_says_so(shared: Shared, path: str, stream: bool) -> None:
    shared.model.script = lambda _: says("one two", finish_reason="length")
    heard = await ask(shared.server, path, "one", "s1", stream=stream)
    assert (heard.text, heard.end) == ("one two", "length" if path == CHAT else "incomplete")


# Refused for what it was to think


def refuses_thoughts(body: dict[str, Any]) -> Reply:
    """Plays a model that does not think: asked for thoughts, or given some, it refuses."""
    if "include" in body:
        return refuses(400, "Encrypted content is not supported with this model.", param="include")
    return echo(body)


@streamed_or_not
async def test_a_model_that_does_not_think_is_asked_once_more_without_thoughts(shared: Shared, stream: bool) -> None:
    server, model = shared
    model.script = refuses_thoughts
    assert (await ask(server, CHAT, "one", "s1", stream=stream)).text == "1: one"
    assert ["include" in request for request in model.requests] == [True, False]
    await ask(server, CHAT, "two", "s1", stream=stream)
    assert ["include" in request for request in model.requests[2:]] == [False]


@streamed_or_not
async def test_thoughts_of_another_server_are_left_out_where_they_can_not_be_read(shared: Shared, stream: bool) -> None:
    server, model = shared

    def script(body: dict[str, Any]) -> Reply:
        if "reasoning" in [item["type"] for item in body["input"]]:
            return refuses(400, "The encrypted content gAAA could not be verified.", code="invalid_encrypted_content")
        return echo(body)

    model.script = lambda _: Scripted(output=[thinks("hm"), speaks("hi")])
    await server.chat("one", "s1")
    model.script = script
    assert (await ask(server, CHAT, "two", "s1", stream=stream)).text == "3: two"
    await ask(server, CHAT, "three", "s2", stream=stream)
    assert "include" in model.requests[-1]


async def test_another_refusal_is_told_at_once(shared: Shared) -> None:
    shared.model.script = lambda _: refuses(400, "too long", code="context_length_exceeded")
    with pytest.raises(openai.BadRequestError) as raised:
        await shared.server.openai.responses.create(model="m", input="one")
    assert raised.value.code == "context_length_exceeded"
    assert len(shared.model.requests) == 1


# Answers and streams that are none

HI = sse({"type": "response.output_text.delta", "delta": "hi"})
FAILED = {"type": "response.failed", "response": {"error": {"code": "server_error", "message": "the moon"}}}
CHAT_CHUNK = {"choices": [{"index": 0, "delta": {"content": "hi"}}]}

WHOLE = {
    "not JSON": b"{{{",
    "nothing": b"",
    "a list": b"[]",
    "null": b"null",
    "no output": b"{}",
    "output that is null": b'{"output": null}',
    "output that is a text": b'{"output": "hi"}',
    "a chat completion": b'{"choices": [{"message": {"role": "assistant", "content": "hi"}}]}',
    "text that is not UTF-8": b'{"output": [{"type": "message", "content": [{"text": "\xff"}]}]}',
    "brackets a hundred thousand deep": b'{"output": %b}' % (b"[" * 100_000 + b"]" * 100_000),
}
BREAKS = {
    "not JSON": (sse(b"{{{"), "upstream_garbage"),
    "a list": (sse(b"[]"), "upstream_garbage"),
    "a chat chunk": (sse(CHAT_CHUNK), "upstream_garbage"),
    "a delta that is null": (sse({"type": "response.output_text.delta"}), "upstream_garbage"),
    "a delta that is a number": (sse({"type": "response.refusal.delta", "delta": 5}), "upstream_garbage"),
    "an index that is a text": (sse({"type": "response.output_text.delta", "output_index": "x"}), "upstream_garbage"),
    "a failure": (sse(FAILED), "upstream_error"),
    "an error": (sse({"type": "error", "message": "the moon", "code": "x", "param": None}), "upstream_error"),
    "an error in an envelope": (sse({"type": "error", "error": {"message": "the moon"}}), "upstream_error"),
    "an error alone": (sse({"error": {"message": "the moon"}}), "upstream_error"),
    "no end": (b"", "upstream_broke_off"),
    "an end alone": (sse(b"[DONE]"), "upstream_broke_off"),
}


@both_apis
@pytest.mark.parametrize("body", WHOLE.values(), ids=WHOLE.keys())
async def test_an_answer_that_is_none_is_502(shared: Shared, path: str, body: bytes) -> None:
    shared.model.script = lambda _: Reply(raw=body)
    with pytest.raises(openai.InternalServerError) as raised:
        await ask(shared.server, path, "one", "s1", stream=False)
    assert (raised.value.status_code, raised.value.code) == (502, "upstream_garbage")
    shared.model.script = echo
    assert (await shared.server.chat("two", "s1"))[0]["choices"][0]["message"]["content"] == "1: two"


@both_apis
@pytest.mark.parametrize(("raw", "code"), BREAKS.values(), ids=BREAKS.keys())
async def test_a_stream_that_breaks_before_it_says_anything_is_a_plain_502(
    shared: Shared, path: str, raw: bytes, code: str
) -> None:
    created = sse({"type": "response.created", "response": {"model": "m"}})
    shared.model.script = lambda _: Reply(raw=created + raw)
    with pytest.raises(openai.InternalServerError) as raised:
        await ask(shared.server, path, "one", "s1", stream=True)
    assert (raised.value.status_code, raised.value.code) == (502, code)


@both_apis
@pytest.mark.parametrize(("raw", "code"), BREAKS.values(), ids=BREAKS.keys())
async def test_a_stream_that_breaks_later_ends_with_the_error(shared: Shared, path: str, raw: bytes, code: str) -> None:
    server, model = shared
    model.script = lambda _: Reply(raw=HI + raw)
    said = {"messages": [{"role": "user", "content": "one"}]} if path == CHAT else {"input": "one"}
    body = {"model": "m", "stream": True} | said
    async with server.http.post(path, json=body, headers={SESSION_ID: "s1"}) as answer:
        *_, last, done, _ = (await answer.text()).split("\n\n")
    assert done == "data: [DONE]"
    told = msgspec.json.decode(last.split("data: ")[1])
    error = told.get("error") or told["response"]["error"]
    assert code in (error["code"], error["message"].rpartition("(")[2].removesuffix(")"))
    assert [message["content"] for message in await server.messages("s1")] == ["one", "hi"]
    model.script = echo
    assert (await server.chat("two", "s1"))[0]["choices"][0]["message"]["content"] == "1: two"


@both_apis
async def test_something_else_than_a_stream_is_502(shared: Shared, path: str) -> None:
    shared.model.script = lambda _: Reply(raw=b"<html>hello</html>")
    with pytest.raises(openai.InternalServerError) as raised:
        await ask(shared.server, path, "one", "s1", stream=True)
    assert raised.value.code == "upstream_garbage"


ODD = {
    "an item that is a number": [{"type": "response.output_item.added", "item": 5}],
    "an item without anything": [{"type": "response.output_item.done", "item": {}}],
    "a message whose content is a text": [
        {"type": "response.output_item.done", "item": {"type": "message", "content": "x"}}
    ],
    "a call without anything": [{"type": "response.output_item.done", "item": {"type": "function_call"}}],
    "a call whose arguments are an object": [
        {"type": "response.output_item.done", "item": {"type": "function_call", "arguments": {"a": 1}}}
    ],
    "a thought whose summary is a text": [
        {"type": "response.output_item.done", "item": {"type": "reasoning", "summary": "x", "content": 5}}
    ],
    "an annotation that is a text": [{"type": "response.output_text.annotation.added", "annotation": "x"}],
    "log probabilities that are a text": [{"type": "response.output_text.delta", "delta": "x", "logprobs": "x"}],
    "an item twice": [{"type": "response.output_item.done", "item": wants("f", "{}")}] * 2,
    "a type that nobody knows": [{"type": "response.dreamt"}],
}


@both_apis
@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
async def test_an_odd_event_is_taken_and_no_failure_of_ours(
    shared: Shared, path: str, odd: list[dict[str, Any]]
) -> None:
    end = {"type": "response.completed", "response": {"usage": "many"}}
    shared.model.script = lambda _: Reply(raw=HI + b"".join(map(sse, [*odd, end])))
    body: dict[str, Any] = {"model": "m", "stream": True, "input": "one"}
    if path == CHAT:
        body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "one"}]}
    async with shared.server.http.post(path, json=body, headers={SESSION_ID: "s1"}) as answer:
        assert answer.status == 200
        heard = await answer.text()
    assert "internal_error" not in heard
    assert heard.endswith("data: [DONE]\n\n")
    assert {message["status"] for message in await shared.server.messages("s1")} == {"completed"}
    shared.model.script = echo
    await shared.server.chat("two", "s1")


async def test_what_a_user_says_of_reasoning_items_is_not_taken_for_some(server: Server, upstream: Upstream) -> None:
    said = 'In {"role": "assistant", "reasoning_items": []}, what is "reasoning_summary"?'
    await server.chat(said, "s1", reasoning_effort="low")
    assert upstream.messages[-1] == [{"role": "user", "content": said}]
