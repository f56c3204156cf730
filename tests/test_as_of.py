"""As it was: whatever the API answered once it answers again for that moment, whatever has become of it since."""

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from freezegun import freeze_time

from api import keys as keyring
from api.context import MOMENTS
from api.turns import pasts
from eventstore.chain import digest
from eventstore.events import ItemRemoved, SessionErased
from eventstore.sqlite import SqliteLog
from projections.rebuild import rebuild
from projections.views import VIEWS
from tests.support.api import call, create, fork, patch, record, rotate
from tests.support.dialogue import answering
from tests.support.server import Server, serving
from tests.support.upstream import Upstream, refuses

Step: TypeAlias = Callable[[Server], Awaitable[Any]]

LISTS = (
    *("", "include_children=1", "limit=2", "limit=1&offset=1", "user=ada", "session_key=k", "source=cli"),
    "source=api_server&include_children=true",
)


EMPTY = {"object": "list", "data": [], "limit": 50, "offset": 0, "has_more": False, "next_cursor": None}


async def ask(server: Server, path: str, as_of: object = None) -> tuple[int, Any]:
    """The status and the body, without the request's own id."""
    params = {} if as_of is None else {"as_of": str(as_of)}
    async with server.http.get(path, params=params) as answer:
        return answer.status, await answer.json()


async def everything(server: Server, ids: list[str], as_of: object = None) -> dict[str, tuple[int, Any]]:
    """All that the API shows of sessions: of these, and in lists."""
    paths = [f"/api/sessions?{query}" for query in LISTS]
    for session_id in ids:
        place = f"/api/sessions/{session_id}"
        paths += [place, f"{place}/messages", f"{place}/messages?limit=2&offset=1", f"{place}/lineage"]
    return {path: await ask(server, path + ("&" if "?" in path else "?"), as_of) for path in paths}


def head(server: Server) -> int:
    """The newest position of the server's log."""
    assert server.app is not None
    return server.app[MOMENTS]._log.head().position


