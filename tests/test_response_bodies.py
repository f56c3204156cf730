"""A prompt as the body of a request to a Responses server: pure translation, and what it can not say."""

from typing import Any

import msgspec
import pytest

from api.models.model import REASONING_SUMMARY, ModelRefused, Prompt
from api.models.response_body import THOUGHTS, body_of
from api.models.response_items import input_items

encode = msgspec.json.encode

THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}


def items(*messages: Any, with_thoughts: bool = True) -> list[dict[str, Any]]:
    """The input items of chat messages."""
    return input_items([encode(message) for message in messages], with_thoughts=with_thoughts)


def body(with_thoughts: bool = True, **parameters: Any) -> dict[str, Any]:
    """What is sent with those parameters, besides what always is."""
    raw = {name: msgspec.Raw(encode(value)) for name, value in parameters.items()}
    prompt = Prompt("m", [encode({"role": "user", "content": "hi"})], 0, 30, raw)
    sent: dict[str, Any] = msgspec.json.decode(body_of(prompt, stream=False, with_thoughts=with_thoughts))
    assert sent.pop("model") == "m"
    assert sent.pop("input") == [{"type": "message", "role": "user", "content": "hi"}]
    assert sent.pop("store") is False
    return sent


def assistant(item_id: str, *parts: dict[str, Any]) -> dict[str, Any]:
    """A message item of the assistant's."""
    return {"type": "message", "id": item_id, "role": "assistant", "status": "completed", "content": list(parts)}


def text(said: str) -> dict[str, Any]:
    """A part of it."""
    return {"type": "output_text", "text": said, "annotations": []}


