"""The main job: the official `openai` SDK holds conversations through turnlog, across restarts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from openai.types.chat import ChatCompletionFunctionToolParam
from openai.types.responses import FunctionToolParam, ResponseFunctionToolCall
from pydantic import BaseModel

from eventstore.events import SessionStarted
from eventstore.log import Recorded
from eventstore.sqlite import SqliteLog
from tests.support.server import Server, serving
from tests.support.upstream import USAGE, Message, Reply, Upstream, calls, echo, says

SESSION_ID = "X-Hermes-Session-Id"
SESSION_KEY = "X-Hermes-Session-Key"
IDENTITY = {
    "X-Hermes-User-Id": "u-1",
    "X-Hermes-User-Name": "Ada Lovelace",
    "X-Hermes-Chat-Id": "c-2",
    "X-Hermes-Chat-Name": "engines",
    "X-Hermes-Chat-Type": "group",
    "X-Hermes-Thread-Id": "t-3",
}
TERMINAL = {"response.completed", "response.incomplete", "response.failed"}
PICTURE = "data:image/png;base64,iVBORw0KGgo="
ODD_TEXT = "  two  spaces, \n\n lines, \r\n\u2028\u2029\x85\x0b\x0c\x1c other lines, \x00 ünïcödé 🎈 data: [DONE] "
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

CHAT_TOOL: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {"name": "weather", "description": "Tells it.", "parameters": dict[str, object](SCHEMA)},
}
RESPONSES_TOOL: FunctionToolParam = {
    "type": "function",
    "name": "weather",
    "description": "Tells it.",
    "parameters": dict[str, object](SCHEMA),
    "strict": False,
}

streamed_or_not = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


def session(session_id: str) -> dict[str, str]:
    """The header that names a session."""
    return {SESSION_ID: session_id}


def contents(messages: Sequence[Message]) -> list[Any]:
    """What was said, without who said it."""
    return [message["content"] for message in messages]


def said(*texts: str) -> list[Message]:
    """User and assistant in turns."""
    return [{"role": ("user", "assistant")[index % 2], "content": text} for index, text in enumerate(texts)]


def answered(text: str) -> list[Message]:
    """The model alone."""
    return [{"role": "assistant", "content": text}]


async def ask(server: Server, text: str, **options: Any) -> str:
    """One response by the SDK; its id."""
    response: openai.types.responses.Response
    response = await server.openai.responses.create(model="m", input=text, **options)
    assert response.status == "completed"
    return response.id


async def chat_text(server: Server, text: str, session_id: str, *, stream: bool) -> str:
    """One chat turn by the SDK in a session: the text of the answer."""
    headers = session(session_id)
    if not stream:
        whole = await server.openai.chat.completions.create(
            model="m", messages=[{"role": "user", "content": text}], extra_headers=headers
        )
        return whole.choices[0].message.content or ""
    chunks = await server.openai.chat.completions.create(
        model="m", messages=[{"role": "user", "content": text}], extra_headers=headers, stream=True
    )
    return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])


async def response_text(server: Server, text: str, *, stream: bool, **options: Any) -> tuple[str, str]:
    """One response by the SDK: its id and its text."""
    if not stream:
        whole = await server.openai.responses.create(model="m", input=text, **options)
        return whole.id, whole.output_text
    events = await server.openai.responses.create(model="m", input=text, stream=True, **options)
    pieces = []
    async for event in events:
        if event.type == "response.output_text.delta":
            pieces.append(event.delta)
        if event.type == "response.completed":
            assert event.response.output_text == "".join(pieces)
            return event.response.id, event.response.output_text
    raise AssertionError("the stream ended without response.completed")


class Sse:
    """A whole stream: its headers, its bytes, and its decoded payloads with `[DONE]` left out."""

    def __init__(self, status: int, headers: dict[str, str], body: str) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.frames = body.removesuffix("\n\n").split("\n\n")

    @property
    def payloads(self) -> list[dict[str, Any]]:
        assert self.frames[-1] == "data: [DONE]", self.body
        return [msgspec.json.decode(frame.split("\n")[-1].removeprefix("data: ")) for frame in self.frames[:-1]]

    def of_type(self, type_: str) -> list[dict[str, Any]]:
        return [payload for payload in self.payloads if payload["type"] == type_]

    @property
    def final(self) -> dict[str, Any]:
        """The response of the terminal event."""
        response: dict[str, Any] = self.payloads[-1]["response"]
        return response


async def post(server: Server, path: str, body: Mapping[str, object], /, **headers: str) -> Sse:
    """POST with plain HTTP; header names with underscores for dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with server.http.post(path, json=body, headers=named) as answer:
        return Sse(answer.status, {name.lower(): value for name, value in answer.headers.items()}, await answer.text())


async def recorded(data: Path) -> list[Recorded]:
    """Everything in the log, beside the running server."""
    log = await SqliteLog.open_read_only(data)
    try:
        return [event async for batch in log.read_all() for event in batch]
    finally:
        await log.close()


async def parent_of(server: Server, session_id: str) -> str | None:
    parent: str | None = (await server.get(f"/api/sessions/{session_id}"))["session"]["parent_session_id"]
    return parent


async def fork(server: Server, text: str, previous_response_id: str) -> tuple[str, str]:
    """Continue from a response: the new response's id, and its session's."""
    raw = await server.openai.responses.with_raw_response.create(
        model="m", input=text, previous_response_id=previous_response_id
    )
    return raw.parse().id, raw.headers[SESSION_ID]


# Chat completions


async def test_a_chat_with_a_session_header_continues_and_ignores_the_bodys_older_history(
    server: Server, upstream: Upstream
) -> None:
    headers = {"X-Hermes-Session-Id": "s1"}
    first = await server.openai.chat.completions.create(
        model="gpt-x", messages=[{"role": "user", "content": "one"}], extra_headers=headers
    )
    await server.openai.chat.completions.create(
        model="gpt-x",
        messages=[
            {"role": "user", "content": "a lie"},
            {"role": "assistant", "content": "another lie"},
            {"role": "user", "content": "two"},
        ],
        extra_headers=headers,
    )
    assert first.choices[0].message.content == "1: one"
    assert [message["content"] for message in upstream.messages[1]] == ["one", "1: one", "two"]


