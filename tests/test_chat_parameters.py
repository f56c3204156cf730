"""Every parameter of a chat completion: refused by name where it is wrong, passed on byte for byte where it is not."""

import inspect
from typing import Any, NamedTuple

import msgspec
import pytest
from openai.resources.chat.completions import AsyncCompletions
from openai.types.chat import completion_create_params

from tests.support.api import call
from tests.support.server import Server
from tests.support.upstream import USAGE, Reply, Upstream, says

PATH = "/v1/chat/completions"
HI = {"role": "user", "content": "hi"}
MISSING = "missing_required_parameter"
INVALID = "invalid_value"
FUNCTION = {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True}
SCHEMA = {"name": "s", "schema": {"type": "object", "x": 1.50}, "strict": True}

# One good value at least of everything that is passed on to the model server.
PASSED_ON: list[dict[str, Any]] = [
    {"audio": {"format": "wav", "voice": "alloy"}, "modalities": ["text", "audio"]},
    {"audio": {"format": "mp3", "voice": {"id": "voice_1"}}},
    {"frequency_penalty": -2, "presence_penalty": 2},
    {"functions": [{"name": "f", "parameters": {}}], "function_call": "auto"},
    {"functions": [{"name": "f"}], "function_call": {"name": "f"}},
    {"logit_bias": {"50256": -100, "1": 100}},
    {"logprobs": True, "top_logprobs": 20},
    {"top_logprobs": 0},
    {"max_completion_tokens": 1},
    {"max_tokens": 10},
    {"moderation": {"model": "omni", "policy": {"input": {"mode": "score"}, "output": None}}},
    {"n": 128},
    {"parallel_tool_calls": False},
    {"prediction": {"type": "content", "content": "the same"}},
    {"prediction": {"type": "content", "content": [{"type": "text", "text": "the same"}]}},
    {"prompt_cache_key": "k", "prompt_cache_retention": "24h"},
    {"prompt_cache_options": {"mode": "explicit", "ttl": "30m"}},
    {"reasoning_effort": "xhigh", "verbosity": "low"},
    {"response_format": {"type": "text"}},
    {"response_format": {"type": "json_object"}},
    {"response_format": {"type": "json_schema", "json_schema": SCHEMA}},
    {"safety_identifier": "u" * 128, "service_tier": "flex", "user": "ada"},
    {"seed": -(2**63)},
    {"stop": "."},
    {"stop": ["a", "b", "c", "d"]},
    {"temperature": 2, "top_p": 0.1},
    {"tools": [{"type": "function", "function": FUNCTION}], "tool_choice": "required"},
    {"tools": [{"type": "custom", "custom": {"name": "sh", "format": {"type": "text"}}}]},
    {"tools": [{"type": "its_own", "anything": 1}]},
    {"tool_choice": {"type": "function", "function": {"name": "f"}}},
    {"tool_choice": {"type": "custom", "custom": {"name": "sh"}}},
    {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function"}]}}},
    {"web_search_options": {"search_context_size": "low", "user_location": None}},
    {"web_search_options": {"user_location": {"type": "approximate", "approximate": {"city": "Oslo"}}}},
    {"something_new": {"a": [1, 2.50, None]}},
]
HERE = frozenset({"messages", "model", "stream", "stream_options", "store", "metadata"})


class Wrong(NamedTuple):
    """Fields that are wrong, and how they are refused."""

    fields: dict[str, Any]
    param: str
    code: str = INVALID


WRONG = [
    Wrong({"audio": "x"}, "audio"),
    Wrong({"audio": {"voice": "alloy"}}, "audio.format", MISSING),
    Wrong({"audio": {"format": "wav"}}, "audio.voice", MISSING),
    Wrong({"audio": {"format": "wav", "voice": 5}}, "audio.voice"),
    Wrong({"audio": {"format": "wav", "voice": {}}}, "audio.voice.id", MISSING),
    Wrong({"frequency_penalty": -2.1}, "frequency_penalty"),
    Wrong({"function_call": 5}, "function_call"),
    Wrong({"function_call": {}}, "function_call.name", MISSING),
    Wrong({"functions": {}}, "functions"),
    Wrong({"functions": [{"description": "x"}]}, "functions[0].name", MISSING),
    Wrong({"functions": [FUNCTION, {"name": "f", "parameters": []}]}, "functions[1].parameters"),
    Wrong({"logit_bias": []}, "logit_bias"),
    Wrong({"logit_bias": {"1": "x"}}, "logit_bias"),
    Wrong({"logit_bias": {"1": 101}}, "logit_bias"),
    Wrong({"logprobs": "x"}, "logprobs"),
    Wrong({"top_logprobs": 2}, "top_logprobs"),
    Wrong({"top_logprobs": 2, "logprobs": False}, "top_logprobs"),
    Wrong({"max_completion_tokens": 0}, "max_completion_tokens"),
    Wrong({"max_tokens": "x"}, "max_tokens"),
    Wrong({"modalities": "text"}, "modalities"),
    Wrong({"modalities": [1]}, "modalities[0]"),
    Wrong({"moderation": {}}, "moderation.model", MISSING),
    Wrong({"moderation": {"model": "m", "policy": {"input": {}}}}, "moderation.policy.input.mode", MISSING),
    Wrong({"n": 0}, "n"),
    Wrong({"n": 129}, "n"),
    Wrong({"n": "x"}, "n"),
    Wrong({"parallel_tool_calls": 1}, "parallel_tool_calls"),
    Wrong({"prediction": "x"}, "prediction"),
    Wrong({"prediction": {"content": "x"}}, "prediction.type", MISSING),
    Wrong({"prediction": {"type": "content"}}, "prediction.content", MISSING),
    Wrong({"prediction": {"type": "content", "content": [{"type": "text"}]}}, "prediction.content[0].text", MISSING),
    Wrong({"presence_penalty": "x"}, "presence_penalty"),
    Wrong({"prompt_cache_key": 5}, "prompt_cache_key"),
    Wrong({"prompt_cache_options": "x"}, "prompt_cache_options"),
    Wrong({"prompt_cache_options": {"ttl": 30}}, "prompt_cache_options.ttl"),
    Wrong({"prompt_cache_retention": 24}, "prompt_cache_retention"),
    Wrong({"reasoning_effort": 5}, "reasoning_effort"),
    Wrong({"response_format": {}}, "response_format.type", MISSING),
    Wrong({"response_format": {"type": "json_schema"}}, "response_format.json_schema", MISSING),
    Wrong({"response_format": {"type": "json_schema", "json_schema": {}}}, "response_format.json_schema.name", MISSING),
    Wrong(
        {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": "x"}}},
        "response_format.json_schema.schema",
    ),
    Wrong({"safety_identifier": "u" * 129}, "safety_identifier"),
    Wrong({"seed": 1.5}, "seed"),
    Wrong({"service_tier": 5}, "service_tier"),
    Wrong({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
    Wrong({"stop": [1]}, "stop[0]"),
    Wrong({"stream_options": {}}, "stream_options"),
    Wrong({"stream_options": {"include_usage": True}, "stream": False}, "stream_options"),
    Wrong({"stream_options": {"include_obfuscation": "x"}, "stream": True}, "stream_options.include_obfuscation"),
    Wrong({"stream_options": "x", "stream": True}, "stream_options"),
    Wrong({"temperature": 2.1}, "temperature"),
    Wrong({"tools": [{"type": "function"}]}, "tools[0].function", MISSING),
    Wrong({"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name", MISSING),
    Wrong({"tools": [{"type": "function", "function": {"name": 5}}]}, "tools[0].function.name"),
    Wrong({"tools": [{"type": "custom"}]}, "tools[0].custom", MISSING),
    Wrong({"tool_choice": {}}, "tool_choice.type", MISSING),
    Wrong({"tool_choice": {"type": "function"}}, "tool_choice.function", MISSING),
    Wrong({"tool_choice": {"type": "function", "function": {}}}, "tool_choice.function.name", MISSING),
    Wrong({"tool_choice": {"type": "custom"}}, "tool_choice.custom", MISSING),
    Wrong({"tool_choice": {"type": "allowed_tools"}}, "tool_choice.allowed_tools", MISSING),
    Wrong(
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}}},
        "tool_choice.allowed_tools.tools",
        MISSING,
    ),
    Wrong({"top_p": -1}, "top_p"),
    Wrong({"verbosity": 5}, "verbosity"),
    Wrong({"web_search_options": "x"}, "web_search_options"),
    Wrong({"web_search_options": {"user_location": {}}}, "web_search_options.user_location.type", MISSING),
]


def in_parts(*parts: dict[str, Any]) -> dict[str, Any]:
    """A request whose second message has these parts behind a text."""
    return {"messages": [HI, {"role": "user", "content": [{"type": "text", "text": "x"}, *parts]}]}


def behind(*messages: dict[str, Any]) -> dict[str, Any]:
    """A request with these messages behind a user's."""
    return {"messages": [HI, *messages]}


PART = "messages[1].content[1]"
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
WRONG_MESSAGES = [
    Wrong(in_parts({"type": "text"}), f"{PART}.text", MISSING),
    Wrong(in_parts({"type": "image_url"}), f"{PART}.image_url", MISSING),
    Wrong(in_parts({"type": "image_url", "image_url": {}}), f"{PART}.image_url.url", MISSING),
    Wrong(in_parts({"type": "image_url", "image_url": "x"}), f"{PART}.image_url"),
    Wrong(in_parts({"type": "image_url", "image_url": {"url": "x", "detail": 5}}), f"{PART}.image_url.detail"),
    Wrong(in_parts({"type": "input_audio"}), f"{PART}.input_audio", MISSING),
    Wrong(in_parts({"type": "input_audio", "input_audio": {"data": "x"}}), f"{PART}.input_audio.format", MISSING),
    Wrong(in_parts({"type": "file"}), f"{PART}.file", MISSING),
    Wrong(in_parts({"type": "file", "file": {"file_id": 5}}), f"{PART}.file.file_id"),
    Wrong(in_parts({"type": "refusal"}), f"{PART}.refusal", MISSING),
    Wrong(in_parts({"type": 5}), f"{PART}.type"),
    Wrong(
        {"messages": [{"role": "system", "content": [{"type": "text"}]}, HI]}, "messages[0].content[0].text", MISSING
    ),
    Wrong(behind({"role": "tool", "content": "x"}), "messages[1].tool_call_id", MISSING),
    Wrong(behind({"role": "tool", "content": "x", "tool_call_id": 5}), "messages[1].tool_call_id"),
    Wrong(behind({"role": "function", "content": "x"}), "messages[1].name", MISSING),
    Wrong(behind({"role": "assistant", "tool_calls": {}}, HI), "messages[1].tool_calls"),
    Wrong(behind({"role": "assistant", "tool_calls": [5]}, HI), "messages[1].tool_calls[0]"),
    Wrong(
        behind({"role": "assistant", "tool_calls": [CALL | {"function": {}}]}, HI),
        "messages[1].tool_calls[0].function.name",
        MISSING,
    ),
    Wrong(behind({"role": "assistant", "audio": {}}, HI), "messages[1].audio.id", MISSING),
    Wrong(behind({"role": "assistant", "refusal": 5}, HI), "messages[1].refusal"),
]


async def send(server: Server, **fields: Any) -> dict[str, Any]:
    """The answer to a request with these fields."""
    return await call(server, "POST", PATH, 200, json={"model": "m", "messages": [HI]} | fields)


def test_no_parameter_of_the_sdk_is_left_out() -> None:
    """A new one is sorted in here, as checked and passed on or as turnlog's own."""
    names = set(inspect.get_annotations(completion_create_params.CompletionCreateParamsBase))
    arguments = {
        name for name in inspect.signature(AsyncCompletions.create).parameters if name[:5] not in ("self", "extra")
    }
    assert names | {"stream"} == arguments - {"timeout"}
    assert names | {"stream"} == HERE | {name for fields in PASSED_ON for name in fields} - {"something_new"}


async def test_what_is_right_goes_to_the_model_server_as_it_is(server: Server, upstream: Upstream) -> None:
    for fields in PASSED_ON:
        await send(server, **fields)
        assert upstream.requests[-1] == {"model": "m", "messages": [HI]} | fields


async def test_null_is_as_good_as_nothing(server: Server, upstream: Upstream) -> None:
    names = {name for fields in PASSED_ON for name in fields} | HERE - {"messages", "model"}
    await send(server, **dict.fromkeys(names))
    assert upstream.requests[-1] == {"model": "m", "messages": [HI]}


@pytest.mark.parametrize("wrong", [*WRONG, *WRONG_MESSAGES], ids=lambda wrong: str(wrong.fields)[:70])
async def test_what_is_wrong_is_400_and_named(server: Server, upstream: Upstream, wrong: Wrong) -> None:
    error = await call(server, "POST", PATH, 400, json={"model": "m", "messages": [HI]} | wrong.fields)
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", wrong.param, wrong.code)
    assert upstream.requests == []


async def test_parts_and_messages_of_every_kind_are_passed_on(server: Server, upstream: Upstream) -> None:
    parts = [
        {"type": "text", "text": "look", "prompt_cache_breakpoint": {"mode": "explicit"}},
        {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "original"}},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "AA=="}},
        {"type": "its_own", "its_own": 5},
    ]
    messages = [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}], "audio": {"id": "a1"}},
        {
            "role": "assistant",
            "tool_calls": [CALL, {"id": "c2", "type": "custom", "custom": {"name": "s", "input": "x"}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "12"}]},
        {"role": "function", "name": "f", "content": None},
        HI,
    ]
    await send(server, messages=messages)
    assert upstream.messages[-1] == messages


