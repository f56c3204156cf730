"""Long lives over HTTP: many rotations, crashes, forks, clients that know nothing of sessions, and very many sessions.

Whatever happens to a session in between, its model is sent every turn once and in order, or the summary that stands for
it, and everything that was ever said is still there to be read.
"""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from api.turns.compress import Compression
from api.turns.summary import HEADING
from tests.support.dialogue import (
    CHAT,
    DOORS,
    RESPONSES,
    SESSION_CHAT,
    SUMMARY,
    answering,
    asked,
    check_prompt,
    dialogue,
    fork,
    found,
    is_for_summary,
    listed,
    question,
    questions,
    said,
    summaries_asked,
    take,
    tip,
    turnlog,
    user,
    users,
)
from tests.support.server import Process, Server, serving
from tests.support.upstream import Reply, Upstream

Start: TypeAlias = Callable[..., Awaitable[Process]]

COMPRESSION = Compression(context_tokens=800, compress_at=0.5)
ENV = {"TURNLOG_CONTEXT_TOKENS": "800", "TURNLOG_COMPRESS_AT": "0.5"}
SEED = 20_261_120
NAMES = [
    *((door, "id") for door in ("chat stream", "session chat stream", "run")),
    *((door, name) for door in RESPONSES for name in ("id", "slug", "newest")),
]


async def check_lineage(server: Server, ids: Sequence[str]) -> None:
    """A lineage as each of its ids shows it: one tip, and all other generations ended by compression."""
    rows = [(await server.get(f"/api/sessions/{session_id}"))["session"] for session_id in ids]
    assert [row["end_reason"] for row in rows] == ["compression"] * (len(ids) - 1) + [None]
    assert [row["parent_session_id"] for row in rows] == [None, *ids[:-1]]
    assert {await tip(server, session_id) for session_id in ids} == {ids[-1]}


# Rotation in a streamed conversation


async def test_streamed_turns_by_all_names_at_random_reach_the_tip_three_rotations_deep(
    data: Path, upstream: Upstream
) -> None:
    """Old ids, the slug and the newest response's id, mixed at random, with restarts in between."""
    upstream.script = answering
    chance = random.Random(SEED)  # noqa: S311 (a test that can be repeated)
    serve = partial(serving, data, upstream=upstream.url, compression=COMPRESSION)
    texts: list[str] = []
    ids: list[str] = []
    newest = ""  # the response that the newest turn made, if it made one
    while len(ids) < 4:
        async with serve() as server:
            for _ in range(12):
                text = question(len(texts))
                door, name = chance.choice(NAMES)
                named = {"slug": {"conversation": "trip"}, "newest": {"previous_response_id": newest}}.get(name, {})
                if not ids:
                    door, named = "responses stream", {"conversation": "trip"}
                elif name == "newest" and not newest:
                    named = {"conversation": "trip"}
                session_id = chance.choice(ids) if name == "id" and ids else None
                turn = await take(server, text, door, session_id, **named)
                check_prompt(asked(upstream)[-1], texts, text)
                newest = turn.id if door in RESPONSES else ""
                texts.append(text)
                if turn.session_id not in ids:
                    ids.append(turn.session_id)
                assert turn.session_id == ids[-1]
                if door == "chat stream":
                    assert turn.frames[-1]["session_id"] == ids[-1]
            assert await said(server, chance.choice(ids)) == dialogue(*texts)
            await check_lineage(server, ids)
    assert summaries_asked(upstream) == len(ids) - 1
    await turnlog("replay", "--data", str(data), "--verify")
    async with serve() as server:
        assert [row["id"] for row in await listed(server)] == [ids[-1]]
        lineage = await server.get(f"/api/sessions/{ids[0]}/lineage")
        assert all(session_id in str(lineage) for session_id in ids)
        assert str(lineage).count(SUMMARY) >= 3


