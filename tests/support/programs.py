"""What the tests with the official SDKs share: refusals, the synchronous client, models that call tools."""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Any, TypeVar

import openai
import pytest
from openai import OpenAI

from tests.support.server import KEY, Server
from tests.support.upstream import Reply, Script, calls, says

Result = TypeVar("Result")


async def refused(
    attempt: Awaitable[Any], status: int, param: str | None = None, code: str | None = None
) -> openai.APIStatusError:
    """The error that an attempt must end with. `param` and `code` are compared where they are given."""
    with pytest.raises(openai.APIStatusError) as caught:
        await attempt
    error = caught.value
    assert error.status_code == status, error
    assert error.request_id, "an error without x-request-id"
    body = error.body
    assert isinstance(body, dict)
    assert body.keys() == {"message", "type", "param", "code"}
    assert body["message"]
    assert param is None or error.param == param, error
    assert code is None or error.code == code, error
    return error


async def collect(items: AsyncIterable[Result]) -> list[Result]:
    """Everything of a stream or of all pages."""
    return [item async for item in items]


async def in_thread(server: Server, program: Callable[[OpenAI], Result]) -> Result:
    """Run a program that uses the synchronous client, beside the server's event loop."""

    def run() -> Result:
        with OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
            return program(client)

    return await asyncio.to_thread(run)


def in_order(*replies: Reply) -> Script:
    """A model that gives these answers one after the other."""
    left = iter(replies)
    return lambda _: next(left)


def asks_weather(city: str = "Rome", call_id: str = "call_w") -> Reply:
    """A call of the tool `weather`."""
    return calls("weather", f'{{"city":"{city}"}}', call_id)


def thinks(text: str, thought: str) -> Reply:
    """An answer with the thought before it, as reasoning models behind a chat API give it."""
    pieces = [{"role": "assistant"}, {"reasoning_content": thought[:5]}, {"reasoning_content": thought[5:]}]
    return Reply(
        message={"role": "assistant", "content": text, "reasoning_content": thought},
        pieces=[*pieces, {"content": text[:2]}, {"content": text[2:]}],
    )


def weather_then(text: str) -> Script:
    """A model that calls the tool `weather` where it has no output yet, and then says a text."""

    def script(body: dict[str, Any]) -> Reply:
        return says(text) if body["messages"][-1]["role"] == "tool" else asks_weather()

    return script


def says_thought() -> Reply:
    """A short answer with a thought before it."""
    return thinks("Sunny.", "the tool says so")
