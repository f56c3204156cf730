"""Responses in the background for tests: made with the SDK, and their streams read as bytes and as events."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import msgspec
from openai.types.responses import Response

from tests.support.server import Server
from tests.support.upstream import Upstream, says

TEXT = "one two three four"
PIECES = ["one", " two", " three", " four"]
DONE = b"data: [DONE]\n\n"
S1 = {"X-Hermes-Session-Id": "s1"}

Event = dict[str, Any]


def hold(upstream: Upstream, after: int = 3) -> None:
    """Answers of four words, held back behind so many streamed pieces, of which the first is empty."""
    upstream.script = lambda _: says(TEXT)
    upstream.stream_gate_after = after
    upstream.pieces_sent = 0
    upstream.gate.clear()


async def ask(server: Server, said: str = "hello", **more: Any) -> Response:
    """A response in the background, as its client is told of it."""
    response = await server.openai.responses.create(model="m", input=said, background=True, **more)
    assert isinstance(response, Response)
    return response


async def ended(server: Server, response_id: str) -> Response:
    """The response once it has ended: its own stream tells when, or the next turn of its session."""
    while (response := await server.openai.responses.retrieve(response_id)).status in ("queued", "in_progress"):
        pass
    return response


@contextlib.asynccontextmanager
async def asking(server: Server, said: str = "hello", **body: Any) -> AsyncIterator[aiohttp.ClientResponse]:
    """The stream of a new response in the background, as its first client gets it."""
    headers = body.pop("headers", {})
    body = {"model": "m", "input": said, "background": True, "stream": True} | body
    async with server.http.post("/v1/responses", json=body, headers=headers) as response:
        assert response.status == 200, await response.text()
        yield response


@contextlib.asynccontextmanager
async def following(
    server: Server, response_id: str, after: int | None = None
) -> AsyncIterator[aiohttp.ClientResponse]:
    """The response's events behind that number, as they come."""
    query = {"stream": "true"} | ({} if after is None else {"starting_after": str(after)})
    async with server.http.get(f"/v1/responses/{response_id}", params=query) as response:
        assert response.status == 200, await response.text()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield response


async def frames(server: Server, response_id: str, after: int | None = None) -> bytes:
    """Everything that the response's events are, from the start or behind one, to their end."""
    async with following(server, response_id, after) as response:
        return await response.read()


async def some(response: aiohttp.ClientResponse, count: int) -> bytes:
    """The next `count` events of an open stream."""
    data = b""
    while data.count(b"\n\n") < count:
        data += await response.content.readuntil(b"\n\n")
    return data


def parsed(data: bytes) -> list[Event]:
    """The events in `data`; their names are their types."""
    found = []
    for frame in data.split(b"\n\n"):
        if frame and not frame.startswith(b":") and frame + b"\n\n" != DONE:
            name, _, payload = frame.partition(b"\n")
            event = msgspec.json.decode(payload.removeprefix(b"data: "))
            assert name == b"event: " + event["type"].encode()
            found.append(event)
    return found


def behind(data: bytes, number: int) -> bytes:
    """The frames in `data` of the events behind that number."""
    whole = [frame + b"\n\n" for frame in data.split(b"\n\n")[:-1]]
    return b"".join(frame for frame in whole if frame == DONE or numbers(parsed(frame))[0] > number)


def kinds(happened: list[Event]) -> list[str]:
    """Their types, without what all begin with."""
    return [event["type"].removeprefix("response.") for event in happened]


def numbers(happened: list[Event]) -> list[int]:
    """Their sequence numbers."""
    return [event["sequence_number"] for event in happened]


def said(happened: list[Event]) -> list[str]:
    """The pieces of text."""
    return [event["delta"] for event in happened if event["type"] == "response.output_text.delta"]