@streamed_or_not
async def test_a_chat_continues_across_restarts(data: Path, upstream: Upstream, stream: bool) -> None:
    answers = []
    for word in ("one", "two", "three"):
        async with serving(data, upstream=upstream.url) as server:
            answers.append(await chat_text(server, word, "s1", stream=stream))
    assert answers == ["1: one", "3: two", "5: three"]
    assert upstream.messages[2] == said("one", "1: one", "two", "3: two", "three")


@streamed_or_not
async def test_a_chat_without_a_header_gets_a_new_session_that_can_be_continued(
    server: Server, upstream: Upstream, stream: bool
) -> None:
    raw = await server.openai.chat.completions.with_raw_response.create(
        model="m", messages=[{"role": "user", "content": "one"}], stream=stream
    )
    session_id = raw.headers[SESSION_ID]
    answer: Any = raw.parse()
    if stream:
        _ = [chunk async for chunk in answer]
    assert await chat_text(server, "two", session_id, stream=stream) == "3: two"
    assert upstream.messages[1] == said("one", "1: one", "two")


async def test_two_equal_chats_without_a_header_are_two_sessions(server: Server) -> None:
    _, first = await server.chat("hello")
    _, second = await server.chat("hello")
    assert first
    assert second
    assert first != second
    assert len(await server.messages(first)) == len(await server.messages(second)) == 2


@pytest.mark.parametrize("session_id", ["brand-new", None], ids=["unknown id", "no id"])
async def test_a_new_session_takes_in_the_bodys_history(
    server: Server, upstream: Upstream, session_id: str | None
) -> None:
    history = said("one", "eins", "two", "zwei", "three")
    _, effective = await server.chat("unused", session_id, messages=history)
    await server.chat("four", effective)
    assert session_id in (None, effective)
    assert upstream.messages[0] == history
    assert upstream.messages[1] == [*history, *answered("5: three"), *said("four")]
    assert contents(await server.messages(effective)) == [
        *("one", "eins", "two", "zwei", "three", "5: three"),
        *("four", "7: four"),
    ]


async def test_a_client_that_sends_its_whole_history_every_time_never_doubles_it(
    server: Server, upstream: Upstream
) -> None:
    history: list[Message] = []
    for number in range(6):
        history.append({"role": "user", "content": f"question {number}"})
        answer, _ = await server.chat("unused", "s1", messages=history)
        assert upstream.messages[number] == history
        history.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"]})
    assert contents(await server.messages("s1")) == contents(history)


async def test_system_messages_are_this_turns_only(server: Server, upstream: Upstream) -> None:
    system, developer = {"role": "system", "content": "be brief"}, {"role": "developer", "content": "be kind"}
    await server.chat("-", "s1", messages=[system, *said("one")])
    await server.chat("-", "s1", messages=said("two"))
    await server.chat("-", "s1", messages=[system, developer, *said("three")])
    assert upstream.messages[0] == [system, *said("one")]
    assert upstream.messages[1] == said("one", "2: one", "two")
    assert upstream.messages[2] == [system, developer, *said("one", "2: one", "two", "3: two", "three")]


async def test_the_newest_user_messages_are_all_new(server: Server, upstream: Upstream) -> None:
    await server.chat("one", "s1")
    await server.chat("-", "s1", messages=[*said("one", "1: one"), *said("two"), *said("and a half")])
    assert contents(upstream.messages[1]) == ["one", "1: one", "two", "and a half"]


async def test_the_last_chunk_carries_finish_reason_and_usage(server: Server) -> None:
    chunks = await server.openai.chat.completions.create(
        model="m", messages=[{"role": "user", "content": "one"}], stream=True
    )
    received = [chunk async for chunk in chunks]
    assert received[-1].choices[0].finish_reason == "stop"
    assert received[-1].usage is not None
    assert received[-1].usage.model_dump(exclude_none=True) == USAGE
    assert all(chunk.usage is None and chunk.choices[0].finish_reason is None for chunk in received[:-1])
    assert len({chunk.id for chunk in received}) == 1


async def test_include_usage_streams_usage_in_a_chunk_of_its_own(server: Server, upstream: Upstream) -> None:
    body = {"model": "m", "messages": said("one"), "stream": True, "stream_options": {"include_usage": True}}
    stream = await post(server, "/v1/chat/completions", body)
    *chunks, last = stream.payloads
    assert all("usage" in chunk and chunk["usage"] is None for chunk in chunks)
    assert (last["choices"], last["usage"]) == ([], USAGE)
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert upstream.requests[0]["stream_options"] == {"include_usage": True}


async def test_the_sdks_own_stream_helper_for_chats_works(server: Server) -> None:
    async with server.openai.chat.completions.stream(
        model="m", messages=[{"role": "user", "content": "one two"}], extra_headers=session("s1")
    ) as stream:
        completion = await stream.get_final_completion()
    assert completion.choices[0].message.content == "1: one two"
    assert contents(await server.messages("s1")) == ["one two", "1: one two"]


