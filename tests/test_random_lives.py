"""Random lives over HTTP, beside a model of what must come of them: whole transcripts and prompts, one tip a lineage.

Each walk takes turns by every door and name, compresses, forks, deletes, evicts, restarts and kills, in an order that
its seed decides. The model knows nothing but what clients were told.
"""

import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.support.dialogue import (
    CHAT,
    DOORS,
    RESPONSES,
    answering,
    asked,
    check_prompt,
    delete,
    dialogue,
    fork,
    listed,
    question,
    said,
    take,
    tip,
    turnlog,
    user,
)
from tests.support.server import Process, Server
from tests.support.upstream import Upstream

ENV = {"TURNLOG_CONTEXT_TOKENS": "800", "TURNLOG_COMPRESS_AT": "0.5", "TURNLOG_MAX_RESPONSES": "40"}
STEPS = 150
RESPONSES_MAX = 20  # of the newest ones, that are continued from; fewer than are kept
Start: TypeAlias = Callable[..., Awaitable[Process]]


class Life:
    """What clients know of one lineage: what they said in it, its session ids (oldest first), its slug."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts
        self.ids: list[str] = []
        self.slug = ""
        self.inherited = len(texts)


class Walk:
    """A random walk, and the model beside it."""

    def __init__(self, seed: int, upstream: Upstream) -> None:
        self.chance = random.Random(seed)  # noqa: S311 (a test that can be repeated)
        self.upstream = upstream
        self.server: Server
        self.lives: list[Life] = []
        self.responses: dict[str, tuple[Life, int]] = {}  # id -> its life and how many turns it stands behind
        self.said_count = 0

    def text(self) -> str:
        self.said_count += 1
        return question(self.said_count)

    async def step(self) -> None:
        """One step of any kind."""
        steps = [self.by_id] * 6 + [self.by_slug] * 3 + [self.by_response] * 4 + [self.by_history] * 3
        rare = [self.anew, self.compress, self.fork, self.evict, self.delete]
        await self.chance.choice(steps + rare if self.lives else [self.anew])()

    # Turns

    async def anew(self) -> None:
        text, life = self.text(), Life([])
        self.lives.append(life)
        turn = await take(self.server, text, self.chance.choice([*CHAT, *RESPONSES, "run"]))
        await self.told(life, text, turn.session_id, turn.id)

    async def by_id(self) -> None:
        life, text = self.chance.choice(self.lives), self.text()
        door = self.chance.choice(DOORS)
        turn = await take(self.server, text, door, self.chance.choice(life.ids))
        await self.told(life, text, turn.session_id, turn.id)

    async def by_slug(self) -> None:
        life, text = self.chance.choice(self.lives), self.text()
        door = self.chance.choice([*RESPONSES, "run"])
        session = None if life.slug else self.chance.choice(life.ids)
        life.slug = life.slug or f"slug {self.said_count}"
        turn = await take(self.server, text, door, session, conversation=life.slug)
        await self.told(life, text, turn.session_id, turn.id)

    async def by_response(self) -> None:
        known = list(self.responses)[-RESPONSES_MAX:]
        if not known:
            return
        text, response_id = self.text(), self.chance.choice(known)
        life, behind = self.responses[response_id]
        if behind < len(life.texts):
            life = Life(life.texts[:behind])
            self.lives.append(life)
        door = self.chance.choice([*RESPONSES, "run"])
        turn = await take(self.server, text, door, previous_response_id=response_id)
        await self.told(life, text, turn.session_id, turn.id)

    async def by_history(self) -> None:
        """The whole history without a name; one of the lives that have it, if any has nothing else, goes on."""
        known, text = self.chance.choice(self.lives), self.text()
        history = known.texts[: self.chance.choice([len(known.texts), len(known.texts), self.chance.randint(1, 9)])]
        messages: list[dict[str, Any]] = [*dialogue(*history), user(text)]
        turn = await take(self.server, "", self.chance.choice(CHAT), messages=messages)
        same = [life for life in self.lives if life.texts == history]
        went_on = [life for life in same if await tip(self.server, life.ids[0]) == turn.session_id]
        # A fork that nobody has spoken in yet is not known by its history: see test_long_lives_http.py.
        assert went_on or not any(len(life.texts) > life.inherited for life in same), (
            "forked, though a session has just this history"
        )
        life = went_on[0] if went_on else Life(list(history))
        if life not in self.lives:
            self.lives.append(life)
        await self.told(life, text, turn.session_id, turn.id)

    async def told(self, life: Life, text: str, session_id: str, id: str) -> None:  # noqa: A002 (as the API has it)
        """A turn was answered: it is where the model of its life says, and so is what the model server was sent."""
        check_prompt(asked(self.upstream)[-1], life.texts, text, summaries_max=1)
        life.texts.append(text)
        if session_id not in life.ids:
            others = [other for other in self.lives if other is not life]
            assert not any(session_id in other.ids for other in others), "the turn went to another session"
            life.ids.append(session_id)
        assert session_id == life.ids[-1], "the turn did not go to the tip"
        if id.startswith("resp_"):
            self.responses[id] = (life, len(life.texts))

    # Everything else

    async def compress(self) -> None:
        life = self.chance.choice(self.lives)
        async with self.server.http.post(f"/api/sessions/{self.chance.choice(life.ids)}/compress") as response:
            told = await response.json()
            assert response.status == 200 or told["error"]["code"] == "nothing_to_compress", told
        if response.status == 200:
            assert told["parent_session_id"] == life.ids[-1]
            life.ids.append(told["session_id"])

    async def fork(self) -> None:
        life = self.chance.choice(self.lives)
        messages = await said_with_turns(self.server, self.chance.choice(life.ids))
        if len(life.texts) == life.inherited:
            return
        place = self.chance.randrange(life.inherited, len(life.texts))  # of its own: see test_long_lives_http.py
        forked = Life(life.texts[: place + 1])
        forked.ids.append((await fork(self.server, self.chance.choice(life.ids), turn_id=messages[2 * place]))["id"])
        self.lives.append(forked)

    async def evict(self) -> None:
        if self.responses:
            response_id = self.chance.choice(list(self.responses)[-RESPONSES_MAX:])
            await delete(self.server, f"/v1/responses/{response_id}")
            del self.responses[response_id]

    async def delete(self) -> None:
        if len(self.lives) < 4:
            return
        life = self.chance.choice(self.lives)
        await delete(self.server, f"/api/sessions/{self.chance.choice(life.ids)}")
        self.lives.remove(life)
        for session_id in life.ids:
            await self.server.get(f"/api/sessions/{session_id}", 404)
        self.responses = {name: known for name, known in self.responses.items() if known[0] is not life}

    async def check(self) -> None:
        """All there is to see is as the model says."""
        for life in self.lives:
            assert await said(self.server, self.chance.choice(life.ids)) == dialogue(*life.texts)
            assert {await tip(self.server, session_id) for session_id in life.ids} == {life.ids[-1]}
        rows = await listed(self.server)
        assert sorted(row["id"] for row in rows) == sorted(life.ids[-1] for life in self.lives)
        assert {row["end_reason"] for row in rows} == {None}


async def said_with_turns(server: Server, session_id: str) -> list[str]:
    """The turn of each message."""
    messages = (await server.get(f"/api/sessions/{session_id}/messages?limit=500&offset=0"))["data"]
    return [message["turn_id"] for message in messages]


@pytest.mark.parametrize("seed", range(3))
async def test_a_random_life_is_as_its_clients_know_it(data: Path, upstream: Upstream, start: Start, seed: int) -> None:
    """What was said is there, once and in its session, and each prompt was that, behind kills and restarts too."""
    upstream.script = answering
    walk = Walk(seed, upstream)
    for number in range(3):
        process = await start(env=ENV)
        walk.server = process.server
        if number:
            await walk.check()
        for _ in range(STEPS // 3):
            await walk.step()
        await walk.check()
        await (process.kill9() if number % 2 else process.terminate())
    await turnlog("replay", "--data", str(data), "--verify")