async def test_a_session_compressed_again_is_sent_on_with_one_summary(data: Path, upstream: Upstream) -> None:
    """Head, one summary, tail: where an early summary was made by hand, the next takes it in."""
    upstream.script = answering
    async with serving(data, upstream=upstream.url, compression=COMPRESSION) as server:
        texts = questions(range(20))
        for number, text in enumerate(texts):
            await take(server, text, "chat", "boat")
            if number == 1:
                async with server.http.post("/api/sessions/boat/compress") as response:
                    assert response.status == 200
        assert summaries_asked(upstream) >= 2
        check_prompt(asked(upstream)[-1], texts[:-1], texts[-1])


# Rotation under parallel turns


async def test_parallel_turns_of_many_sessions_rotate_each_for_itself(data: Path, upstream: Upstream) -> None:
    """Eight sessions, each with sixteen turns at once, by every door: no turn lost, doubled, or in another's prompt."""
    upstream.script = answering
    sessions = [f"s{number}" for number in range(8)]
    texts = {name: [f"{name} asks {number} ".ljust(100, "x") for number in range(17)] for name in sessions}
    async with serving(data, upstream=upstream.url, compression=COMPRESSION) as server:
        await asyncio.gather(*(take(server, texts[name][0], "chat", name) for name in sessions))
        doors = itertools.cycle(DOORS)
        turns = [(name, texts[name][number], next(doors)) for number in range(1, 17) for name in sessions]
        taken = await asyncio.gather(*(take(server, text, door, name) for name, text, door in turns))
        reached = {name: [name] for name in sessions}
        for (name, _, _), turn in zip(turns, taken, strict=True):
            reached[name].append(turn.session_id)
        for name in sessions:
            spoken = await said(server, name)
            order = users(spoken)
            assert spoken == dialogue(*order)
            assert sorted(order) == sorted(texts[name])
            prompts = [sent for sent in asked(upstream) if sent[-1]["content"] in texts[name]]
            for sent in prompts:
                place = order.index(sent[-1]["content"])
                check_prompt(sent, order[:place], order[place])
            assert len(set(reached[name])) >= 2
            assert len({await tip(server, session_id) for session_id in set(reached[name])}) == 1
        assert len(await listed(server)) == len(sessions)
    await turnlog("replay", "--data", str(data), "--verify")


# A crash between rotation and turn


async def test_a_crash_between_rotation_and_turn_loses_neither(data: Path, upstream: Upstream, start: Start) -> None:
    """kill -9 right behind the answer of POST compress: the child has no turn yet, and every name leads to it."""
    upstream.script = answering
    process = await start()
    texts = questions(range(6))
    for text in texts:
        turn = await take(process.server, text, "responses stream", conversation="trip")
    root = turn.session_id
    ids = [root]
    for name in ("session", "conversation", "previous_response_id"):
        async with process.server.http.post(f"/api/sessions/{root}/compress") as response:
            assert response.status == 200
            ids.append((await response.json())["session_id"])
        await process.kill9()
        process = await start()
        names = {"session": root, "conversation": "trip", "previous_response_id": turn.id}
        for named in ({name: names[name]}, {"conversation": "trip"}):
            text = question(len(texts))
            turn = await take(process.server, text, "responses stream", **named)
            assert turn.session_id == ids[-1]
            assert any(message["content"] == f"{HEADING}\n\n{SUMMARY}" for message in asked(upstream)[-1])
            check_prompt(asked(upstream)[-1], texts, text)
            texts.append(text)
        assert await said(process.server, root) == dialogue(*texts)
    await check_lineage(process.server, ids)
    assert summaries_asked(upstream) == 3
    assert await process.terminate() == 0
    await turnlog("replay", "--data", str(data), "--verify")


