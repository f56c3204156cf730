"""Calls of the sessions API, and facts put into a running server's log."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from api.context import LINEAGES
from api.keys import DEFAULT_TENANT
from eventstore.events import CompressionRotated, Event
from tests.support.server import Server


async def call(server: Server, method: str, path: str, status: int, **more: Any) -> dict[str, Any]:
    """What a request is answered, with that status; of an error, what stands in the envelope, with its four keys."""
    async with server.http.request(method, path, **more) as response:
        answer: dict[str, Any] = await response.json()
        assert response.status == status, answer
        if status < 400:
            return answer
        assert list(answer) == ["error"]
        error: dict[str, Any] = answer["error"]
        assert list(error) == ["message", "type", "param", "code"]
        assert error["message"]
        return error


async def create(server: Server, status: int = 201, /, **body: Any) -> dict[str, Any]:
    """POST /api/sessions."""
    answer = await call(server, "POST", "/api/sessions", status, json=body)
    return answer["session"] if status == 201 else answer


async def fork(server: Server, source: str, status: int = 201, /, **body: Any) -> dict[str, Any]:
    """POST /api/sessions/{id}/fork."""
    answer = await call(server, "POST", f"/api/sessions/{source}/fork", status, json=body)
    return answer["session"] if status == 201 else answer


async def patch(server: Server, session_id: str, status: int = 200, /, **body: Any) -> dict[str, Any]:
    """PATCH /api/sessions/{id}."""
    answer = await call(server, "PATCH", f"/api/sessions/{session_id}", status, json=body)
    return answer["session"] if status == 200 else answer


async def row(server: Server, session_id: str) -> dict[str, Any]:
    """GET /api/sessions/{id}."""
    session: dict[str, Any] = (await server.get(f"/api/sessions/{session_id}"))["session"]
    return session


class SentEvent(NamedTuple):
    """A server-sent event: its name, and its payload."""

    name: str
    data: dict[str, Any]


def events_of(stream: bytes) -> list[SentEvent]:
    """The named events of a whole stream."""
    frames = [frame for frame in stream.decode().split("\n\n") if frame and not frame.startswith(":")]
    return [_event(*frame.split("\n")) for frame in frames]


def _event(name: str, data: str) -> SentEvent:
    return SentEvent(name.removeprefix("event: "), msgspec.json.decode(data.removeprefix("data: ")))


async def record(server: Server, session_id: str, events: Sequence[Event]) -> None:
    """Put facts into the session's stream, as other parts of the server would."""
    assert server.app is not None
    lineages = server.app[LINEAGES]
    session = await lineages.reader.session(DEFAULT_TENANT, session_id)
    await lineages.commit(session, lambda _: events)


async def rotate(server: Server, old: str, new: str, *, title: str = "", tail: int = 0) -> None:
    """Rotate the lineage: its newest session `old` is followed by `new`."""
    summary = msgspec.json.encode({"role": "user", "content": f"summary of {old}"})
    rotated = CompressionRotated(
        old_session_id=old,
        session_id=new,
        summary=summary,
        head=0,
        tail=tail,
        trigger="manual",
        tokens_before=90,
        tokens_after=10,
        summariser="m",
        title=title,
    )
    await record(server, old, [rotated])
