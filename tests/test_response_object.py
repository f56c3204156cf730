"""The response object: all of its keys, each as the SDK's own type has it, whatever became of the turn."""

from typing import Any

import msgspec
import pytest
from openai.types.responses import Response

from api.wire.response import response_object
from eventstore.events import TurnCancelled, TurnCompleted, TurnFailed
from projections.turn import Ended, Turn
from tests.support.facts import T0_US, started
from tests.support.server import Server
from tests.support.upstream import Reply, Upstream

# What only OpenAI's own programs and diagnostics fill.
_OPENAIS_OWN = {
    *("access_programs", "image", "input_transformations", "moderation", "prompt", "prompt_cache_diagnostics"),
    "tool_usage",
}

ASKED: dict[str, Any] = {
    "metadata": {"a": "b"},
    "temperature": 0.5,
    "top_p": 0.4,
    "top_logprobs": 2,
    "tools": [
        {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": True, "description": "Look."},
        {"type": "custom", "name": "sh"},
    ],
    "tool_choice": {"type": "function", "name": "look"},
    "parallel_tool_calls": False,
    "text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}}, "verbosity": "low"},
    "reasoning": {"effort": "low", "summary": "auto"},
    "truncation": "auto",
    "max_output_tokens": 99,
    "max_tool_calls": 3,
    "service_tier": "flex",
    "safety_identifier": "s",
    "prompt_cache_key": "k",
    "prompt_cache_retention": "24h",
    "prompt_cache_options": {"mode": "explicit", "ttl": "12h"},
    "user": "ada",
}


def checked(response: dict[str, Any]) -> dict[str, Any]:
    """A response that has every key, none of them of a kind that the SDK does not know."""
    assert set(Response.model_fields) - _OPENAIS_OWN <= set(response)
    Response.model_validate(response)
    return response


def shown(ended: Ended | None = None, **fields: Any) -> dict[str, Any]:
    """The response that a turn is."""
    turn = Turn(started("7", api="responses", **fields), T0_US, ended, T0_US + 2_000_000 if ended else 0)
    response: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(response_object(turn)))
    return checked(response)


def completed(finish_reason: str = "stop", /, extra: bytes = b"", **message: Any) -> TurnCompleted:
    output = (msgspec.json.encode({"role": "assistant", "content": "hi"} | message),)
    return TurnCompleted(turn_id="7", output=output, finish_reason=finish_reason, extra=extra)


def test_a_response_without_parameters_shows_their_defaults() -> None:
    response = shown(completed())
    assert (response["status"], response["completed_at"]) == ("completed", T0_US // 1_000_000 + 2)
    assert (response["text"], response["tool_choice"]) == ({"format": {"type": "text"}}, "auto")
    assert (response["instructions"], response["error"], response["incomplete_details"]) == (None, None, None)
    assert response["service_tier"] == "default"


def test_each_parameter_is_shown_as_it_was_asked_for() -> None:
    instructions = (msgspec.json.encode({"role": "system", "content": "be brief"}),)
    response = shown(completed(), parameters=msgspec.json.encode(ASKED), instructions=instructions)
    assert {name: response[name] for name in ASKED} == ASKED
    assert response["instructions"] == "be brief"


def test_what_was_left_out_of_a_parameter_is_filled_in() -> None:
    asked = {
        "text": {"verbosity": "low"},
        "reasoning": {"effort": "high"},
        "tools": [{"type": "function", "name": "look"}],
        "service_tier": "auto",
        "prompt_cache_options": {"mode": "explicit"},
    }
    response = shown(completed(), parameters=msgspec.json.encode(asked))
    assert response["text"] == {"format": {"type": "text"}, "verbosity": "low"}
    assert response["reasoning"] == {"effort": "high", "summary": None}
    assert response["tools"] == [
        {"type": "function", "name": "look", "description": None, "parameters": None, "strict": None}
    ]
    assert response["service_tier"] == "default"
    assert response["prompt_cache_options"] == {"mode": "explicit", "ttl": "30m"}


def test_the_tier_that_was_served_is_shown() -> None:
    assert shown(completed(extra=b'{"service_tier":"priority"}'))["service_tier"] == "priority"
    assert shown(completed(extra=b'{"service_tier":5}'))["service_tier"] == "default"


@pytest.mark.parametrize(
    ("finish_reason", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_an_answer_that_was_cut_short_is_incomplete_and_says_why(finish_reason: str, reason: str) -> None:
    response = shown(completed(finish_reason))
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": reason})
    assert response["completed_at"] is None
    assert response["output"][0]["status"] == "incomplete"


@pytest.mark.parametrize(
    ("ended", "status"),
    [
        (None, "in_progress"),
        (TurnFailed(turn_id="7", code="upstream_error", message="no", status=502), "failed"),
        (TurnCancelled(turn_id="7", reason="client"), "cancelled"),
    ],
)
def test_a_response_without_an_answer_has_its_status(ended: Ended | None, status: str) -> None:
    response = shown(ended)
    assert (response["status"], response["output"], response["completed_at"]) == (status, [], None)
    assert response["error"] == (
        {"code": "server_error", "message": "no (upstream_error)"} if status == "failed" else None
    )


def test_calls_and_thoughts_are_items() -> None:
    called = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    custom = {"id": "c2", "type": "custom", "custom": {"name": "sh", "input": "ls"}}
    response = shown(completed("tool_calls", reasoning_content="hm", tool_calls=[called, custom]))
    kinds = ["reasoning", "message", "function_call", "custom_tool_call"]
    assert [item["type"] for item in response["output"]] == kinds


@pytest.mark.parametrize(
    "parameters",
    [
        b"[]",
        b"not json",
        b'{"tools":"x"}',
        b'{"tools":[5,{"type":[]},{}]}',
        b'{"text":5,"reasoning":[],"service_tier":{},"prompt_cache_options":5}',
    ],
)
def test_whatever_parameters_are_in_the_log_are_shown(parameters: bytes) -> None:
    turn = Turn(started("7", api="responses", parameters=parameters, instructions=(b"[]",)), T0_US, completed(), T0_US)
    msgspec.json.encode(response_object(turn))


async def test_the_sdk_reads_what_is_asked_for_back_from_the_server(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: Reply(extra={"service_tier": "priority"})
    body = {"model": "m", "input": "hello", "instructions": "be brief", "conversation": "c"} | ASKED
    async with server.http.post("/v1/responses", json=body) as answer:
        made = checked(await answer.json())
    assert made == checked(await server.get(f"/v1/responses/{made['id']}"))
    assert {name: made[name] for name in ASKED} == ASKED | {"service_tier": "priority"}
    read = await server.openai.responses.retrieve(made["id"])
    assert (read.instructions, read.conversation and read.conversation.id) == ("be brief", "c")
