"""POST /v1/responses/input_tokens: how long a prompt would be."""

from typing import Any

import pytest

from tests.support.api import call
from tests.support.server import Server
from tests.support.upstream import Upstream, says


async def counted(server: Server, headers: dict[str, str] | None = None, **body: Any) -> int:
    answer = await call(server, "POST", "/v1/responses/input_tokens", 200, json=body, headers=headers or {})
    assert answer["object"] == "response.input_tokens"
    tokens: int = answer["input_tokens"]
    return tokens


async def test_the_sdk_counts_an_input(server: Server, upstream: Upstream) -> None:
    short = await server.openai.responses.input_tokens.count(model="m", input="hi")
    long = await server.openai.responses.input_tokens.count(model="m", input="hi " * 400)
    assert short.object == "response.input_tokens"
    assert 0 < short.input_tokens < 40
    assert 280 < long.input_tokens < 350
    assert upstream.requests == []


async def test_instructions_and_tools_are_part_of_it(server: Server) -> None:
    bare = await counted(server, input="hi")
    told = await counted(server, input="hi", instructions="x" * 400)
    tool = {"type": "function", "name": "look", "description": "y" * 400, "parameters": {}, "strict": False}
    armed = await counted(server, input="hi", tools=[tool])
    assert told - bare == pytest.approx(110, abs=15)
    assert armed - bare == pytest.approx(120, abs=25)


async def test_a_picture_counts_as_much_as_a_page(server: Server) -> None:
    picture = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 100_000}
    assert await counted(server, input=[{"role": "user", "content": [picture]}]) < 2_000


@pytest.mark.parametrize("by", ["previous_response_id", "conversation", "header"])
async def test_the_history_is_counted_as_the_model_server_has_counted_it(
    server: Server, upstream: Upstream, by: str
) -> None:
    usage = {"prompt_tokens": 5_000, "completion_tokens": 1_000, "total_tokens": 6_000}
    upstream.script = lambda _: says("ok", usage=usage)
    headers = {"X-Hermes-Session-Id": "s-1"} if by == "header" else {}
    name = {"conversation": "home"} if by == "conversation" else {}
    done = await call(server, "POST", "/v1/responses", 200, json={"model": "m", "input": "hi", **name}, headers=headers)
    if by == "previous_response_id":
        name = {"previous_response_id": done["id"]}
    assert 6_000 < await counted(server, headers, input="and now?", **name) < 6_050
    assert 6_000 <= await counted(server, headers, **name) < 6_010


async def test_a_history_that_nobody_has_counted_is_estimated(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: says("ok", usage=None)
    done = await server.openai.responses.create(model="m", input="word " * 800)
    assert 1_000 < await counted(server, previous_response_id=done.id, input="on") < 1_100


async def test_nothing_is_recorded_or_claimed(server: Server, upstream: Upstream) -> None:
    await counted(server, {"X-Hermes-Session-Id": "s-1"}, input="hi", conversation="home")
    assert (await server.get("/api/sessions"))["data"] == []
    await call(server, "GET", "/api/sessions/s-1", 404)
    assert upstream.requests == []


async def test_nothing_takes_nothing(server: Server) -> None:
    assert await counted(server) <= 1
    assert await counted(server, input=None) <= 1


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"input": 5}, 400, "input"),
        ({"input": ""}, 400, "input"),
        ({"input": [{"type": "message", "role": "user"}]}, 400, "input[0].content"),
        ({"input": "hi", "model": 5}, 400, "model"),
        ({"input": "hi", "instructions": 5}, 400, "instructions"),
        ({"input": "hi", "tools": [{"type": "web_search"}]}, 400, "tools[0].type"),
        ({"input": "hi", "tools": 5}, 400, "tools"),
        ({"input": "hi", "text": 5}, 400, "text"),
        ({"input": "hi", "reasoning": 5}, 400, "reasoning"),
        ({"input": "hi", "truncation": 5}, 400, "truncation"),
        ({"input": "hi", "parallel_tool_calls": 5}, 400, "parallel_tool_calls"),
        ({"input": "hi", "personality": 5}, 400, "personality"),
        ({"input": "hi", "personality": "x" * 65}, 400, "personality"),
        ({"input": "hi", "conversation": "a", "previous_response_id": "resp_1"}, 400, "conversation"),
        ({"input": "hi", "previous_response_id": "resp_nowhere"}, 404, "previous_response_id"),
        ({"input": "hi", "conversation": "conv_nowhere"}, 404, "conversation"),
    ],
)
async def test_bad_input_is_refused_as_by_a_create(
    server: Server, body: dict[str, Any], status: int, param: str
) -> None:
    assert (await call(server, "POST", "/v1/responses/input_tokens", status, json=body))["param"] == param