async def test_streamed_words_add_up_to_what_is_stored(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: says(ODD_TEXT)
    text = await chat_text(server, "one", "s1", stream=True)
    assert text == ODD_TEXT
    assert contents(await server.messages("s1")) == ["one", text]


# How responses continue


async def test_a_slug_survives_a_restart(data: Path, upstream: Upstream) -> None:
    for word in ("one", "two", "three"):
        async with serving(data, upstream=upstream.url) as server:
            await server.openai.responses.create(model="m", input=word, conversation="my-slug")
    assert [message["content"] for message in upstream.messages[2]] == ["one", "1: one", "two", "3: two", "three"]


@streamed_or_not
@pytest.mark.parametrize("name", ["slug", "slug object", "session", "previous"])
async def test_responses_continue_by_every_name_across_restarts(
    data: Path, upstream: Upstream, stream: bool, name: str
) -> None:
    names: dict[str, dict[str, Any]] = {
        "slug": {"conversation": "my slug/with: anything"},
        "slug object": {"conversation": {"id": "my-slug"}},
        "session": {"extra_headers": session("s1")},
        "previous": {},
    }
    options = names[name]
    texts = []
    for word in ("one", "two", "three"):
        async with serving(data, upstream=upstream.url) as server:
            response_id, text = await response_text(server, word, stream=stream, **options)
            texts.append(text)
            if name == "previous":
                options = {"previous_response_id": response_id}
    assert texts == ["1: one", "3: two", "5: three"]
    assert upstream.messages[2] == said("one", "1: one", "two", "3: two", "three")


@streamed_or_not
async def test_a_response_without_a_name_gets_a_new_session_that_can_be_continued(
    server: Server, upstream: Upstream, stream: bool
) -> None:
    raw = await server.openai.responses.with_raw_response.create(model="m", input="one", stream=stream)
    answer: Any = raw.parse()
    if stream:
        _ = [event async for event in answer]
    await response_text(server, "two", stream=stream, extra_headers=session(raw.headers[SESSION_ID]))
    assert upstream.messages[1] == said("one", "1: one", "two")


async def test_a_response_names_its_conversation_and_its_predecessor(server: Server) -> None:
    by_slug = await server.openai.responses.create(model="m", input="one", conversation="slug")
    by_id = await server.openai.responses.create(model="m", input="two", previous_response_id=by_slug.id)
    assert by_slug.conversation is not None
    assert (by_slug.conversation.id, by_slug.previous_response_id) == ("slug", None)
    assert by_id.previous_response_id == by_slug.id
    assert (await server.openai.responses.retrieve(by_id.id)).previous_response_id == by_slug.id


async def test_the_sdks_own_stream_helper_for_responses_works(server: Server, upstream: Upstream) -> None:
    for word in ("one", "two words"):
        async with server.openai.responses.stream(model="m", input=word, conversation="slug") as stream:
            deltas = [event.delta async for event in stream if event.type == "response.output_text.delta"]
            final = await stream.get_final_response()
        assert final.output_text == "".join(deltas)
        assert (await server.openai.responses.retrieve(final.id)).output_text == final.output_text
    assert upstream.messages[1] == said("one", "1: one", "two words")


async def test_a_new_session_by_header_takes_in_the_inputs_history(server: Server, upstream: Upstream) -> None:
    history = [{"role": message["role"], "content": message["content"]} for message in said("one", "eins", "two")]
    body = {"model": "m", "input": history}
    await post(server, "/v1/responses", body, X_Hermes_Session_Id="s1")
    body = {"model": "m", "input": [*history, *answered("3: two"), *said("three")]}
    await post(server, "/v1/responses", body, X_Hermes_Session_Id="s1")
    assert upstream.messages[0] == said("one", "eins", "two")
    assert upstream.messages[1] == said("one", "eins", "two", "3: two", "three")


async def test_instructions_are_not_inherited(server: Server, upstream: Upstream) -> None:
    first = await server.openai.responses.create(model="m", input="one", instructions="be brief", conversation="slug")
    second = await server.openai.responses.create(model="m", input="two", conversation="slug")
    third = await server.openai.responses.create(model="m", input="three", previous_response_id=second.id)
    assert upstream.messages[0] == [{"role": "system", "content": "be brief"}, *said("one")]
    assert upstream.messages[1] == said("one", "2: one", "two")
    assert [message["role"] for message in upstream.messages[2]].count("system") == 0
    assert [response.instructions for response in (first, second, third)] == ["be brief", None, None]


# What a response's stream holds

STREAMED = {
    "text": says("one two  three\n"),
    "nothing": says(""),
    "cut short": says("one two", finish_reason="length"),
    "a tool call": calls("weather", '{"city": "Wien"}'),
    "reasoning, then text": Reply(
        pieces=[
            {"role": "assistant", "content": ""},
            {"reasoning_content": "let me"},
            {"reasoning_content": " think"},
            {"content": "so"},
            {"content": " be it"},
        ]
    ),
    "text, then two tool calls": Reply(
        finish_reason="tool_calls",
        pieces=[
            {"role": "assistant", "content": "I look"},
            {"tool_calls": [{"index": 0, "id": "c0", "type": "function", "function": {"name": "a", "arguments": ""}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": '{"x":'}}]},
            {"tool_calls": [{"index": 1, "id": "c1", "type": "function", "function": {"name": "b", "arguments": ""}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": "1}"}}]},
            {"tool_calls": [{"index": 1, "function": {"arguments": "{}"}}]},
        ],
    ),
    "a tool call, then text": Reply(
        finish_reason="tool_calls",
        pieces=[
            {"tool_calls": [{"index": 0, "id": "c0", "type": "function", "function": {"name": "a", "arguments": ""}}]},
            {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
            {"content": "there"},
        ],
    ),
    "text, then reasoning": Reply(pieces=[{"content": "so"}, {"reasoning_content": "hm"}, {"content": " be it"}]),
    "a refusal": Reply(pieces=[{"role": "assistant"}, {"refusal": "I "}, {"refusal": "will not"}]),
    "a refusal, then text": Reply(pieces=[{"refusal": "not this"}, {"content": "but that"}]),
}
every_stream = pytest.mark.parametrize("reply", STREAMED.values(), ids=STREAMED.keys())


@every_stream
async def test_a_stream_is_numbered_without_gaps_and_ends_once(
    server: Server, upstream: Upstream, reply: Reply
) -> None:
    upstream.script = lambda _: reply
    stream = await post(server, "/v1/responses", {"model": "m", "input": "one", "stream": True})
    payloads = stream.payloads
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert [payload["sequence_number"] for payload in payloads] == list(range(len(payloads)))
    assert payloads[0]["type"] == "response.created"
    assert [payload["type"] in TERMINAL for payload in payloads].count(True) == 1
    assert payloads[-1]["type"] in TERMINAL
    assert "\r" not in stream.body
    for frame, payload in zip(stream.frames, payloads, strict=False):
        event, _ = frame.split("\n")
        assert event == f"event: {payload['type']}"


@every_stream
async def test_deltas_add_up_to_what_is_done(server: Server, upstream: Upstream, reply: Reply) -> None:
    upstream.script = lambda _: reply
    stream = await post(server, "/v1/responses", {"model": "m", "input": "one", "stream": True})
    said_by_place: dict[tuple[str, str, int | None], str] = {}
    for payload in stream.payloads:
        kind, _, step = payload["type"].rpartition(".")
        if step not in ("delta", "done") or "item_id" not in payload or kind == "response.content_part":
            continue
        place = (kind, payload["item_id"], payload.get("content_index"))
        if step == "delta":
            said_by_place[place] = said_by_place.get(place, "") + payload["delta"]
        else:
            done = next(payload[key] for key in ("text", "refusal", "arguments", "input") if key in payload)
            assert said_by_place.pop(place, "") == done
    assert not said_by_place


@every_stream
async def test_what_was_streamed_is_the_final_response_and_a_later_read(
    server: Server, upstream: Upstream, reply: Reply
) -> None:
    upstream.script = lambda _: reply
    stream = await post(server, "/v1/responses", {"model": "m", "input": "one", "stream": True})
    done = stream.of_type("response.output_item.done")
    added = stream.of_type("response.output_item.added")
    assert await server.get(f"/v1/responses/{stream.final['id']}") == stream.final
    assert [payload["item"]["id"] for payload in added] == [payload["item"]["id"] for payload in done]
    assert [payload["output_index"] for payload in added] == list(range(len(added)))
    assert [payload["item"] for payload in done] == stream.final["output"]


BROKEN_OFF = b'data: {"id":"x","model":"m","choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(says("one two three", break_after=2), id="hung up"),
        pytest.param(
            Reply(raw=BROKEN_OFF + b'data: {"error": {"message": "boom", "code": "bad"}}\n\n'),
            id="error chunk",
        ),
    ],
)
async def test_a_stream_that_fails_ends_with_what_a_later_read_says(
    server: Server, upstream: Upstream, reply: Reply
) -> None:
    upstream.script = lambda _: reply
    stream = await post(server, "/v1/responses", {"model": "m", "input": "one", "stream": True})
    assert stream.payloads[-1]["type"] == "response.failed"
    assert stream.final["status"] == "failed"
    assert await server.get(f"/v1/responses/{stream.final['id']}") == stream.final


async def test_a_streamed_answer_and_a_whole_one_say_the_same(server: Server, upstream: Upstream) -> None:
    message = {"role": "assistant", "content": "so be it", "reasoning_content": "let me think"}
    pieces = [{"role": "assistant"}, {"reasoning_content": "let me think"}, {"content": "so"}, {"content": " be it"}]
    upstream.script = lambda _: Reply(message=message, pieces=pieces)
    stream = await post(server, "/v1/responses", {"model": "m", "input": "one", "stream": True})
    whole = await server.openai.responses.create(model="m", input="one")
    streamed = [(item["type"], [part["text"] for part in item["content"]]) for item in stream.final["output"]]
    assert streamed == [("reasoning", ["let me think"]), ("message", ["so be it"])]
    assert [item.type for item in whole.output] == ["reasoning", "message"]
    assert whole.output_text == "so be it"


async def test_reasoning_deltas_become_a_reasoning_item(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: STREAMED["reasoning, then text"]
    async with server.openai.responses.stream(model="m", input="one") as events:
        thought = [event.delta async for event in events if event.type == "response.reasoning_text.delta"]
        final = await events.get_final_response()
    reasoning, message = (await server.openai.responses.retrieve(final.id)).output
    assert thought == ["let me", " think"]
    assert reasoning.type == "reasoning"
    assert reasoning.content is not None
    assert [part.text for part in reasoning.content] == ["let me think"]
    assert message.type == "message"
    assert final.output_text == "so be it"


async def test_a_response_cut_short_is_incomplete_and_part_of_the_transcript(
    server: Server, upstream: Upstream
) -> None:
    upstream.script = lambda _: says("one two", finish_reason="length")
    stream = await post(server, "/v1/responses", {"model": "m", "input": "one", "stream": True, "conversation": "s"})
    assert stream.payloads[-1]["type"] == "response.incomplete"
    assert stream.final["incomplete_details"] == {"reason": "max_output_tokens"}
    await post(server, "/v1/responses", {"model": "m", "input": "two", "conversation": "s"})
    assert upstream.messages[1] == said("one", "one two", "two")


# Tools, pictures, formats, parameters


@streamed_or_not
async def test_a_function_tool_goes_round_in_a_chat(server: Server, upstream: Upstream, stream: bool) -> None:
    upstream.script = lambda body: (
        says("rain") if body["messages"][-1]["role"] == "tool" else calls("weather", '{"city": "Wien"}', "call_7")
    )
    raw: Any = await server.openai.chat.completions.create(
        model="m",
        messages=[{"role": "user", "content": "weather?"}],
        tools=[CHAT_TOOL],
        tool_choice="auto",
        parallel_tool_calls=False,
        stream=stream,
        extra_headers=session("s1"),
    )
    call = await _streamed_call(raw) if stream else raw.choices[0].message.tool_calls[0]
    assert (call.id, call.function.name, call.function.arguments) == ("call_7", "weather", '{"city": "Wien"}')
    answer, _ = await server.chat(
        "-", "s1", messages=[{"role": "tool", "tool_call_id": "call_7", "content": "12 °C"}], tools=[CHAT_TOOL]
    )
    assert answer["choices"][0]["message"]["content"] == "rain"
    assert upstream.requests[0]["tools"] == [CHAT_TOOL]
    assert (upstream.requests[0]["tool_choice"], upstream.requests[0]["parallel_tool_calls"]) == ("auto", False)
    _check_round(upstream.messages[1])


async def _streamed_call(chunks: Any) -> Any:
    """The one tool call of a chat stream, its arguments put together."""
    whole: Any = None
    async for chunk in chunks:
        for piece in chunk.choices[0].delta.tool_calls or ():
            if whole is None:
                whole = piece
            else:
                whole.function.arguments += piece.function.arguments
    return whole


def _check_round(messages: Sequence[Message]) -> None:
    user, assistant, tool = messages
    assert user == {"role": "user", "content": "weather?"}
    function = {"name": "weather", "arguments": '{"city": "Wien"}'}
    assert assistant["role"] == "assistant"
    assert assistant["tool_calls"] == [{"id": "call_7", "type": "function", "function": function}]
    assert tool == {"role": "tool", "tool_call_id": "call_7", "content": "12 °C"}


@streamed_or_not
@pytest.mark.parametrize("name", ["slug", "session", "previous", "nothing"])
async def test_a_function_tool_goes_round_in_responses(
    server: Server, upstream: Upstream, stream: bool, name: str
) -> None:
    upstream.script = lambda body: (
        says("rain") if body["messages"][-1]["role"] == "tool" else calls("weather", '{"city": "Wien"}', "call_7")
    )
    named: dict[str, dict[str, Any]] = {"slug": {"conversation": "slug"}, "session": {"extra_headers": session("s1")}}
    options = named.get(name, {})
    if stream:
        async with server.openai.responses.stream(model="m", input="weather?", tools=[RESPONSES_TOOL], **options) as s:
            arguments = [event.delta async for event in s if event.type == "response.function_call_arguments.delta"]
            first: openai.types.responses.Response = await s.get_final_response()
        assert "".join(arguments) == '{"city": "Wien"}'
    else:
        first = await server.openai.responses.create(model="m", input="weather?", tools=[RESPONSES_TOOL], **options)
    (call,) = first.output
    assert isinstance(call, ResponseFunctionToolCall)
    assert (call.call_id, call.name, call.arguments) == ("call_7", "weather", '{"city": "Wien"}')
    output: Any = {"type": "function_call_output", "call_id": "call_7", "output": "12 °C"}
    if name == "nothing":
        # The SDK's stateless way: everything again, the model's own items as it gave them.
        again: list[Any] = [{"role": "user", "content": "weather?"}, call.model_dump(exclude_none=True), output]
        second = await server.openai.responses.create(model="m", input=again, tools=[RESPONSES_TOOL])
    else:
        if name == "previous":
            options = {"previous_response_id": first.id}
        second = await server.openai.responses.create(model="m", input=[output], tools=[RESPONSES_TOOL], **options)
    assert second.output_text == "rain"
    (tool,) = upstream.requests[0]["tools"]
    assert (tool["type"], tool["function"]) == (
        "function",
        {"name": "weather", "description": "Tells it.", "parameters": SCHEMA, "strict": False},
    )
    _check_round(upstream.messages[1])


async def test_two_tool_calls_at_once_are_answered_together(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: STREAMED["text, then two tool calls"]
    stream = await post(
        server, "/v1/responses", {"model": "m", "input": "go", "stream": True, "conversation": "s", "tools": []}
    )
    outputs = [
        {"type": "function_call_output", "call_id": item["call_id"], "output": item["name"]}
        for item in stream.final["output"]
        if item["type"] == "function_call"
    ]
    upstream.script = echo
    assert (await post(server, "/v1/responses", {"model": "m", "input": outputs, "conversation": "s"})).status == 200
    user, assistant, *tools = upstream.messages[1]
    assert user["content"] == "go"
    assert assistant["content"] == "I look"
    assert [(call["id"], call["function"]["arguments"]) for call in assistant["tool_calls"]] == [
        ("c0", '{"x":1}'),
        ("c1", "{}"),
    ]
    assert tools == [
        {"role": "tool", "tool_call_id": "c0", "content": "a"},
        {"role": "tool", "tool_call_id": "c1", "content": "b"},
    ]


async def test_a_forced_tool_is_named_in_each_apis_own_way(server: Server, upstream: Upstream) -> None:
    nested = {"type": "function", "function": {"name": "weather"}}
    await server.chat("one", tools=[CHAT_TOOL], tool_choice=nested)
    await server.openai.responses.create(
        model="m", input="one", tools=[RESPONSES_TOOL], tool_choice={"type": "function", "name": "weather"}
    )
    assert [request["tool_choice"] for request in upstream.requests] == [nested, nested]


async def test_pictures_reach_the_model_from_both_apis(server: Server, upstream: Upstream) -> None:
    part = {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}}
    text = {"type": "text", "text": "what is this?"}
    await server.openai.chat.completions.create(
        model="m",
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "what is this?"},
                    {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}},
                ],
            }
        ],
        extra_headers=session("s1"),
    )
    await server.openai.responses.create(
        model="m",
        input=[
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "what is this?"},
                    {"type": "input_image", "image_url": PICTURE, "detail": "low"},
                ],
            }
        ],
        extra_headers=session("s1"),
    )
    assert upstream.messages[0] == [{"role": "user", "content": [text, part]}]
    assert upstream.messages[1][0] == upstream.messages[1][2] == {"role": "user", "content": [text, part]}