async def test_a_crash_in_the_turn_that_rotated_leaves_one_tip_and_no_half_turn(
    upstream: Upstream, start: Start
) -> None:
    """kill -9 while the model answers the turn for which the session was compressed: the summary is not made again."""
    upstream.script = answering
    process = await start(env=ENV)
    held = asyncio.Event()

    def holding(body: dict[str, Any]) -> Reply:
        """Answers, but for the first turn behind a summary."""
        if summaries_asked(upstream) and not is_for_summary(body):
            upstream.gate.clear()
            held.set()
        return answering(body)

    upstream.script = holding
    holds = asyncio.create_task(held.wait())
    texts: list[str] = []
    while not held.is_set():
        text = question(len(texts))
        turn = asyncio.create_task(take(process.server, text, "chat stream", "boat"))
        await asyncio.wait([turn, holds], return_when=asyncio.FIRST_COMPLETED)
        texts.append(text)
    texts.pop()
    await process.kill9(turn)
    upstream.script = answering
    upstream.gate.set()
    process = await start(env=ENV)
    server = process.server
    retried = await take(server, text, "chat stream", "boat")
    assert retried.session_id != "boat"
    assert summaries_asked(upstream) == 1
    check_prompt(asked(upstream)[-1], texts, text)
    assert asked(upstream)[-1] == asked(upstream)[-2]
    await check_lineage(server, ["boat", retried.session_id])
    messages = [m for m in await server.messages("boat") if m["status"] == "completed"]
    assert users(messages) == [*texts, text]
    assert await process.terminate() == 0


# Forks of rotated sessions


async def test_forks_at_random_turns_of_rotated_sessions_leave_the_source_alone(data: Path, upstream: Upstream) -> None:
    """A fork from before a rotation has what was said until then, one from behind it the summary and the rest."""
    upstream.script = answering
    chance = random.Random(SEED)  # noqa: S311 (a test that can be repeated)
    async with serving(data, upstream=upstream.url, compression=COMPRESSION) as server:
        texts = questions(range(30))
        turns = [await take(server, text, "responses", conversation="trip") for text in texts]
        root, newest = turns[0].session_id, turns[-1].session_id
        assert summaries_asked(upstream) >= 2
        turn_ids = list(dict.fromkeys(m["turn_id"] for m in await server.messages(root)))
        assert len(turn_ids) == 30
        forks: dict[str, list[str]] = {}
        for number, place in enumerate(chance.sample(range(29), 12)):
            text = f"otherwise {number} ".ljust(100, "x")
            if number % 2:
                source = chance.choice([root, newest, turns[place].session_id])
                forked: str = (await fork(server, source, turn_id=turn_ids[place]))["id"]
                assert await said(server, forked) == dialogue(*texts[: place + 1])
                await take(server, text, chance.choice([*CHAT, *SESSION_CHAT]), forked)
            else:
                forked = (await take(server, text, "responses", previous_response_id=turns[place].id)).session_id
            check_prompt(asked(upstream)[-1], texts[: place + 1], text)
            forks[forked] = [*texts[: place + 1], text]
        assert len(forks) == 12
        assert await said(server, root) == dialogue(*texts)
        assert await tip(server, root) == newest
        await take(server, "go on", "chat", root)
        check_prompt(asked(upstream)[-1], texts, "go on")
    async with serving(data, upstream=upstream.url, compression=COMPRESSION) as server:
        for forked, told in forks.items():
            assert users(await said(server, forked)) == told
            turn = await take(server, "and on", "chat", forked)
            check_prompt(asked(upstream)[-1], told, "and on")
            assert await tip(server, forked) == turn.session_id
        assert await said(server, root) == dialogue(*texts, "go on")
    await turnlog("replay", "--data", str(data), "--verify")


async def test_a_fork_of_a_rotated_session_is_itself_forked_at_every_turn_that_it_shows(
    server: Server, upstream: Upstream
) -> None:
    """Fork at any turn: /messages of the fork names turns, and each of them is one to fork at."""
    upstream.script = answering
    texts = questions(range(5))
    for text in texts[:4]:
        await take(server, text, "chat", "boat")
    async with server.http.post("/api/sessions/boat/compress") as response:
        assert response.status == 200
    await take(server, texts[4], "chat", "boat")
    await fork(server, "boat", id="raft")
    turn_ids = list(dict.fromkeys(message["turn_id"] for message in await server.messages("raft")))
    assert len(turn_ids) == 5
    for number, turn_id in enumerate(turn_ids, 1):
        forked = (await fork(server, "raft", turn_id=turn_id))["id"]
        assert await said(server, forked) == dialogue(*texts[:number])
        await take(server, "otherwise", "chat", forked)
        check_prompt(asked(upstream)[-1], texts[:number], "otherwise")