# Several choices


def token(text: str) -> dict[str, Any]:
    """Log probabilities of one token."""
    return {"content": [{"token": text, "logprob": -0.5, "bytes": None, "top_logprobs": []}], "refusal": None}


def choice(index: int, text: str, finish_reason: str, **more: Any) -> dict[str, Any]:
    """One of several choices of a whole answer."""
    message = {"role": "assistant", "content": text}
    return {"index": index, "message": message, "logprobs": token(text), "finish_reason": finish_reason} | more


CHOICES = [choice(0, "a", "stop"), choice(1, "b", "length"), choice(2, "c", "content_filter")]


def whole(**more: Any) -> Reply:
    """An answer of three choices, out of order."""
    return Reply(raw=msgspec.json.encode({"model": "m", "choices": CHOICES[::-1], "usage": USAGE} | more))


def streamed(*chunks: dict[str, Any]) -> Reply:
    """A stream of those chunks."""
    frames = [b"data: " + msgspec.json.encode({"model": "m", "choices": []} | chunk) + b"\n\n" for chunk in chunks]
    return Reply(raw=b"".join(frames) + b"data: [DONE]\n\n")


def delta(index: int, finish_reason: Any = None, *, logprobs: Any = None, **said: Any) -> dict[str, Any]:
    """A chunk of one choice."""
    return {"choices": [{"index": index, "delta": said, "finish_reason": finish_reason, "logprobs": logprobs}]}