class Place(BaseModel):
    """What the model is asked to fill in."""

    city: str


async def test_a_response_format_reaches_the_model_and_the_sdk_parses_the_answer(
    server: Server, upstream: Upstream
) -> None:
    upstream.script = lambda _: says('{"city": "Wien"}')
    chat = await server.openai.chat.completions.parse(
        model="m", messages=[{"role": "user", "content": "where?"}], response_format=Place
    )
    response = await server.openai.responses.parse(model="m", input="where?", text_format=Place)
    assert chat.choices[0].message.parsed == response.output_parsed == Place(city="Wien")
    by_chat, by_responses = (request["response_format"] for request in upstream.requests)
    assert by_chat == by_responses
    assert by_chat["type"] == "json_schema"
    assert (by_chat["json_schema"]["name"], by_chat["json_schema"]["strict"]) == ("Place", True)
    assert by_chat["json_schema"]["schema"]["required"] == ["city"]


async def test_a_json_object_format_reaches_the_model_from_both_apis(server: Server, upstream: Upstream) -> None:
    await server.chat("json!", response_format={"type": "json_object"})
    response = await server.openai.responses.create(
        model="m", input="json!", text={"format": {"type": "json_object"}, "verbosity": "low"}
    )
    assert [request["response_format"] for request in upstream.requests] == [{"type": "json_object"}] * 2
    assert upstream.requests[1]["verbosity"] == "low"
    assert response.text is not None
    assert response.text.format is not None
    assert response.text.format.type == "json_object"