async def test_the_row_of_a_fork_is_of_what_the_fork_shows(server: Server, upstream: Upstream) -> None:
    """In lists a fork must not look empty: the original copies what it counts."""
    upstream.script = answering
    for text in ("one", "two"):
        await take(server, text, "chat", "boat")
    row = await fork(server, "boat", id="raft")
    shown = await server.get("/api/sessions/raft/messages")
    assert (row["message_count"], row["preview"], row["model"]) == (shown["total"], "one", "m") == (4, "one", "m")


async def test_children_of_one_response_at_once_are_one_that_goes_on_and_forks(
    server: Server, upstream: Upstream
) -> None:
    """Six turns behind one response in parallel: each sees that response's turns alone, one is in its session."""
    upstream.script = answering
    first = await take(server, "first", "responses", conversation="trip")
    doors = [*RESPONSES, "run"] * 2
    turns = await asyncio.gather(
        *(take(server, question(n), door, previous_response_id=first.id) for n, door in enumerate(doors))
    )
    assert [sent[:-1] for sent in asked(upstream)[1:]] == [dialogue("first")] * 6
    assert sorted(sent[-1]["content"] for sent in asked(upstream)[1:]) == questions(range(6))
    ids = [turn.session_id for turn in turns]
    assert len(set(ids)) == 6
    assert ids.count(first.session_id) == 1
    for number, session_id in enumerate(ids):
        assert await said(server, session_id) == dialogue("first", question(number))


# Clients that resend their whole history


@pytest.mark.parametrize(
    ("door", "session_id"), [("chat", None), ("chat stream", None), ("chat", "boat"), ("responses", "boat")]
)
async def test_a_client_that_resends_everything_is_one_session_across_rotations(
    data: Path, upstream: Upstream, door: str, session_id: str | None
) -> None:
    """60 turns that bring their whole history each time, with a session id or without: 60 turns, one session."""
    upstream.script = answering
    texts = questions(range(60))
    field = "messages" if door in CHAT else "input"
    ids: list[str] = []
    for first in (0, 20, 40):
        async with serving(data, upstream=upstream.url, compression=COMPRESSION) as server:
            for number in range(first, first + 20):
                whole: dict[str, Any] = {field: [*dialogue(*texts[:number]), user(texts[number])]}
                turn = await take(server, "", door, session_id, **whole)
                check_prompt(asked(upstream)[-1], texts[:number], texts[number])
                if turn.session_id not in ids:
                    ids.append(turn.session_id)
                assert turn.session_id == ids[-1]
    async with serving(data, upstream=upstream.url) as server:
        assert len(ids) == summaries_asked(upstream) + 1 >= 4
        assert await said(server, ids[0]) == dialogue(*texts)
        assert [row["id"] for row in await listed(server)] == [ids[-1]]
        await check_lineage(server, ids)


async def test_a_client_that_goes_back_to_before_a_rotation_forks_and_goes_on_there(
    data: Path, upstream: Upstream
) -> None:
    """A chat UI edits an old message: the history up to there is known, though its generation has ended."""
    upstream.script = answering
    texts = questions(range(30))
    async with serving(data, upstream=upstream.url, compression=COMPRESSION) as server:
        for number in range(30):
            original = await take(server, "", messages=[*dialogue(*texts[:number]), user(texts[number])])
        edited = [*texts[:2], *(f"edited {number} ".ljust(100, "x") for number in range(20))]
        for number in range(2, 22):
            forked = await take(server, "", messages=[*dialogue(*edited[:number]), user(edited[number])])
            check_prompt(asked(upstream)[-1], edited[:number], edited[number])
        assert users(await said(server, forked.session_id)) == edited
        assert await said(server, original.session_id) == dialogue(*texts)
        assert len(await listed(server)) == 2
        await take(server, "", messages=[*dialogue(*texts), user("go on")])
        check_prompt(asked(upstream)[-1], texts, "go on")
        assert await said(server, original.session_id) == dialogue(*texts, "go on")


