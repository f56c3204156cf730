"""Responses items as chat messages."""

import json
from typing import Any

import msgspec
import pytest

from projections.messages import input_messages
from projections.turn import Turn
from tests.support.facts import started, user


def translated(*items: dict[str, Any]) -> list[dict[str, Any]]:
    turn = msgspec.structs.replace(
        started("t1", api="responses"), items=tuple(msgspec.json.encode(item) for item in items)
    )
    return [msgspec.json.decode(message) for message in input_messages(turn)]


def call(call_id: str, name: str = "f") -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": "{}"}


def chat_call(call_id: str, name: str = "f") -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": "{}"}}


def test_chat_messages_are_passed_on_byte_for_byte() -> None:
    odd = b'{ "role":"user",  "content":"hi", "vendor_field": [1,2] }'
    assert input_messages(msgspec.structs.replace(started("t1"), items=(odd,))) == (odd,)
    assert input_messages(started("t1", "hello")) == (user("hello"),)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("hi", "hi"),
        ([{"type": "input_text", "text": "hi"}], "hi"),
        (
            [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": "data:x", "detail": "low"}],
            [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "data:x", "detail": "low"}}],
        ),
        (
            [{"type": "input_file", "file_data": "ZGF0YQ==", "filename": "a.pdf"}],
            [{"type": "file", "file": {"file_data": "ZGF0YQ==", "filename": "a.pdf"}}],
        ),
        (
            [{"type": "input_audio", "input_audio": {"data": "x"}}],
            [{"type": "input_audio", "input_audio": {"data": "x"}}],
        ),
    ],
)
def test_content_parts_get_their_chat_names(content: Any, expected: Any) -> None:
    assert translated({"role": "user", "content": content}) == [{"role": "user", "content": expected}]


def test_a_developer_becomes_the_system_that_every_chat_server_knows() -> None:
    assert translated({"role": "developer", "content": "x"})[0]["role"] == "system"


def test_tool_calls_that_stand_together_are_one_assistant_message() -> None:
    assistant = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "wait"}]}
    output = {"type": "function_call_output", "call_id": "a", "output": "1"}
    assert translated(assistant, call("a"), call("b"), output, call("c")) == [
        {"role": "assistant", "content": "wait", "tool_calls": [chat_call("a"), chat_call("b")]},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "assistant", "content": None, "tool_calls": [chat_call("c")]},
    ]


def test_reasoning_has_no_counterpart_and_is_left_out() -> None:
    assert translated({"type": "reasoning", "id": "r", "summary": []}, {"role": "user", "content": "x"}) == [
        {"role": "user", "content": "x"}
    ]


def test_custom_tools_keep_their_input() -> None:
    assert translated({"type": "custom_tool_call", "call_id": "a", "name": "sh", "input": "ls"}) == [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "a", "type": "custom", "custom": {"name": "sh", "input": "ls"}}],
        }
    ]


def test_yesterdays_facts_always_read() -> None:
    assert json.dumps(translated({"type": "something_new", "x": 1})) == "[]"


def reasoning(item_id: str, text: str = "") -> dict[str, Any]:
    content = {"content": [{"type": "reasoning_text", "text": text}]} if text else {}
    return {"type": "reasoning", "id": item_id, "summary": [], "encrypted_content": "gAAA"} | content


def test_thoughts_belong_to_the_assistant_message_behind_them() -> None:
    said = {"type": "message", "role": "assistant", "content": "so"}
    first, second, third = reasoning("a", "hm"), reasoning("b", "ah"), reasoning("c")
    assert translated(first, second, said, third, call("x")) == [
        {"role": "assistant", "content": "so", "reasoning_content": "hm\nah", "reasoning_items": [first, second]},
        {"role": "assistant", "content": None, "reasoning_items": [third], "tool_calls": [chat_call("x")]},
    ]


def test_thoughts_that_no_answer_follows_are_left_out() -> None:
    user_says = {"role": "user", "content": "x"}
    assert translated(reasoning("a", "hm"), user_says, call("x"), reasoning("b", "hm")) == [
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": None, "tool_calls": [chat_call("x")]},
    ]


def test_a_refusal_is_a_field_of_its_message() -> None:
    parts = [{"type": "output_text", "text": "well,"}, {"type": "refusal", "refusal": "no"}]
    assert translated({"role": "assistant", "content": parts}) == [
        {"role": "assistant", "content": "well,", "refusal": "no"}
    ]


def test_one_thought_of_two_can_be_removed() -> None:
    said = {"type": "message", "role": "assistant", "content": "so"}
    items = tuple(map(msgspec.json.encode, (reasoning("a", "hm"), reasoning("b", "ah"), said)))
    begun = msgspec.structs.replace(started("t1", api="responses"), items=items)
    turn = Turn(begun, 0, removed=frozenset({"a"}))
    (message,) = map(msgspec.json.decode, turn.messages)
    assert message == {
        "role": "assistant",
        "content": "so",
        "reasoning_content": "ah",
        "reasoning_items": [reasoning("b", "ah")],
    }
    turn = Turn(begun, 0, removed=frozenset({"a", "b"}))
    assert list(map(msgspec.json.decode, turn.messages)) == [{"role": "assistant", "content": "so"}]
