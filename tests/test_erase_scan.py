"""Erasing, by a scan of the data directory: nothing of the content is left in any file, and nothing else is lost."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from eventstore.events import Erased, SessionDeleted, SessionErased, type_name
from tests.support.api import call, row
from tests.support.erasing import fill, found, needle, needles
from tests.support.server import Server, serving
from tests.support.upstream import scripted_upstream
from tests.test_crash import recorded, turnlog, verify

SELECTIONS = {
    "session": "alpha",
    "conversation": "slug-alpha",
    "user": needle("user", "alpha"),
    "session_key": needle("key", "alpha"),
}


async def erase(server: Server, status: int = 200, /, **body: Any) -> dict[str, Any]:
    return await call(server, "POST", "/api/erasures", status, json=body)


async def of(data: Path, tag: str) -> list[bytes]:
    """The hashes and the content of the events of a session, its conversation and all that is not another's."""
    return [entry.hash for entry in await recorded(data) if entry.stream.endswith(tag)]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with the sessions alpha and beta, which hold everything."""
    data = tmp_path_factory.mktemp("filled") / "data"

    async def make() -> None:
        async with scripted_upstream() as upstream, serving(data, upstream=upstream.url) as server:
            await fill(server, upstream, "alpha")
            await fill(server, upstream, "beta")

    asyncio.run(make())
    return data


@pytest.mark.parametrize("kind", SELECTIONS)
async def test_nothing_of_the_content_is_left_in_any_file_and_nothing_else_is_lost(
    filled: Path, data: Path, kind: str
) -> None:
    shutil.copytree(filled, data)
    async with serving(data) as server:
        assert found(data, "alpha") == needles("alpha"), "the scan can fail"
        before = await recorded(data)
        beside = [entry for entry in before if "beta" in entry.stream]
        shown = [await row(server, "beta-2"), await server.messages("beta")]

        answer = await erase(server, **{kind: SELECTIONS[kind]}, why="asked for by letter")

        assert found(data, "alpha") == set()
        assert found(data, "beta") == needles("beta")
        assert answer["object"] == "hermes.erasure"
        assert [session["session_ids"] for session in answer["sessions"]] == [["alpha", "alpha-2"]]
        after = await recorded(data)
        assert [entry for entry in after if "beta" in entry.stream] == beside
        assert [entry.hash for entry in after[: len(before)]] == [entry.hash for entry in before]
        assert sum(isinstance(entry.event, Erased) for entry in after) == answer["events"] > 20
        assert [await row(server, "beta-2"), await server.messages("beta")] == shown
        for name in ("alpha", "alpha-2"):
            await server.get(f"/api/sessions/{name}", 404)
        await server.get("/v1/conversations/slug-alpha", 404)
        assert not (await server.get(f"/api/sessions/search?q={needle('input', 'alpha')}"))["results"]
        assert found(data, "alpha") == set()
    await verify(data)
    assert found(data, "alpha") == set()
    async with serving(data) as server:
        assert [await row(server, "beta-2"), await server.messages("beta")] == shown
    shown_events = await turnlog("audit", "show", "alpha", "--data", str(data))
    assert shown_events.returncode == 0
    assert "Zq" not in shown_events.stdout


async def test_the_log_says_who_erased_what_and_why(server: Server, tmp_path: Path) -> None:
    await server.chat("hello", "s1")
    answer = await call(server, "DELETE", "/api/sessions/s1?erase=true&why=law", 200)
    assert answer["erased"]["sessions"] == [{"id": "s1", "session_ids": ["s1"], "events": 3}]
    events = [entry.event for entry in await recorded(tmp_path / "data")]
    assert [type_name(event) for event in events] == [
        *("SessionStarted", "TurnStarted", "TurnCompleted"),
        *("SessionDeleted", "SessionErased"),
    ]
    assert isinstance(events[3], SessionDeleted)
    assert events[4] == SessionErased(ranges=((1, 3),), by="tenant default", why="law")