@pytest.mark.xfail(strict=True, reason="a fork that nobody has spoken in yet is not known by its history")
async def test_a_client_that_resends_the_history_of_a_fresh_fork_goes_on_in_it(
    server: Server, upstream: Upstream
) -> None:
    """The fork's transcript is just this history, the source's is not: it is the fork that goes on, and no third."""
    upstream.script = answering
    for text in ("one", "two", "three"):
        await take(server, text, "chat", "boat")
    await fork(server, "boat", id="raft", turn_id=(await server.messages("boat"))[2]["turn_id"])
    turn = await take(server, "", messages=[*dialogue("one", "two"), user("otherwise")])
    assert asked(upstream)[-1] == [*dialogue("one", "two"), user("otherwise")]
    assert turn.session_id == "raft"
    assert sorted(row["id"] for row in await listed(server)) == ["boat", "raft"]


# A thousand sessions


async def test_a_thousand_sessions_are_listed_searched_and_paged(data: Path, upstream: Upstream) -> None:
    """A thousand first turns; every page by offset and by cursor, each session once, and each found by its own word."""
    upstream.script = answering
    async with serving(data, upstream=upstream.url) as server:
        made: list[str] = []
        for first in range(0, 1_000, 50):
            texts = [f"island{number:04d} in ocean{number % 10}" for number in range(first, first + 50)]
            made += [turn.session_id for turn in await asyncio.gather(*(take(server, text) for text in texts))]
        assert len(set(made)) == 1_000

        by_offset = await pages(server, by_cursor=False)
        by_cursor = await pages(server, by_cursor=True)
        assert [row["id"] for row in by_offset] == [row["id"] for row in by_cursor]
        assert sorted(row["id"] for row in by_offset) == sorted(made)
        active = [row["last_active"] for row in by_offset]
        assert active == sorted(active, reverse=True)
        default = await server.get("/api/sessions")
        assert (len(default["data"]), default["limit"], default["has_more"]) == (50, 50, True)
        assert len((await server.get("/api/sessions?limit=200"))["data"]) == 200
        assert (await server.get("/api/sessions?limit=200&offset=1000"))["data"] == []

        for number in (0, 7, 500, 999):
            (hit,) = await found(server, f"island{number:04d}")
            assert hit["session_id"] == made[number]
            assert f"island{number:04d}" in hit["snippet"]
        assert await found(server, "atlantis") == []
        hits: list[dict[str, Any]] = []
        while page := await found(server, "ocean3", limit=30, offset=len(hits)):
            hits += page
        assert sorted(hit["session_id"] for hit in hits) == sorted(made[3::10])

        # The newest turn brings its session to the top, and every session goes on alone.
        await take(server, "again", "chat", made[123])
        assert (await listed(server))[0]["id"] == made[123]
        assert asked(upstream)[-1] == [*dialogue("island0123 in ocean3"), user("again")]
    async with serving(data, upstream=upstream.url) as server:
        assert len(await pages(server, by_cursor=True)) == 1_000


async def pages(server: Server, *, by_cursor: bool) -> list[dict[str, Any]]:
    """All sessions, page by page."""
    rows: list[dict[str, Any]] = []
    where = ""
    while True:
        page = await server.get(f"/api/sessions?limit=200{where}")
        rows += page["data"]
        if not page["has_more"]:
            return rows
        where = f"&cursor={page['next_cursor']}" if by_cursor else f"&offset={len(rows)}"