@streamed_or_not
async def test_chat_parameters_reach_the_model_unchanged(server: Server, upstream: Upstream, stream: bool) -> None:
    ours = {"model": "m", "messages": said("one"), "stream": stream}
    parameters = {
        "temperature": 0.1,
        "top_p": 0.95,
        "seed": 12345678901,
        "stop": ["\n", "END"],
        "n": 1,
        "presence_penalty": -0.5,
        "frequency_penalty": 0.25,
        "logit_bias": {"50256": -100},
        "max_tokens": 77,
        "max_completion_tokens": 78,
        "logprobs": True,
        "top_logprobs": 3,
        "reasoning_effort": "low",
        "user": "ada",
        "top_k": 40,
        "min_p": 0.05,
        "chat_template_kwargs": {"enable_thinking": False, "deep": [1, 2.50, None]},
    }
    answer = await post(server, "/v1/chat/completions", ours | parameters)
    assert answer.status == 200
    sent = upstream.requests[0]
    assert {name: sent.get(name) for name in parameters} == parameters
    assert sent["messages"] == said("one")


@streamed_or_not
async def test_response_parameters_reach_the_model_translated(server: Server, upstream: Upstream, stream: bool) -> None:
    same = {"temperature": 0.1, "top_p": 0.95, "parallel_tool_calls": True, "user": "ada", "service_tier": "flex"}
    vendor = {"top_k": 40, "min_p": 0.05, "chat_template_kwargs": {"enable_thinking": False}}
    other = {"max_output_tokens": 77, "reasoning": {"effort": "low"}, "metadata": {"a": "b"}, "truncation": "auto"}
    body = {"model": "m", "input": "one", "stream": stream, **same, **vendor, **other}
    answer = await post(server, "/v1/responses", body)
    assert answer.status == 200
    sent = upstream.requests[0]
    assert {name: sent.get(name) for name in same | vendor} == same | vendor
    assert 77 in (sent.get("max_completion_tokens"), sent.get("max_tokens"))
    assert sent["reasoning_effort"] == "low"
    assert not sent.keys() & {"input", "instructions", "max_output_tokens", "reasoning", "conversation", "truncation"}
    response = answer.final if stream else msgspec.json.decode(answer.body)
    for name, value in {**same, "max_output_tokens": 77, "metadata": {"a": "b"}, "truncation": "auto"}.items():
        assert response[name] == value


