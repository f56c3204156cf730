"""The feed of events for tests: pages, and streams read as the specification of server-sent events has it."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import aiohttp
import msgspec

from tests.support.api import call
from tests.support.server import Server


class Sent(NamedTuple):
    """A server-sent event: its id, its name, and its data, decoded."""

    id: str
    name: str
    data: dict[str, Any]


class Reader:
    """An open stream."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response
        self._lines = self._read()

    def close(self) -> None:
        """Hang up."""
        self._response.close()

    async def next(self) -> Sent | None:
        """The next event; None at the stream's end."""
        fields: dict[str, str] = {}
        async for line in self._lines:
            if not line and "data" in fields:
                return Sent(fields.get("id", ""), fields.get("event", "message"), msgspec.json.decode(fields["data"]))
            name, _, value = line.partition(": ")
            fields[name] = value
        return None

    async def _read(self) -> AsyncIterator[str]:
        """Lines, however long: those of a reader of aiohttp's are limited."""
        left = b""
        async for piece in self._response.content.iter_any():
            *lines, left = (left + piece).split(b"\n")
            for line in lines:
                yield line.decode()

    async def some(self, count: int) -> list[Sent]:
        """The next `count` events."""
        sent = [await self.next() for _ in range(count)]
        return [event for event in sent if event]

    async def rest(self) -> list[Sent]:
        """All events up to the stream's end."""
        sent = []
        while event := await self.next():
            sent.append(event)
        return sent


@contextlib.asynccontextmanager
async def following(
    server: Server, query: str = "", last: int | None = None, headers: dict[str, str] | None = None
) -> AsyncIterator[Reader]:
    """An open stream of the events that the query asks for, behind the last one that was seen."""
    seen = {} if last is None else {"Last-Event-ID": str(last)}
    asked = {"accept": "text/event-stream"} | seen | (headers or {})
    async with server.http.get(f"/api/events?{query}", headers=asked) as response:
        assert response.status == 200, await response.text()
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        yield Reader(response)


async def page(server: Server, query: str = "", status: int = 200, **more: Any) -> dict[str, Any]:
    """A page of events, or what is wrong with what was asked for."""
    return await call(server, "GET", f"/api/events?{query}", status, **more)


async def pages(server: Server, query: str = "", limit: int = 1_000, **more: Any) -> list[dict[str, Any]]:
    """All events that the query asks for, page by page."""
    found: list[dict[str, Any]] = []
    after = 0
    while True:
        got = await page(server, f"{query}&after={after}&limit={limit}", **more)
        found += got["data"]
        after = got["next_after"]
        if not got["has_more"]:
            return found