def call(kind: str = "function", **called: Any) -> dict[str, Any]:
    """A message that calls a tool."""
    return {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": kind, kind: called}]}


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({"role": "system", "content": "s"}, [{"type": "message", "role": "system", "content": "s"}]),
        ({"role": "developer", "content": "d"}, [{"type": "message", "role": "developer", "content": "d"}]),
        ({"role": "user", "content": "u", "name": "ada"}, [{"type": "message", "role": "user", "content": "u"}]),
        ({"role": "assistant", "content": "a"}, [assistant("msg_0", text("a"))]),
        ({"role": "assistant", "content": [{"type": "text", "text": "a"}]}, [assistant("msg_0", text("a"))]),
        (
            {"role": "assistant", "content": None, "refusal": "no"},
            [assistant("msg_0", {"type": "refusal", "refusal": "no"})],
        ),
        ({"role": "assistant", "content": "", "reasoning_content": "hm"}, []),
        (
            {"role": "assistant", "content": "a", "reasoning_items": [{"index": 0} | THOUGHT]},
            [THOUGHT, assistant("msg_0", text("a"))],
        ),
        (
            call(name="f", arguments="{}"),
            [{"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"}],
        ),
        (
            call("custom", name="g", input="x"),
            [{"type": "custom_tool_call", "call_id": "c1", "name": "g", "input": "x"}],
        ),
        (
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
            [{"type": "function_call", "call_id": "f", "name": "f", "arguments": "{}"}],
        ),
        (
            {"role": "function", "name": "f", "content": "5"},
            [{"type": "function_call_output", "call_id": "f", "output": "5"}],
        ),
        (
            {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "5"}]},
            [{"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "5"}]}],
        ),
        ("no message", [{"type": "message", "role": None, "content": ""}]),
    ],
    ids=str,
)
def test_a_chat_message_becomes_items(message: Any, expected: list[dict[str, Any]]) -> None:
    assert items(message) == expected


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"type": "text", "text": "t"}, {"type": "input_text", "text": "t"}),
        (
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}},
            {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "low"},
        ),
        (
            {"type": "image_url", "image_url": {"url": "https://x/y.png"}},
            {"type": "input_image", "image_url": "https://x/y.png", "detail": "auto"},
        ),
        (
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"}},
            {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"},
        ),
        ({"type": "file", "file": {"file_id": "file-1"}}, {"type": "input_file", "file_id": "file-1"}),
        (
            {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
            {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
        ),
        ({"type": "odd", "x": 1}, {"type": "odd", "x": 1}),
    ],
    ids=str,
)
def test_a_part_of_a_message_becomes_an_input_part(part: dict[str, Any], expected: dict[str, Any]) -> None:
    assert items({"role": "user", "content": [part]})[0]["content"] == [expected]


def test_the_output_of_a_custom_tool_is_told_from_that_of_a_function() -> None:
    made = items(call("custom", name="g", input="x"), {"role": "tool", "tool_call_id": "c1", "content": "5"})
    assert made[1] == {"type": "custom_tool_call_output", "call_id": "c1", "output": "5"}


def test_a_thought_that_nobody_could_read_is_left_out() -> None:
    summary_only = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]}
    in_text = summary_only | {"content": [{"type": "reasoning_text", "text": "hm"}]}
    said = {"role": "assistant", "content": None, "reasoning_items": [summary_only, in_text]}
    assert items(said) == [in_text]
    assert items(said, with_thoughts=False) == []


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"temperature": 0.5, "top_p": 1, "user": "ada"}, {"temperature": 0.5, "top_p": 1, "user": "ada"}),
        (
            {"parallel_tool_calls": False, "service_tier": "flex"},
            {"parallel_tool_calls": False, "service_tier": "flex"},
        ),
        ({"top_k": 5}, {"top_k": 5}),
        ({"max_tokens": 5}, {"max_output_tokens": 5}),
        ({"max_completion_tokens": 5}, {"max_output_tokens": 5}),
        ({"reasoning_effort": "low"}, {"reasoning": {"effort": "low"}}),
        (
            {"reasoning_effort": "low", REASONING_SUMMARY: "auto"},
            {"reasoning": {"effort": "low", "summary": "auto"}},
        ),
        (
            {
                "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}},
                "verbosity": "low",
            },
            {"text": {"format": {"type": "json_schema", "name": "n", "schema": {}}, "verbosity": "low"}},
        ),
        ({"response_format": {"type": "json_object"}}, {"text": {"format": {"type": "json_object"}}}),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]},
            {"tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": False}]},
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]},
            {"tools": [{"type": "function", "name": "f", "parameters": None, "strict": True}]},
        ),
        (
            {
                "tools": [
                    {
                        "type": "custom",
                        "custom": {
                            "name": "g",
                            "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "d"}},
                        },
                    }
                ]
            },
            {
                "tools": [
                    {"type": "custom", "name": "g", "format": {"type": "grammar", "syntax": "lark", "definition": "d"}}
                ]
            },
        ),
        ({"tool_choice": "required"}, {"tool_choice": "required"}),
        (
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            {"tool_choice": {"type": "function", "name": "f"}},
        ),
        (
            {"tool_choice": {"type": "custom", "custom": {"name": "g"}}},
            {"tool_choice": {"type": "custom", "name": "g"}},
        ),
        (
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]},
                }
            },
            {
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "auto",
                    "tools": [{"type": "function", "name": "f"}],
                }
            },
        ),
        (
            {"logprobs": True, "top_logprobs": 2},
            {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
        ),
        # What asks for nothing, as many clients do
        (
            {"n": 1, "stop": None, "seed": None, "presence_penalty": 0, "frequency_penalty": 0.0, "logprobs": False},
            {},
        ),
        ({"logit_bias": {}, "modalities": ["text"], "tools": [], "functions": []}, {}),
    ],
    ids=str,
)
def test_a_chat_parameter_is_named_as_the_responses_api_has_it(
    parameters: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert body(with_thoughts=False, **parameters) == expected


def test_thoughts_are_asked_for_beside_what_else_is_included() -> None:
    assert body() == {"include": [THOUGHTS]}
    assert body(logprobs=True)["include"] == [THOUGHTS, "message.output_text.logprobs"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2),
        ("stop", "END"),
        ("stop", ["END"]),
        ("seed", 0),
        ("presence_penalty", 0.5),
        ("frequency_penalty", -1),
        ("logit_bias", {"50256": -100}),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "ash", "format": "wav"}),
        ("prediction", {"type": "content", "content": "x"}),
        ("web_search_options", {}),
        ("functions", [{"name": "f"}]),
        ("function_call", {"name": "f"}),
    ],
)
def test_a_parameter_without_counterpart_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ModelRefused, match=f"'{name}'") as refused:
        body(**{name: value})
    assert (refused.value.status, refused.value.code, refused.value.param) == (400, "unsupported_parameter", name)