@pytest.mark.parametrize("model", ["gpt-x", "org/model-7b:q4_K_M@sha256", "Модель"])
async def test_model_names_pass_through(server: Server, upstream: Upstream, model: str) -> None:
    chat = await server.openai.chat.completions.create(model=model, messages=[{"role": "user", "content": "one"}])
    response = await server.openai.responses.create(model=model, input="one")
    assert [request["model"] for request in upstream.requests] == [model, model]
    assert (chat.model, response.model) == (model, model)


async def test_models_are_the_upstreams(server: Server) -> None:
    models = (await server.openai.models.list()).data
    assert [(model.id, model.created, model.owned_by) for model in models] == [("m1", 5, "me")]


# What is not to be stored


@streamed_or_not
async def test_a_chat_that_is_not_stored_leaves_nothing(
    server: Server, data: Path, upstream: Upstream, stream: bool
) -> None:
    await server.chat("one", "s1")
    before = await recorded(data)
    body = {"model": "m", "messages": said("secret"), "store": False, "stream": stream}
    answers = [
        await post(server, "/v1/chat/completions", body),
        await post(server, "/v1/chat/completions", body, X_Hermes_Session_Id="s1"),
        await post(server, "/v1/chat/completions", body, X_Hermes_Session_Id="never-seen"),
    ]
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert not [answer for answer in answers if SESSION_ID.lower() in answer.headers]
    assert await recorded(data) == before
    await server.get("/api/sessions/never-seen", status=404)
    await server.chat("two", "s1")
    assert upstream.messages[-1] == said("one", "1: one", "two")


@streamed_or_not
async def test_a_response_that_is_not_stored_leaves_nothing_and_moves_no_slug(
    server: Server, data: Path, upstream: Upstream, stream: bool
) -> None:
    first = await ask(server, "one", conversation="slug")
    before = await recorded(data)
    secret, text = await response_text(server, "secret", stream=stream, conversation="slug", store=False)
    aside, _ = await response_text(server, "aside", stream=stream, previous_response_id=first, store=False)
    nowhere, _ = await response_text(server, "nowhere", stream=stream, conversation="new-slug", store=False)
    assert text == "3: secret"
    assert await recorded(data) == before
    for response_id in (secret, aside, nowhere):
        with pytest.raises(openai.NotFoundError):
            await server.openai.responses.retrieve(response_id)
        with pytest.raises(openai.NotFoundError) as refused:
            await server.openai.responses.create(model="m", input="x", previous_response_id=response_id)
        assert refused.value.code == "previous_response_not_found"
    await ask(server, "two", conversation="slug")
    assert upstream.messages[-1] == said("one", "1: one", "two")
    await ask(server, "fresh", conversation="new-slug")
    assert upstream.messages[-1] == said("fresh")


async def test_a_response_that_is_not_stored_says_so_and_names_no_session(server: Server) -> None:
    raw = await server.openai.responses.with_raw_response.create(model="m", input="one", store=False)
    assert SESSION_ID not in raw.headers
    assert raw.http_response.json()["store"] is False


# One conversation under several names


async def test_a_session_by_header_and_by_slug_is_one_transcript(server: Server, upstream: Upstream) -> None:
    await chat_text(server, "one", "s1", stream=False)
    await ask(server, "two", conversation="slug", extra_headers=session("s1"))
    await chat_text(server, "three", "s1", stream=True)
    newest = await ask(server, "four", conversation="slug")
    raw = await server.openai.responses.with_raw_response.create(
        model="m", input="five", previous_response_id=newest, stream=True
    )
    _ = [event async for event in raw.parse()]
    assert raw.headers[SESSION_ID] == "s1"
    assert upstream.messages[-1] == said(
        *("one", "1: one", "two", "3: two", "three", "5: three", "four", "7: four", "five")
    )
    assert contents(await server.messages("s1"))[-2:] == ["five", "9: five"]


async def test_an_unknown_slug_with_an_unknown_session_header_binds_both(server: Server, upstream: Upstream) -> None:
    await ask(server, "one", conversation="slug", extra_headers=session("s1"))
    await chat_text(server, "two", "s1", stream=False)
    await ask(server, "three", conversation="slug")
    assert upstream.messages[-1] == said("one", "1: one", "two", "3: two", "three")


