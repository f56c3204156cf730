"""A server that only reads: whatever it is asked, it answers what the live one answered at that moment."""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from freezegun import freeze_time

from api import readonly
from api.context import LINEAGES
from api.routes.table import ROUTES
from api.wire.moment import Moment
from eventstore.cut import CutLog
from eventstore.log import EventLog, Head, LogReadOnly, Part
from eventstore.sqlite import SqliteLog
from projections.rebuild import rebuild
from projections.store import ViewsUnusable
from projections.views import VIEWS
from tests.support.server import Process, Server, serving, turnlog_command
from tests.support.upstream import Upstream

PATHS = (
    "/api/sessions",
    "/api/sessions?source=api_server",
    "/api/sessions/s1",
    "/api/sessions/s1/messages",
    "/api/sessions/s1/lineage",
    "/api/sessions/s2",
    "/api/sessions/s2/messages",
    "/api/sessions/search?q=apples",
    "/api/sessions/search?q=pears",
    "/v1/conversations",
    "/v1/conversations/diary",
    "/v1/conversations/diary/items",
    "/v1/chat/completions",
    "/v1/models",
)


class Past:
    """What a live server answered at each of its positions."""

    def __init__(self) -> None:
        self.answers: dict[int, dict[str, Any]] = {}
        self.paths = list(PATHS)

    async def note(self, server: Server) -> None:
        assert server.app is not None
        head = server.app[LINEAGES].sessions._log.head()
        self.answers[head.position] = await answers(server, self.paths)


async def answers(server: Server, paths: list[str]) -> dict[str, Any]:
    """The status and the body of each path."""
    found = {}
    for path in paths:
        async with server.http.get(path) as response:
            body = await response.text()
            found[path] = response.status, json.loads(body) if response.content_type == "application/json" else body
    return found


async def post(server: Server, path: str, body: Any = None, method: str = "POST") -> Any:
    async with server.http.request(method, path, json=body) as response:
        answer = await response.json()
        assert response.status in (200, 201, 202), answer
        return answer


async def live(server: Server, past: Past) -> None:
    """A little of everything, noted after each."""
    await past.note(server)
    await server.chat("apples are red", "s1", store=True)
    await past.note(server)
    written = await post(server, "/v1/responses", {"model": "m", "input": "pears are green", "conversation": "diary"})
    past.paths += [f"/v1/responses/{written['id']}", f"/v1/responses/{written['id']}/input_items"]
    await past.note(server)
    await post(server, "/api/sessions/s1", {"title": "Fruit"}, "PATCH")
    await past.note(server)
    fork = await post(server, "/api/sessions/s1/fork", {"id": "s2"})
    assert fork
    await past.note(server)
    for number in range(3):
        await server.chat(f"apples again {number}", "s2")
        await past.note(server)
    item = {"type": "message", "role": "user", "content": "plums"}
    await post(server, "/v1/conversations/diary/items", {"items": [item]})
    await past.note(server)
    run = await post(server, "/v1/runs", {"model": "m", "input": "think of apples"})
    await ended(server, run["run_id"])
    past.paths += [f"/v1/runs/{run['run_id']}", f"/v1/runs/{run['run_id']}/events"]
    await past.note(server)
    await post(server, f"/v1/responses/{written['id']}", method="DELETE")
    await past.note(server)
    await post(server, "/api/sessions/s1", method="DELETE")
    await past.note(server)


async def streamed(server: Server) -> str:
    """The id of a response in the background, whose stream is left."""
    asked = {"model": "m", "input": "think", "background": True, "stream": True, "conversation": "diary"}
    async with server.http.post("/v1/responses", json=asked) as response:
        async for line in response.content:
            if line.startswith(b"data: "):
                found: str = json.loads(line[6:])["response"]["id"]
                return found
    raise AssertionError("the stream says of no response")


async def ended(server: Server, run_id: str) -> None:
    """Return once the run's events have been read to their end."""
    async with server.http.get(f"/v1/runs/{run_id}/events") as response:
        await response.read()


async def views_at(data: Path, position: int) -> Path:
    """The views as of the position, in a file beside the data directory."""
    path = data.parent / f"then-{position}.db"
    log = await SqliteLog.open_read_only(data)
    (await rebuild(log, path, VIEWS, until=lambda at, _recorded_us: at > position)).close()
    await log.close()
    return path


@contextlib.asynccontextmanager
async def reading(data: Path, position: int) -> AsyncIterator[Server]:
    async with serving(data, views=await views_at(data, position)) as server:
        yield server


def digests(data: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in data.iterdir()}


