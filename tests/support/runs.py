"""Runs for tests: started over HTTP, and their events read as a client reads them."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import aiohttp
import msgspec

from tests.support.server import Server

CLOSED = b": stream closed\n\n"


class Event(NamedTuple):
    """One event: its id, and its payload."""

    id: int
    payload: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.payload["event"])


async def start_run(server: Server, said: Any, *, headers: dict[str, str] | None = None, **body: Any) -> str:
    """POST a run, expecting 202; its id."""
    async with server.http.post("/v1/runs", json={"input": said} | body, headers=headers) as response:
        answer = await response.json()
        assert response.status == 202, answer
        assert answer.keys() == {"run_id", "status"}
        return str(answer["run_id"])


async def refused(
    server: Server, said: Any, status: int, *, headers: dict[str, str] | None = None, **body: Any
) -> dict[str, Any]:
    """POST a run that is refused; the error."""
    async with server.http.post("/v1/runs", json={"input": said} | body, headers=headers) as response:
        answer = await response.json()
        assert response.status == status, answer
        error: dict[str, Any] = answer["error"]
        assert error.keys() == {"message", "type", "param", "code"}
        return error


@contextlib.asynccontextmanager
async def following(server: Server, run_id: str, after: int | None = None) -> AsyncIterator[aiohttp.ClientResponse]:
    """The run's events, as they come."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    async with server.http.get(f"/v1/runs/{run_id}/events", headers=headers) as response:
        assert response.status == 200, await response.text()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield response


async def frames(server: Server, run_id: str, after: int | None = None) -> bytes:
    """Everything that the run's events are, from the start or behind an event, to their end."""
    async with following(server, run_id, after) as response:
        return await response.read()


async def events(server: Server, run_id: str, after: int | None = None) -> list[Event]:
    """The same, parsed; the stream has to be closed as the original closes it."""
    data = await frames(server, run_id, after)
    assert data.endswith(CLOSED)
    return parsed(data)


def parsed(data: bytes) -> list[Event]:
    """The events in `data`; comments are passed over."""
    found = []
    for frame in data.split(b"\n\n"):
        if frame and not frame.startswith(b":"):
            head, _, payload = frame.partition(b"\n")
            found.append(Event(int(head.removeprefix(b"id: ")), msgspec.json.decode(payload.removeprefix(b"data: "))))
    return found


async def some(response: aiohttp.ClientResponse, count: int) -> bytes:
    """The next `count` events of an open stream."""
    data = b""
    while data.count(b"\n\n") < count:
        data += await response.content.readuntil(b"\n\n")
    return data


def said(happened: list[Event]) -> list[str]:
    """The pieces of text."""
    return [event.payload["delta"] for event in happened if event.name == "message.delta"]