async def test_a_binding_of_slug_and_session_outlives_a_restart(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        await chat_text(server, "one", "s1", stream=False)
        await ask(server, "two", conversation="slug", extra_headers=session("s1"))
    async with serving(data, upstream=upstream.url) as server:
        await ask(server, "three", conversation="slug")
        with pytest.raises(openai.BadRequestError):
            await ask(server, "four", conversation="slug", extra_headers=session("s2"))
    assert upstream.messages[-1] == said("one", "1: one", "two", "3: two", "three")


@streamed_or_not
@pytest.mark.parametrize("session_id", ["s1", "never-seen"])
async def test_names_of_different_lineages_are_refused_and_change_nothing(
    server: Server, data: Path, upstream: Upstream, session_id: str, stream: bool
) -> None:
    await server.chat("one", "s1")
    other = await ask(server, "uno", conversation="slug")
    before = await recorded(data)
    for names in ({"conversation": "slug"}, {"previous_response_id": other}):
        body = {"model": "m", "input": "x", "stream": stream, **names}
        answer = await post(server, "/v1/responses", body, X_Hermes_Session_Id=session_id)
        assert answer.status == 400
        assert answer.headers["content-type"].startswith("application/json")
        error = msgspec.json.decode(answer.body)["error"]
        assert error["code"] == "session_mismatch"
        assert error.keys() == {"message", "type", "param", "code"}
    assert await recorded(data) == before
    assert len(upstream.requests) == 2


async def test_a_response_of_the_headers_own_session_is_taken(server: Server, upstream: Upstream) -> None:
    first = await ask(server, "one", extra_headers=session("s1"))
    second = await ask(server, "two", extra_headers=session("s1"), previous_response_id=first)
    assert upstream.messages[-1] == said("one", "1: one", "two")
    assert (await server.openai.responses.retrieve(second)).previous_response_id == first


@streamed_or_not
@pytest.mark.parametrize("unknown", ["resp_unknown", "not-even-one", "resp_" + "0" * 28])
async def test_an_unknown_previous_response_is_404(
    server: Server, upstream: Upstream, stream: bool, unknown: str
) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        await server.openai.responses.create(model="m", input="x", previous_response_id=unknown, stream=stream)
    error = refused.value
    assert (error.status_code, error.code, error.param) == (
        404,
        "previous_response_not_found",
        "previous_response_id",
    )
    assert error.response.headers["content-type"].startswith("application/json")
    assert not upstream.requests


async def test_a_conversation_and_a_previous_response_together_are_refused(server: Server) -> None:
    first = await ask(server, "one", conversation="slug")
    with pytest.raises(openai.BadRequestError, match="Cannot use both"):
        await ask(server, "two", conversation="slug", previous_response_id=first)


async def test_a_server_made_conversation_id_that_was_never_made_is_404(server: Server, upstream: Upstream) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        await ask(server, "one", conversation="conv_0123456789abcdef")
    assert refused.value.status_code == 404
    assert not upstream.requests


# Forks


async def test_continuing_from_an_older_response_forks_and_leaves_the_original_untouched(
    server: Server, upstream: Upstream
) -> None:
    first = await ask(server, "one", extra_headers=session("s1"))
    await ask(server, "two", extra_headers=session("s1"))
    _, left = await fork(server, "left", first)
    _, right = await fork(server, "right", first)
    assert len({"s1", left, right}) == 3
    assert upstream.messages[2] == said("one", "1: one", "left")
    assert upstream.messages[3] == said("one", "1: one", "right")
    assert await parent_of(server, "s1") is None
    assert [await parent_of(server, child) for child in (left, right)] == ["s1", "s1"]
    assert contents(await server.messages("s1")) == ["one", "1: one", "two", "3: two"]
    assert contents(await server.messages(left)) == ["one", "1: one", "left", "3: left"]
    assert contents(await server.messages(right)) == ["one", "1: one", "right", "3: right"]
    await ask(server, "three", extra_headers=session("s1"))
    assert upstream.messages[4] == said("one", "1: one", "two", "3: two", "three")


async def test_a_fork_goes_on_by_its_session_and_its_responses_across_a_restart(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        first = await ask(server, "one", conversation="slug")
        await ask(server, "two", conversation="slug")
        child, child_session = await fork(server, "other", first)
    async with serving(data, upstream=upstream.url) as server:
        grandchild = await ask(server, "more", previous_response_id=child)
        await chat_text(server, "most", child_session, stream=False)
        assert upstream.messages[-1] == said("one", "1: one", "other", "3: other", "more", "5: more", "most")
        assert (await server.openai.responses.retrieve(grandchild)).output_text == "5: more"
        await ask(server, "three", conversation="slug")
        assert upstream.messages[-1] == said("one", "1: one", "two", "3: two", "three")


async def test_a_fork_can_be_forked(server: Server, upstream: Upstream) -> None:
    first = await ask(server, "one")
    await ask(server, "two", previous_response_id=first)
    child, child_session = await fork(server, "a", first)
    grown, grown_session = await fork(server, "b", child)
    grandchild, grandchild_session = await fork(server, "c", child)
    assert grown_session == child_session
    assert upstream.messages[-1] == said("one", "1: one", "a", "3: a", "c")
    assert await parent_of(server, grandchild_session) == child_session
    _, again = await fork(server, "d", first)
    assert upstream.messages[-1] == said("one", "1: one", "d")
    assert again not in (child_session, grandchild_session)
    await ask(server, "e", previous_response_id=grandchild)
    assert upstream.messages[-1] == said("one", "1: one", "a", "3: a", "c", "5: c", "e")
    await ask(server, "f", previous_response_id=grown)
    assert upstream.messages[-1] == said("one", "1: one", "a", "3: a", "b", "5: b", "f")


@streamed_or_not
async def test_a_fork_that_fails_leaves_the_original_usable(server: Server, upstream: Upstream, stream: bool) -> None:
    first = await ask(server, "one", conversation="slug")
    await ask(server, "two", conversation="slug")
    upstream.script = lambda _: Reply(status=500, body={"error": {"message": "no"}})
    with pytest.raises(openai.APIStatusError) as refused:
        await server.openai.responses.create(model="m", input="x", previous_response_id=first, stream=stream)
    assert refused.value.status_code == 502
    upstream.script = echo
    await ask(server, "three", conversation="slug")
    assert upstream.messages[-1] == said("one", "1: one", "two", "3: two", "three")
    await ask(server, "other", previous_response_id=first)
    assert upstream.messages[-1] == said("one", "1: one", "other")


async def test_trying_again_after_a_failed_turn_goes_on_and_does_not_fork(server: Server, upstream: Upstream) -> None:
    first = await ask(server, "one", extra_headers=session("s1"))
    upstream.script = lambda _: Reply(status=500, body={"error": {"message": "no"}})
    with pytest.raises(openai.InternalServerError):
        await fork(server, "two", first)
    upstream.script = echo
    _, effective = await fork(server, "two", first)
    assert effective == "s1"
    assert upstream.messages[-1] == said("one", "1: one", "two")
    statuses = [(message["content"], message["status"]) for message in await server.messages("s1")]
    assert statuses == [
        *[("one", "completed"), ("1: one", "completed")],
        *[("two", "failed")],
        *[("two", "completed"), ("3: two", "completed")],
    ]


# Deleting responses


async def test_a_deleted_response_is_gone_and_its_conversation_goes_on(server: Server, upstream: Upstream) -> None:
    first = await ask(server, "one", conversation="slug", extra_headers=session("s1"))
    second = await ask(server, "two", conversation="slug")
    async with server.http.delete(f"/v1/responses/{second}") as deleted:
        assert await deleted.json() == {"id": second, "object": "response", "deleted": True}
    for attempt in (
        server.openai.responses.retrieve(second),
        server.openai.responses.delete(second),
        server.openai.responses.create(model="m", input="x", previous_response_id=second),
    ):
        with pytest.raises(openai.NotFoundError):
            await attempt
    assert (await server.openai.responses.retrieve(first)).output_text == "1: one"
    await ask(server, "three", conversation="slug")
    await chat_text(server, "four", "s1", stream=False)
    assert upstream.messages[-1] == said("one", "1: one", "two", "3: two", "three", "5: three", "four")


async def test_deleting_a_parent_keeps_its_children_readable_and_continuable(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        first = await ask(server, "one")
        second = await ask(server, "two", previous_response_id=first)
        third = await ask(server, "three", previous_response_id=second)
        child, _ = await fork(server, "other", first)
        await server.openai.responses.delete(first)
        await server.openai.responses.delete(second)
    async with serving(data, upstream=upstream.url) as server:
        assert (await server.openai.responses.retrieve(third)).previous_response_id == second
        await ask(server, "four", previous_response_id=third)
        assert upstream.messages[-1] == said("one", "1: one", "two", "3: two", "three", "5: three", "four")
        await ask(server, "more", previous_response_id=child)
        assert upstream.messages[-1] == said("one", "1: one", "other", "3: other", "more")
        for gone in (first, second):
            with pytest.raises(openai.NotFoundError):
                await server.openai.responses.retrieve(gone)


# Who speaks

APIS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "one"}]}),
    "responses": ("/v1/responses", {"model": "m", "input": "one"}),
}
both_apis = pytest.mark.parametrize("api", APIS)