async def test_at_every_moment_it_answers_what_the_live_server_answered_then(data: Path, upstream: Upstream) -> None:
    past = Past()
    async with serving(data, upstream=upstream.url) as server:
        await live(server, past)
        for position, expected in past.answers.items():  # beside the live server
            async with serving(data, upstream=upstream.url, views=await views_at(data, position)) as then:
                assert await answers(then, list(expected)) == expected, position
    assert len(past.answers) == 12


async def test_nothing_in_the_data_directory_changes(data: Path, upstream: Upstream) -> None:
    past = Past()
    async with serving(data, upstream=upstream.url) as server:
        await live(server, past)
    before = digests(data)
    views = await views_at(data, 9)
    inode, changed = views.stat().st_ino, views.stat().st_mtime_ns
    async with serving(data, views=views) as then:
        await answers(then, past.paths)
        with pytest.raises(AssertionError):
            await then.chat("hello", "s1")
    assert digests(data) == before
    assert (views.stat().st_ino, views.stat().st_mtime_ns) == (inode, changed)
    assert [path.name for path in data.parent.glob("then*")] == [views.name]


async def test_every_route_that_would_change_something_is_refused(data: Path) -> None:
    async with serving(data) as server:
        await server.chat("hello", "s1")
    async with reading(data, 2) as then:
        assert await then.get("/health") == {
            "status": "ok",
            "platform": "turnlog",
            "version": "0.1.0",
            "read_only": True,
            "position": 2,
        }
        features = (await then.get("/v1/capabilities"))["features"]
        assert (features["read_only"], features["position"]) == (True, 2)
        refused = [route for route in ROUTES if route.changes]
        assert len(refused) >= 20
        for route in refused:
            path = "/".join("x" if part.startswith("{") else part for part in route.path.split("/"))
            async with then.http.request(route.method, path, json={}) as response:
                error = (await response.json())["error"]
                assert (response.status, error["code"]) == (403, "read_only"), route.name
                assert "as of position 2 (20" in error["message"]
        assert await then.messages("s1")


async def test_every_reading_route_answers_something(data: Path) -> None:
    async with serving(data) as server:
        await server.chat("hello", "s1")
    async with reading(data, 3) as then:
        for route in ROUTES:
            if not route.changes and route.method == "GET":
                path = "/".join("s1" if part.startswith("{") else part for part in route.path.split("/"))
                async with asyncio.timeout(5), then.http.get(path) as response:
                    assert response.status < 500, path


