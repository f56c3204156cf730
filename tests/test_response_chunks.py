"""A Responses server's events as chat chunks: what is streamed, and what only the end of a stream says."""

from typing import Any

import msgspec
import pytest

from api.models.gather import Gathered
from api.models.model import ModelBroke, ModelError, ModelGarbage, ModelRefused
from api.models.response_chunks import Chunks, Event, Response
from tests.support.responses_upstream import speaks, thinks, wants

Delta = dict[str, Any]


def deltas(*events: dict[str, Any]) -> list[Delta]:
    """What the events say, the role left out."""
    chunks = Chunks()
    said = [choice.delta for event in events for chunk in chunks.of(event_of(event)) for choice in chunk.choices]
    return [{name: value for name, value in delta.items() if name != "role"} for delta in said]


def event_of(event: dict[str, Any]) -> Event:
    """An event as it is read; `type` without what every type begins with."""
    kind = event["type"] if event["type"] in ("error", "") else f"response.{event['type']}"
    return msgspec.convert(event | {"type": kind}, Event)


def whole(*output: Any, **fields: Any) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """The message, the finish reason and the usage of a response that came at once."""
    gathered = Gathered()
    for chunk in Chunks().whole(msgspec.convert({"model": "m", "output": list(output)} | fields, Response)):
        gathered.add(chunk)
    answer = gathered.answer()
    return msgspec.json.decode(answer.message), answer.finish_reason, msgspec.json.decode(answer.usage or b"{}")


def text(delta: Any, item: int = 0, part: int = 0, **more: Any) -> dict[str, Any]:
    """A piece of text."""
    more |= {"output_index": item, "content_index": part}
    return {"type": "output_text.delta", "delta": delta} | more


def done(item: dict[str, Any], index: int = 0) -> dict[str, Any]:
    """The end of an item."""
    return {"type": "output_item.done", "item": item, "output_index": index}


def added(item: dict[str, Any], index: int = 0) -> dict[str, Any]:
    """Its beginning."""
    return {"type": "output_item.added", "item": item, "output_index": index}


def test_text_is_passed_on_piece_by_piece_and_not_again_when_it_is_done() -> None:
    assert deltas(text("a"), text("b"), done(speaks("ab"))) == [{"content": "a"}, {"content": "b"}]


def test_the_first_piece_says_whose_it_is() -> None:
    chunks = Chunks()
    list(chunks.of(event_of({"type": "created", "response": {"model": "m-2"}})))
    first, second = (next(iter(chunks.of(event_of(text(piece))))) for piece in "ab")
    assert [first.choices[0].delta, second.choices[0].delta] == [
        {"role": "assistant", "content": "a"},
        {"content": "b"},
    ]
    assert first.model == "m-2"


def test_several_messages_are_one_with_a_paragraph_between() -> None:
    said = deltas(text("a"), text("b", part=1), text("c", item=2), text("d", item=2))
    assert "".join(delta["content"] for delta in said) == "ab\n\ncd"


def test_log_probabilities_are_as_a_chat_has_them() -> None:
    token = {"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}
    chunk = next(iter(Chunks().of(event_of(text("a", logprobs=[token])))))
    assert chunk.choices[0].logprobs == {"content": [token], "refusal": None}


def test_calls_are_numbered_among_themselves() -> None:
    said = deltas(
        text("a"),
        added(wants("f", ""), 1),
        {"type": "function_call_arguments.delta", "delta": "{}", "output_index": 1},
        done(wants("f", "{}"), 1),
        added({"type": "custom_tool_call", "call_id": "c2", "name": "g", "input": ""}, 2),
        {"type": "custom_tool_call_input.delta", "delta": "x", "output_index": 2},
    )
    assert said[1:] == [
        {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
        {"tool_calls": [{"index": 1, "id": "c2", "type": "custom", "custom": {"name": "g", "input": ""}}]},
        {"tool_calls": [{"index": 1, "custom": {"input": "x"}}]},
    ]


def test_a_call_that_was_not_announced_is_said_when_it_is_done() -> None:
    piece = {"type": "function_call_arguments.delta", "delta": "{}", "output_index": 0}
    assert deltas(piece, done(wants("f", "{}"))) == [
        {"tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{}"}}]},
    ]


def test_thoughts_are_passed_on_and_kept_whole() -> None:
    said = deltas(
        {"type": "reasoning_summary_text.delta", "delta": "h", "summary_index": 0},
        {"type": "reasoning_summary_text.delta", "delta": "m", "summary_index": 0},
        {"type": "reasoning_summary_text.delta", "delta": "ah", "summary_index": 1},
        {"type": "reasoning_text.delta", "delta": "deep"},
        done(thinks("hm")),
        done(thinks("oh", item_id="rs_2"), 1),
    )
    assert said == [
        {"reasoning_summary": [{"index": 0, "text": "h"}]},
        {"reasoning_summary": [{"index": 0, "text": "m"}]},
        {"reasoning_summary": [{"index": 1, "text": "ah"}]},
        {"reasoning_content": "deep"},
        {"reasoning_items": [{"index": 0} | thinks("hm")]},
        {"reasoning_summary": [{"index": 2, "text": "oh"}]},
        {"reasoning_items": [{"index": 1} | thinks("oh", item_id="rs_2")]},
    ]