STREAMED = streamed(
    *(delta(n, content=said["message"]["content"], logprobs=said["logprobs"]) for n, said in enumerate(CHOICES)),
    *(delta(n, said["finish_reason"]) for n, said in enumerate(CHOICES)),
    {"usage": USAGE},
)


async def test_every_choice_keeps_its_own_finish_and_its_own_logprobs(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: whole()
    made = await send(server, n=3, logprobs=True, store=True)
    assert made["choices"] == CHOICES
    assert (await server.get(f"{PATH}/{made['id']}"))["choices"] == CHOICES


async def test_a_stream_of_several_choices_is_stored_with_all_that_came(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: STREAMED
    chunks: Any = await server.openai.chat.completions.create(
        model="m",
        n=3,
        logprobs=True,
        store=True,
        stream=True,
        messages=[{"role": "user", "content": "hi"}],
    )
    seen = [(each.index, each.finish_reason, chunk) async for chunk in chunks for each in chunk.choices]
    assert [(index, finish) for index, finish, _ in seen if finish] == [
        (0, "stop"),
        (1, "length"),
        (2, "content_filter"),
    ]
    [stored] = (await server.get(PATH))["data"]
    assert stored["choices"] == CHOICES


async def test_the_first_choice_is_what_the_session_goes_on_with(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda body: whole() if "n" in body else says("ok")
    await server.chat("one", "s1", n=3)
    await server.chat("two", "s1")
    assert [message["content"] for message in upstream.messages[-1]] == ["one", "a", "two"]


async def test_a_replayed_stream_has_the_choices_of_the_first(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: whole(service_tier="flex", moderation={"input": 1})
    made = await call(server, "POST", PATH, 200, json=body(n=3), headers={"Idempotency-Key": "k"})
    frames = await raw_stream(server, n=3, headers={"Idempotency-Key": "k"})
    said = [each for frame in frames for each in frame["choices"]]
    assert [(each["index"], each["finish_reason"]) for each in said if each["finish_reason"]] == [
        (each["index"], each["finish_reason"]) for each in CHOICES
    ]
    assert {each["index"]: each["logprobs"] for each in said if each["finish_reason"]} == {
        each["index"]: each["logprobs"] for each in made["choices"]
    }
    assert {frame["service_tier"] for frame in frames} == {"flex"}
    assert [frame["moderation"] for frame in frames if "moderation" in frame] == [{"input": 1}]


# Streams


def body(**fields: Any) -> dict[str, Any]:
    """A request."""
    return {"model": "m", "messages": [HI]} | fields


async def raw_stream(server: Server, headers: dict[str, str] | None = None, **fields: Any) -> list[dict[str, Any]]:
    """All chunks of a stream, which ends as streams do."""
    async with server.http.post(PATH, json=body(stream=True, **fields), headers=headers) as answer:
        text = await answer.text()
    *frames, done, nothing = text.split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    return [msgspec.json.decode(frame.removeprefix("data: ")) for frame in frames]


async def test_usage_is_null_in_every_chunk_and_then_in_one_of_its_own(server: Server) -> None:
    options = {"include_usage": True, "include_obfuscation": True}
    *chunks, last = await raw_stream(server, stream_options=options)
    assert [chunk["usage"] for chunk in chunks] == [None] * len(chunks)
    assert all(chunk["choices"] for chunk in chunks)
    assert (last["choices"], last["usage"]) == ([], USAGE)


@pytest.mark.parametrize("options", [{}, {"include_usage": False}, {"include_obfuscation": False}, None])
async def test_without_being_asked_for_usage_comes_with_the_finish(server: Server, options: Any) -> None:
    *chunks, last = await raw_stream(server, stream_options=options)
    assert all("usage" not in chunk for chunk in chunks)
    assert (last["choices"][0]["finish_reason"], last["usage"]) == ("stop", USAGE)


async def test_usage_comes_once_however_many_choices_finish(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: STREAMED
    chunks = await raw_stream(server, n=3)
    assert ["usage" in chunk for chunk in chunks] == [False] * 5 + [True]


async def test_what_a_model_server_says_beside_the_text_reaches_the_client(server: Server, upstream: Upstream) -> None:
    annotation = {"type": "url_citation", "url_citation": {"url": "https://x", "title": "x"}}
    about = {"system_fingerprint": "fp", "service_tier": "priority"}
    extras = {"reasoning_content": "hm", "annotations": [annotation], "audio": {"id": "a1", "data": "AA=="}, "x": [1]}
    moderation = {"input": {"type": "moderation_results"}, "output": {"type": "error"}}
    upstream.script = lambda _: streamed(
        delta(0, **extras) | about, delta(0, "stop") | about, {"moderation": moderation} | about, {"usage": USAGE}
    )
    first, finish, moderated, usage = await raw_stream(server, store=True, stream_options={"include_usage": True})
    assert first["choices"][0]["delta"] == extras
    assert [chunk[name] for chunk in (first, finish, moderated) for name in about] == ["fp", "priority"] * 3
    assert (moderated["choices"], moderated["moderation"], moderated["usage"]) == ([], moderation, None)
    assert usage["usage"] == USAGE
    [stored] = (await server.get(PATH))["data"]
    assert (stored["service_tier"], stored["moderation"]) == ("priority", moderation)
    assert stored["choices"][0]["message"].items() >= extras.items()


async def test_a_whole_answer_keeps_its_tier_and_its_moderation(server: Server, upstream: Upstream) -> None:
    about = {"service_tier": "flex", "moderation": {"input": {"a": 1.50}}, "system_fingerprint": "fp"}
    upstream.script = lambda _: says("ok", extra=about)
    made = await send(server)
    assert {name: made[name] for name in about} == about