class Life:
    """Random steps in a server, and what it answered behind each."""

    def __init__(self, seed: int, upstream: Upstream) -> None:
        self.chance = random.Random(seed)  # noqa: S311 (a test that can be repeated)
        self.upstream = upstream
        self.server: Server
        self.ids: list[str] = []
        self.gone: set[str] = set()
        self.seen: dict[int, dict[str, tuple[int, Any]]] = {}
        self.steps = 0

    async def step(self) -> None:
        kinds = [self.turn] * 4 + [self.rotate, self.fork, self.remove] * 2
        kinds += [self.failed, self.begin, self.rename, self.annotate, self.end, self.delete]
        self.steps += 1
        await (self.chance.choice(kinds) if self.alive else self.begin)()
        self.seen[head(self.server)] = await everything(self.server, self.ids)

    @property
    def one(self) -> str:
        """Mostly one that is there."""
        return self.chance.choice(self.alive if self.alive and self.chance.random() < 0.9 else self.ids)

    @property
    def alive(self) -> list[str]:
        return [session_id for session_id in self.ids if session_id not in self.gone]

    async def turn(self) -> None:
        await self.any_of("POST", f"/api/sessions/{self.one}/chat", json={"message": f"hello {self.steps}"})

    async def failed(self) -> None:
        self.upstream.script = lambda _: refuses(500, "no")
        await self.turn()
        self.upstream.script = answering

    async def begin(self) -> None:
        used = [session_id for session_id in self.ids if session_id in self.gone]
        session_id = self.chance.choice([f"s{self.steps}", *used])
        headers = self.chance.choice([{}, {"X-Hermes-User-Id": "ada"}, {"X-Hermes-Session-Key": "k"}])
        body = {"id": session_id, "source": self.chance.choice(["cli", "api_server"])}
        self.learn(await self.any_of("POST", "/api/sessions", json=body, headers=headers))

    async def rotate(self) -> None:
        told = await self.any_of("GET", f"/api/sessions/{self.one}/lineage")
        if "tip_id" in told:
            new = f"{told['tip_id']}.{self.steps}"
            await rotate(self.server, told["tip_id"], new, tail=self.chance.randint(0, 1) * 2)
            self.ids.append(new)

    async def fork(self) -> None:
        self.learn(await self.any_of("POST", f"/api/sessions/{self.one}/fork", json={"id": f"f{self.steps}"}))

    async def rename(self) -> None:
        await self.any_of("PATCH", f"/api/sessions/{self.one}", json={"title": f"T{self.steps}"})

    async def annotate(self) -> None:
        await self.any_of("PATCH", f"/api/sessions/{self.one}", json={"metadata": {"n": str(self.steps)}})

    async def end(self) -> None:
        await self.any_of("PATCH", f"/api/sessions/{self.one}", json={"end_reason": "done"})

    async def remove(self) -> None:
        """An item of what was said, by the conversation API's own fact."""
        told = await self.any_of("GET", f"/api/sessions/{self.one}/messages")
        said = [message for message in told.get("data", ()) if message["status"] == "completed"]
        own = [message for message in said if message["session_id"] == told["session_id"]]
        if own:
            turn_id = self.chance.choice(own)["turn_id"]
            await record(self.server, told["session_id"], [ItemRemoved(turn_id=turn_id, item_id=f"msg_{turn_id}")])

    async def delete(self) -> None:
        session_id = self.one
        told = await self.any_of("GET", f"/api/sessions/{session_id}/lineage")
        await self.any_of("DELETE", f"/api/sessions/{session_id}")
        self.gone |= {generation["id"] for generation in told.get("generations", ())}

    def learn(self, told: dict[str, Any]) -> None:
        session_id = told.get("session", {}).get("id")
        if session_id:
            self.gone.discard(session_id)
            self.ids += [session_id] if session_id not in self.ids else []

    async def any_of(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        """An answer, or what is refused of a session that is gone by now."""
        async with self.server.http.request(method, path, **more) as answer:
            assert answer.status < 500 or "no" in await answer.text()
            told: dict[str, Any] = await answer.json()
            return told


@pytest.mark.parametrize("seed", [3, 4])
async def test_every_moment_of_a_random_life_is_answered_as_it_was(data: Path, upstream: Upstream, seed: int) -> None:
    upstream.script = answering
    life = Life(seed, upstream)
    for _ in range(2):
        async with serving(data, upstream=upstream.url) as life.server:
            for _ in range(12):
                await life.step()
    async with serving(data, upstream=upstream.url) as server:
        assert head(server) in life.seen
        positions = list(life.seen)
        life.chance.shuffle(positions)
        for position in positions:
            seen = life.seen[position]
            for path, live in seen.items():
                assert await ask(server, path, position) == live, (position, path)
            for session_id in set(life.ids) - {path.split("/")[3] for path in seen if path.count("/") > 2}:
                assert (await ask(server, f"/api/sessions/{session_id}", position))[0] == 404  # its time is yet to come


async def test_a_moment_is_a_time_too_and_shows_what_was_shown_then(data: Path, upstream: Upstream) -> None:
    """Steps a minute apart: asked for any second of a minute, the answer is that of its beginning."""
    upstream.script = answering
    seen: dict[str, dict[str, tuple[int, Any]]] = {}
    at = "2026-12-01T12:{:02d}:{:02d}".format
    steps: list[Step] = [
        lambda server: create(server, id="s1", title="Old"),
        lambda server: server.chat("hello", "s1"),
        lambda server: patch(server, "s1", title="New"),
        lambda server: rotate(server, "s1", "s1b"),
        lambda server: fork(server, "s1b", id="f1"),
        lambda server: server.chat("on", "s1"),
        lambda server: patch(server, "s1", end_reason="done"),
        lambda server: call(server, "DELETE", "/api/sessions/s1b", 200),
    ]
    ids = ["s1", "s1b", "f1"]
    with freeze_time(at(0, 0), real_asyncio=True) as now:
        async with serving(data, upstream=upstream.url) as server:
            for minute, step in enumerate(steps):
                now.move_to(at(minute, 0))
                await step(server)
                seen[at(minute, 0)] = await everything(server, ids)
        now.move_to("2027-01-01")
        async with serving(data, upstream=upstream.url) as server:
            for minute in range(len(steps)):
                live = seen[at(minute, 0)]
                second = ("00z", "30.5+00:00", "59.999999Z")[minute % 3]
                assert await everything(server, ids, at(minute, 0)[:-2] + second) == live
            for early in ("2026-12-01T11:59:59.999999Z", "0001-01-01T00:00:00Z", "2026-12-01T12:59:59+01:00", 0):
                assert await ask(server, "/api/sessions?", early) == (200, EMPTY)
                assert (await ask(server, "/api/sessions/s1", early))[0] == 404
            now_ = await everything(server, ids)
            for late in ("9999-12-31T23:59:59Z", "9" * 1_000, 10**6):
                assert await everything(server, ids, late) == now_


async def test_a_turn_that_was_under_way_is_shown_as_it_was(server: Server, upstream: Upstream) -> None:
    await server.chat("one", "s1")
    upstream.gate.clear()
    turn = asyncio.create_task(server.chat("two", "s1"))
    await upstream.wait_for_requests(2)
    live, position = await everything(server, ["s1"]), head(server)
    upstream.gate.set()
    await turn
    then = await everything(server, ["s1"], position)
    assert then == live
    assert [m["status"] for m in then["/api/sessions/s1/messages"][1]["data"]] == ["completed"] * 2 + ["in_progress"]


async def test_a_server_of_one_moment_shows_those_before_it(data: Path, tmp_path: Path, upstream: Upstream) -> None:
    """And what came behind it is as far away as if it were yet to come."""
    upstream.script = answering
    life = Life(7, upstream)
    async with serving(data, upstream=upstream.url) as life.server:
        for _ in range(12):
            await life.step()
    *earlier, last, _ = sorted(life.seen)
    log = await SqliteLog.open_read_only(data)
    views = await rebuild(log, tmp_path / "then.db", VIEWS, until=lambda position, _: position > last)
    views.close()
    await log.close()
    async with serving(data, views=tmp_path / "then.db") as server:
        for position in (*earlier[-4:], last):
            for path, live in life.seen[position].items():
                assert await ask(server, path, position) == live
        assert await ask(server, "/api/sessions", 10**6) == life.seen[last]["/api/sessions?"]


async def test_what_was_erased_is_in_no_moment_any_more(server: Server, data: Path) -> None:
    for session_id in ("s1", "s2"):
        await server.chat("secret", session_id)
    position = head(server)
    await server.chat("more", "s2")
    await call(server, "DELETE", "/api/sessions/s1", 200)
    both = (await ask(server, "/api/sessions", position))[1]["data"]
    assert [entry["id"] for entry in both] == ["s2", "s1"]
    with sqlite3.connect(data / "log.db") as log:
        log.executescript("DROP TRIGGER events_are_never_updated")
        rows = log.execute("SELECT position, data FROM events WHERE stream = 'lineage/default/s1'").fetchall()
        log.executemany("UPDATE events SET data = ? WHERE position = ?", [(digest(row), place) for place, row in rows])
    log.close()
    await record(server, "s2", [SessionErased(ranges=((1, 3),), by="ada", why="asked")])
    left = (await ask(server, "/api/sessions", position))[1]["data"]
    assert [entry["id"] for entry in left] == ["s2"]
    for path in ("", "/messages", "/lineage"):
        assert (await ask(server, f"/api/sessions/s1{path}", position))[0] == 404


async def test_a_tenants_past_is_its_own(data: Path) -> None:
    data.mkdir()
    secrets = [keyring.add(data, tenant, tenant) for tenant in ("acme", "beta")]
    acme, beta = ({"authorization": f"Bearer {secret}"} for secret in secrets)
    async with serving(data) as server:
        await call(server, "POST", "/api/sessions", 201, json={"id": "s1"}, headers=acme)
        await call(server, "POST", "/api/sessions", 201, json={"id": "s2"}, headers=beta)
        position = head(server)
        await call(server, "DELETE", "/api/sessions/s1", 200, headers=acme)
        for headers, seen in ((acme, "s1"), (beta, "s2")):
            listed = await call(server, "GET", f"/api/sessions?as_of={position}", 200, headers=headers)
            assert [entry["id"] for entry in listed["data"]] == [seen]
        for path in ("", "/messages", "/lineage"):
            await call(server, "GET", f"/api/sessions/s1{path}?as_of={position}", 200, headers=acme)
            await call(server, "GET", f"/api/sessions/s1{path}?as_of={position}", 404, headers=beta)


async def test_what_is_no_moment_is_refused(server: Server) -> None:
    wrong = ("", "-1", "now", "2026-12-01", "2026-12-01T12:00:00", "2026-13-01T12:00:00Z", "\0", "٣", "x" * 5_000)
    for path in ("", "/s1", "/s1/messages", "/s1/lineage"):
        for moment in wrong:
            error = await call(server, "GET", f"/api/sessions{path}", 400, params={"as_of": moment})
            assert (error["param"], error["code"]) == ("as_of", "invalid_value")


async def test_a_plus_that_the_url_turned_into_a_space_is_a_plus(server: Server) -> None:
    await create(server, id="s1")
    await create(server, id="s2")
    assert (await server.get("/api/sessions/s1?as_of=2000-01-01T00:00:00+02:00", 404))["error"]
    assert (await server.get("/api/sessions/s1?as_of=2100-01-01T00:00:00+02:00"))["session"]["id"] == "s1"


async def test_more_moments_at_once_than_can_be_made_are_asked_for_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever asks for one of those that are being made waits for it with the others; others are sent away."""
    for number in range(12):
        await create(server, id=f"s{number}")
    monkeypatch.setattr(pasts, "MAKING_MAX", 2)
    asked = [asyncio.create_task(ask(server, "/api/sessions", 1 + number // 2)) for number in range(20)]
    async with making_nothing(server):
        while sum(task.done() for task in asked) < 16:
            await asyncio.wait([task for task in asked if not task.done()], return_when=asyncio.FIRST_COMPLETED)
    told = await asyncio.gather(*asked)
    assert sorted(status for status, _ in told) == [200] * 4 + [503] * 16
    assert all(told[n][0] == told[n + 1][0] for n in range(0, 20, 2))
    for number in range(10):
        status, body = await ask(server, "/api/sessions", number)
        assert (status, len(body["data"])) == (200, number)


async def test_whoever_has_waited_too_long_finds_the_moment_made_later(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(2):
        await create(server, id=f"s{number}")
    with monkeypatch.context() as patched:
        patched.setattr(pasts, "WAIT_S", 0.01)
        async with making_nothing(server), server.http.get("/api/sessions?as_of=1") as answer:
            error = (await answer.json())["error"]
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert (error["code"], error["param"]) == ("overloaded", "as_of")
    assert [entry["id"] for entry in (await ask(server, "/api/sessions", 1))[1]["data"]] == ["s0"]


def making_nothing(server: Server) -> asyncio.Lock:
    """While it is held, no moment is made."""
    assert server.app is not None
    return server.app[MOMENTS]._pasts._turn
