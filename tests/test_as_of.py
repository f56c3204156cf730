"""As it was: whatever the API answered once it answers again for that moment, whatever has become of it since."""

import asyncio
import json
import random
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from freezegun import freeze_time

from api.context import LINEAGES, MOMENTS
from api.keys import Keyring
from api.turns import pasts
from eventstore.events import ItemRemoved
from eventstore.lock import exclusive
from tests.support.api import call, create, fork, patch, record, rotate
from tests.support.dialogue import answering, delete
from tests.support.server import Server, serving
from tests.support.upstream import Upstream, refuses

LISTS = (
    *("", "include_children=1", "limit=2", "limit=1&offset=1", "user=ada", "session_key=k", "source=cli"),
    "source=api_server&include_children=true",
)


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
        kinds = [self.turn] * 5 + [self.failed, self.begin, self.rotate, self.fork, self.rename, self.annotate, self.end]
        kinds += [self.remove, self.remove, self.delete]
        self.steps += 1
        await (self.chance.choice(kinds) if self.ids else self.begin)()
        self.seen[head(self.server)] = await everything(self.server, self.ids)

    @property
    def one(self) -> str:
        return self.chance.choice(self.ids)

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
        if self.chance.random() < 0.5:
            session_id = self.one
            told = await self.any_of("DELETE", f"/api/sessions/{session_id}")
            self.gone |= {session_id} if "deleted" in told else set()

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


@pytest.mark.parametrize("seed", range(3))
async def test_every_moment_of_a_random_life_is_answered_as_it_was(data: Path, upstream: Upstream, seed: int) -> None:
    upstream.script = answering
    life = Life(seed, upstream)
    for _ in range(2):
        async with serving(data, upstream=upstream.url) as life.server:
            for _ in range(20):
                await life.step()
    async with serving(data, upstream=upstream.url) as server:
        assert head(server) in life.seen
        positions = list(life.seen)
        life.chance.shuffle(positions)
        for position in positions:
            seen = life.seen[position]
            for path, live in seen.items():
                assert await ask(server, path, position) == live, (position, path)