def test_a_citation_is_nested_and_stands_where_it_stands_in_the_whole_text() -> None:
    cited = {"type": "url_citation", "url": "https://x", "title": "X", "start_index": 0, "end_index": 1}
    file = {"type": "file_citation", "file_id": "f1", "index": 3}
    said = deltas(
        text("ab"),
        text("cd", item=1),
        {"type": "output_text.annotation.added", "annotation": cited, "output_index": 1},
        done(speaks("cd", annotations=[cited, file]), 1),
    )
    moved = {"url": "https://x", "title": "X", "start_index": 4, "end_index": 5}
    assert said[3:] == [{"annotations": [{"type": "url_citation", "url_citation": moved}]}, {"annotations": [file]}]


@pytest.mark.parametrize(
    ("output", "message", "finish"),
    [
        ([speaks("hi")], {"content": "hi"}, "stop"),
        ([speaks("hi"), wants("f", "{}")], {"content": "hi"}, "tool_calls"),
        ([speaks("a"), speaks("b")], {"content": "a\n\nb"}, "stop"),
        (
            [{"type": "message", "content": [{"type": "refusal", "refusal": "no"}]}],
            {"content": None, "refusal": "no"},
            "stop",
        ),
        (
            [{"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}],
            {"content": None, "reasoning_content": "hm"},
            "stop",
        ),
        ([{"type": "web_search_call", "id": "ws_1"}, speaks("hi")], {"content": "hi"}, "stop"),
        ([], {"content": None}, "stop"),
        ([5, "x", None, {"type": "message", "content": "x"}, {"type": "message", "content": [5]}], {}, "stop"),
    ],
    ids=str,
)
def test_a_response_that_comes_at_once_is_a_message(output: Any, message: dict[str, Any], finish: str) -> None:
    made, reason, _ = whole(*output)
    assert {name: made[name] for name in message} == message
    assert reason == finish


def test_a_call_that_comes_at_once_is_as_in_a_chat() -> None:
    message, _, _ = whole(wants("f", "{}"))
    assert message["tool_calls"] == [{"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]


@pytest.mark.parametrize(
    ("fields", "finish"),
    [
        ({"status": "completed"}, "stop"),
        ({"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, "length"),
        ({"status": "incomplete", "incomplete_details": {"reason": "content_filter"}}, "content_filter"),
        ({"status": "incomplete", "incomplete_details": None}, "length"),
        ({}, "stop"),
    ],
)
def test_why_it_stopped_is_said_as_a_chat_says_it(fields: dict[str, Any], finish: str) -> None:
    assert whole(speaks("hi"), **fields)[1] == finish


def test_usage_has_its_chat_names_with_its_details() -> None:
    usage = {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8, "output_tokens_details": {"reasoning_tokens": 1}}
    assert whole(speaks("hi"), usage=usage)[2] == {
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "total_tokens": 8,
        "completion_tokens_details": {"reasoning_tokens": 1},
    }


def test_the_tier_and_the_moderation_are_said_at_the_end() -> None:
    response = {"output": [speaks("hi")], "service_tier": "flex", "moderation": {"input": None}}
    *_, last = Chunks().whole(msgspec.convert(response, Response))
    assert (last.service_tier, last.moderation) == ("flex", {"input": None})
    *_, last = Chunks().whole(msgspec.convert(response | {"service_tier": 5, "moderation": None}, Response))
    assert (last.service_tier, last.moderation) == (None, None)


def test_what_no_delta_and_no_item_said_is_said_by_the_end() -> None:
    assert deltas({"type": "completed", "response": {"output": [speaks("hi")]}}) == [{"content": "hi"}, {}]
    assert deltas(text("hi"), {"type": "completed", "response": {"output": [speaks("hi")]}}) == [{"content": "hi"}, {}]


def test_events_that_nobody_here_knows_are_passed_over() -> None:
    assert deltas({"type": "web_search_call.searching"}, {"type": "keepalive"}, text("a")) == [{"content": "a"}]


@pytest.mark.parametrize(
    ("event", "error", "status", "code"),
    [
        ({"type": "error", "message": "no", "code": "server_error"}, ModelRefused, 502, "upstream_error"),
        ({"type": "error", "error": {"message": "no"}}, ModelRefused, 502, "upstream_error"),
        ({"type": "", "error": {"message": "no"}}, ModelRefused, 502, "upstream_error"),
        ({"type": "error"}, ModelRefused, 502, "upstream_error"),
        ({"type": "failed", "response": {"error": {"code": "invalid_prompt"}}}, ModelRefused, 400, "invalid_prompt"),
        (
            {"type": "failed", "response": {"error": {"code": "rate_limit_exceeded", "message": "no"}}},
            ModelRefused,
            429,
            "rate_limit_exceeded",
        ),
        (
            {"type": "failed", "response": {"error": {"code": "model_not_found", "message": "no"}}},
            ModelRefused,
            404,
            "model_not_found",
        ),
        ({"type": "failed", "response": None}, ModelRefused, 502, "upstream_error"),
        ({"type": "completed", "response": {"status": "failed"}}, ModelRefused, 502, "upstream_error"),
        ({"type": "completed", "response": {"status": "cancelled"}}, ModelBroke, None, "upstream_broke_off"),
        ({"type": "output_text.delta", "delta": 5}, ModelGarbage, None, "upstream_garbage"),
        ({"type": ""}, ModelGarbage, None, "upstream_garbage"),
    ],
    ids=str,
)
def test_a_failure_is_told(event: dict[str, Any], error: type[ModelError], status: int | None, code: str) -> None:
    with pytest.raises(error) as raised:
        deltas(event)
    assert (getattr(raised.value, "status", None), raised.value.code) == (status, code)


@pytest.mark.parametrize("fields", [{"output": None}, {"output": None, "status": "completed"}])
def test_an_answer_without_output_is_none(fields: dict[str, Any]) -> None:
    with pytest.raises(ModelGarbage):
        whole(**fields)