@both_apis
@streamed_or_not
async def test_identity_and_session_key_are_echoed_and_recorded(
    server: Server, data: Path, api: str, stream: bool
) -> None:
    path, body = APIS[api]
    headers = {SESSION_ID: "s1", SESSION_KEY: "agent:main:ada", **IDENTITY}
    answer = await post(server, path, body | {"stream": stream}, **headers)
    assert answer.status == 200
    assert {name: answer.headers.get(name.lower()) for name in headers} == headers
    entry = (await server.get("/api/sessions/s1"))["session"]
    assert (entry["user_id"], entry["session_key"]) == ("u-1", "agent:main:ada")
    (started,) = [event.event for event in await recorded(data) if isinstance(event.event, SessionStarted)]
    assert msgspec.structs.astuple(started.identity) == tuple(IDENTITY.values())
    assert started.session_key == "agent:main:ada"


@both_apis
@streamed_or_not
async def test_the_bodys_user_stands_in_for_the_user_header(server: Server, api: str, stream: bool) -> None:
    path, body = APIS[api]
    body = {**body, "stream": stream, "user": "body-user"}
    answer = await post(server, path, body, X_Hermes_Session_Id="s1")
    assert answer.headers["x-hermes-user-id"] == "body-user"
    assert (await server.get("/api/sessions/s1"))["session"]["user_id"] == "body-user"
    answer = await post(server, path, body, X_Hermes_Session_Id="s2", X_Hermes_User_Id="header-user")
    assert answer.headers["x-hermes-user-id"] == "header-user"
    assert (await server.get("/api/sessions/s2"))["session"]["user_id"] == "header-user"


async def test_a_session_key_does_not_choose_the_session(server: Server, upstream: Upstream) -> None:
    headers = {SESSION_KEY: "one-scope"}
    for word in ("one", "two"):
        answer = await post(server, "/v1/chat/completions", {"model": "m", "messages": said(word)}, **headers)
        assert answer.headers[SESSION_KEY.lower()] == "one-scope"
    assert upstream.messages == [said("one"), said("two")]


async def test_names_that_are_not_ascii_are_echoed_as_they_came(server: Server) -> None:
    answer = await post(server, *APIS["chat"], X_Hermes_Session_Id="sitzung-ü", X_Hermes_User_Name="Ádám 🎈")
    assert answer.headers[SESSION_ID.lower()] == "sitzung-ü"
    assert answer.headers["x-hermes-user-name"] == "Ádám 🎈"


async def test_capabilities_advertise_the_headers(server: Server) -> None:
    answer = await server.get("/v1/capabilities")
    features = answer["features"]
    assert features["session_continuity_header"] == SESSION_ID
    assert features["session_key_header"] == SESSION_KEY
    assert set(IDENTITY) <= set(features["identity_headers"])
    assert answer["endpoints"]["chat_completions"] == {"method": "POST", "path": "/v1/chat/completions"}
    assert answer["endpoints"]["responses"] == {"method": "POST", "path": "/v1/responses"}