async def test_a_turn_that_was_open_then_is_open_and_a_stream_of_it_ends(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        upstream.gate.clear()
        response, queued = await streamed(server), await streamed(server)
        run = await post(server, "/v1/runs", {"model": "m", "input": "think"})
        paths = [f"/v1/responses/{response}", f"/v1/responses/{queued}", f"/v1/runs/{run['run_id']}"]
        paths += ["/api/sessions", "/v1/conversations/diary/items"]
        assert server.app is not None
        head = server.app[LINEAGES].sessions._log.head().position
        expected = await answers(server, paths)
        assert [expected[path][1]["status"] for path in paths[:3]] == ["in_progress", "queued", "running"]
        async with serving(data, views=await views_at(data, head)) as then:
            assert await answers(then, paths) == expected
            for path in (f"{paths[0]}?stream=true", f"{paths[1]}?stream=true", f"{paths[2]}/events"):
                async with asyncio.timeout(5), then.http.get(path) as stream:
                    assert stream.status == 200
                    await stream.read()
        upstream.gate.set()
        await ended(server, run["run_id"])


async def test_views_that_are_not_of_this_log_or_not_of_a_file_are_refused_in_a_sentence(data: Path) -> None:
    other = data.parent / "other"
    for directory in (data, other):
        async with serving(directory) as server:
            await server.chat("hello", "s1")
    foreign = await views_at(other, 2)
    (data.parent / "garbage.db").write_bytes(b"garbage" * 1_000)
    (data.parent / "open.db").write_bytes(foreign.read_bytes())
    (data.parent / "open.db-wal").touch()
    cases = [
        (foreign, "was built from another log"),
        (data.parent / "no.db", "there is no"),
        (data.parent / "garbage.db", "not a database"),
        (data.parent / "open.db", "is written to, or was not closed"),
    ]
    for views, said in cases:
        with pytest.raises(ViewsUnusable, match=said):
            async with serving(data, views=views):
                pass


async def test_a_server_that_only_reads_makes_nothing_that_it_lacks(data: Path) -> None:
    views = data.parent / "then.db"
    told = await asyncio.gather(
        refused(data, "--read-only"),
        refused(data, "--read-only", "--views", str(views)),
    )
    assert "go together" in told[0]
    assert "there is no data directory" in told[1]
    assert not data.exists()
    data.mkdir()
    assert "there are no keys" in await refused(data, "--read-only", "--views", str(views))
    assert not list(data.iterdir())


async def refused(data: Path, *arguments: str) -> str:
    """What `turnlog serve` says, which does not start."""
    command = [str(turnlog_command()), "serve", "--data", str(data), "--port", "0", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said = (await process.communicate())[0].decode()
    assert process.returncode in (1, 2), said
    assert "Traceback" not in said
    return " ".join(said.split())


async def test_the_greeting_says_of_which_moment_it_is(data: Path) -> None:
    async with serving(data) as server:
        await server.chat("hello", "s1")
    process = await Process.start(data, "--read-only", "--views", str(await views_at(data, 2)))
    assert process.popen.stdout is not None
    assert "It serves the log as of position 2 (20" in process.popen.stdout.readline()
    assert (await process.server.get("/api/sessions/s1"))["session"]["id"] == "s1"
    await process.terminate()


async def test_a_time_leads_to_what_was_then_whatever_the_clock_says_now(data: Path) -> None:
    for hour, session in ((12, "s1"), (13, "s2")):
        with freeze_time(f"2026-06-01T{hour}:00:00", real_asyncio=True):
            async with serving(data) as server:
                await server.chat("apples", session)
    log, views = await SqliteLog.open_read_only(data), data.parent / "then.db"
    (await rebuild(log, views, VIEWS, until=Moment.parse("2026-06-01T14:30:00+02:00").is_after)).close()
    await log.close()
    with freeze_time("2099-01-01", real_asyncio=True):
        async with serving(data, views=views) as then:
            assert (await then.get("/health"))["position"] == 3
            assert [session["id"] for session in (await then.get("/api/sessions"))["data"]] == ["s1"]
            assert len((await then.get("/api/sessions/search?q=apples"))["results"]) == 1
            await then.get("/api/sessions/s2", 404)
            async with then.http.delete("/api/sessions/s1") as response:
                assert "as of position 3 (2026-06-01T12:00:00" in (await response.json())["error"]["message"]


async def test_a_log_that_is_cut_ends_there(data: Path) -> None:
    async with serving(data) as server:
        for _ in range(3):
            await server.chat("hello", "s1")
    log = await SqliteLog.open_read_only(data)
    every = await log.select(Part())
    for recorded in [None, *every.events]:
        last = Head(recorded.position, recorded.hash) if recorded else Head(0, bytes(32))
        cut: EventLog = CutLog(log, last)
        expected = every.events[: last.position]
        assert cut.head() == last
        assert [event async for batch in cut.read_all() for event in batch] == expected
        assert (await cut.select(Part())).events == expected
        assert await cut.at(range(1, 20)) == expected
        assert await cut.read("lineage/default/s1") == expected
        assert await cut.hash_at(last.position) == last.hash
        assert await cut.hash_at(last.position + 1) is None
        with pytest.raises(LogReadOnly):
            await cut.append("lineage/default/s1", 0, ())
    await log.close()


async def test_once_something_is_erased_beside_it_nothing_is_served_any_more(
    data: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readonly, "LOOK_S", 0.01)
    async with serving(data, upstream=upstream.url) as live, asyncio.timeout(20):
        await live.chat("apples", "s1")
        await live.chat("pears", "s2")
        views = await views_at(data, 6)
        async with serving(data, views=views) as then:
            await live.chat("plums", "s3")
            await post(live, "/api/sessions/s3?erase=true&why=law", method="DELETE")
            assert await then.messages("s1"), "of later sessions it knows nothing"
            await post(live, "/api/sessions/s1?erase=true&why=law", method="DELETE")
            while (answer := (await answers(then, ["/api/sessions/s1/messages"])).popitem()[1])[0] == 200:
                pass
            assert (answer[0], answer[1]["error"]["code"]) == (503, "erased_since")
            await then.get("/api/sessions", 503)
        with pytest.raises(ViewsUnusable, match="holds what was erased since, at position 13: delete it"):
            async with serving(data, views=views):
                pass
        views.unlink()
        async with reading(data, 6) as anew:
            assert [session["id"] for session in (await anew.get("/api/sessions"))["data"]] == ["s2"]


async def test_notes_and_queued_turns_that_were_erased_are_not_served_either(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as live:
        made = await post(live, "/v1/conversations", {"metadata": {"of": "Ada"}})
        views = await views_at(data, 1)
        await post(live, "/api/erasures", {"conversation": made["id"], "why": "law"})
    with pytest.raises(ViewsUnusable, match="holds what was erased since"):
        async with serving(data, views=views):
            pass
