"""What breaks in the system that turnlog replaces and not here: HERMES.md, "What breaks there", line by line.

Each test goes through the server's front door and looks at what the model was sent. The numbers are the original's
issues.
"""

import asyncio
import gc
import itertools
import random
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias, cast

import openai
import pytest
from freezegun import freeze_time

from api.turns.compress import Compression
from tests.support.dialogue import (
    CHARACTERS_MAX,
    CHAT,
    DOORS,
    RESPONSES,
    SESSION_CHAT,
    Turn,
    answer,
    answering,
    asked,
    characters,
    delete,
    dialogue,
    finished,
    fork,
    found,
    listed,
    opened,
    plain,
    question,
    questions,
    reached,
    run_frames,
    said,
    sse,
    summaries_asked,
    take,
    tip,
    turnlog,
    user,
    users,
)
from tests.support.server import Process, Server, serving
from tests.support.upstream import Upstream, says

Start: TypeAlias = Callable[..., Awaitable[Process]]

COMPRESSION = Compression(context_tokens=800, compress_at=0.5)
by_every_door = pytest.mark.parametrize("door", DOORS)
by_doors_with_header = pytest.mark.parametrize("door", [*CHAT, *RESPONSES, "run"])


async def refused(server: Server, text: str, door: str, *arguments: Any, status: int, **body: Any) -> dict[str, Any]:
    """A turn that is refused with this status; the answer's headers and error."""
    async with opened(server, text, door, *arguments, **body) as response:
        told: dict[str, Any] = await response.json()
        assert response.status == status, told
        assert set(told["error"]) == {"message", "type", "param", "code"}
        return {name.lower(): value for name, value in response.headers.items()} | dict(told["error"])


async def begin(server: Server, door: str, session_id: str = "boat", text: str = "hello") -> None:
    """The first turn of a session, which the doors under /api/sessions need to be there."""
    await take(server, text, "chat" if door in SESSION_CHAT else door, session_id)


# A slug mints a new session after restart or eviction. After 104 other responses: 200, new session, history gone.


async def evicted_by_count(server: Server, _response_id: str) -> None:
    for number in range(104):
        await take(server, f"other {number}", "responses")


async def evicted_by_deletion(server: Server, response_id: str) -> None:
    await delete(server, f"/v1/responses/{response_id}")


@pytest.mark.parametrize("evicted", [evicted_by_count, evicted_by_deletion])
async def test_a_slug_leads_to_its_session_when_its_response_is_gone_and_after_a_restart(
    data: Path, upstream: Upstream, evicted: Callable[[Server, str], Awaitable[None]]
) -> None:
    """#16517: 104 other responses or a deleted one dropped the slug; the next turn began a session without history."""
    upstream.script = answering
    serve = partial(serving, data, upstream=upstream.url, responses_max=100)
    async with serve() as server:
        first = await take(server, "one", "responses", conversation="trip")
        await evicted(server, first.id)
        await server.get(f"/v1/responses/{first.id}", 404)
        second = await take(server, "two", "responses", conversation="trip")
        assert asked(upstream)[-1] == [*dialogue("one"), user("two")]
        await evicted(server, second.id)
    async with serve() as server:
        third = await take(server, "three", "responses", conversation="trip")
        assert asked(upstream)[-1] == [*dialogue("one", "two"), user("three")]
        assert {first.session_id, second.session_id, third.session_id} == {first.session_id}
        assert await said(server, first.session_id) == dialogue("one", "two", "three")


async def test_a_slug_leads_to_its_session_when_its_responses_are_too_old(data: Path, upstream: Upstream) -> None:
    """#16517, by age: a response is gone after its time, its conversation is not."""
    upstream.script = answering
    async with serving(data, upstream=upstream.url, response_ttl_s=86_400.0) as server:
        with freeze_time("2026-12-01T12:00:00", real_asyncio=True):
            first = await take(server, "one", "responses", conversation="trip")
            await server.get(f"/v1/responses/{first.id}")
        with freeze_time("2026-12-03T12:00:00", real_asyncio=True):
            await server.get(f"/v1/responses/{first.id}", 404)
            second = await take(server, "two", "responses", conversation="trip")
            assert asked(upstream)[-1] == [*dialogue("one"), user("two")]
            assert second.session_id == first.session_id
            late = await refused(server, "three", "responses", status=404, previous_response_id=first.id)
            assert (late["code"], late["param"]) == ("previous_response_not_found", "previous_response_id")


async def test_a_slug_leads_to_its_session_after_a_crash(upstream: Upstream, start: Start) -> None:
    """#16517, the hard way: kill -9 right behind the answer."""
    upstream.script = answering
    process = await start()
    first = await take(process.server, "one", "responses stream", conversation="trip")
    await process.kill9()
    process = await start()
    second = await take(process.server, "two", "responses", conversation="trip")
    assert await process.terminate() == 0
    assert second.session_id == first.session_id
    assert asked(upstream)[-1] == [*dialogue("one"), user("two")]


async def test_two_first_turns_for_one_slug_at_once_make_one_session(server: Server, upstream: Upstream) -> None:
    """#16517: a slug is a name for one session, however it is first used."""
    upstream.script = answering
    turns = await asyncio.gather(
        *(take(server, question(n), door, conversation="trip") for n, door in enumerate([*RESPONSES, "run"] * 3))
    )
    assert len({turn.session_id for turn in turns}) == 1
    assert sorted(map(len, asked(upstream))) == list(range(1, 18, 2))


async def test_an_evicted_response_is_missing_by_its_name_and_the_chain_behind_it_goes_on(
    data: Path, upstream: Upstream
) -> None:
    """#16517: no silent 200 without the history. What is gone is said to be gone; what is not, continues whole."""
    upstream.script = answering
    async with serving(data, upstream=upstream.url, responses_max=2) as server:
        chain = [await take(server, "one", "responses")]
        for text in ("two", "three"):
            chain.append(await take(server, text, "responses", previous_response_id=chain[-1].id))
        with pytest.raises(openai.NotFoundError) as missing:
            await server.openai.responses.create(model="m", input="x", previous_response_id=chain[0].id)
        assert missing.value.code == "previous_response_not_found"
        assert missing.value.param == "previous_response_id"
        assert len(upstream.requests) == 3
        last = await take(server, "four", "responses", previous_response_id=chain[-1].id)
        assert last.session_id == chain[0].session_id
        assert asked(upstream)[-1] == [*dialogue("one", "two", "three"), user("four")]


# Stored history doubles per turn: 2,056 items by turn 10, where 20 are right. 200 chained turns: a 2.0 GB store.


@pytest.mark.parametrize(
    ("door", "name"),
    [
        *itertools.product(RESPONSES, ["previous_response_id", "conversation", "session header"]),
        *itertools.product(["run", *CHAT], ["session header"]),
        ("run", "conversation"),
    ],
)
async def test_ten_turns_are_twenty_messages(server: Server, upstream: Upstream, name: str, door: str) -> None:
    """#68257, #95137, #101644: 3, 8, 17, 34, 67 … items were stored and sent, where 2, 4, 6, 8, 10 are right."""
    upstream.script = answering
    texts = questions(range(10))
    named: dict[str, Any] = {"conversation": {"conversation": "trip"}, "session header": {"session": "boat"}}.get(
        name, {}
    )
    for number, text in enumerate(texts):
        turn = await take(server, text, door, **named)
        assert asked(upstream)[-1] == [*dialogue(*texts[:number]), user(text)]
        if name == "previous_response_id":
            named = {name: turn.id}
    assert await said(server, turn.session_id) == dialogue(*texts)
    row = (await server.get(f"/api/sessions/{turn.session_id}"))["session"]
    assert (row["message_count"], row["api_call_count"]) == (20, 10)
    assert len(await listed(server)) == 1


@pytest.mark.parametrize(
    ("door", "session_id"), [*((door, "boat") for door in (*CHAT, *RESPONSES, "run")), *((door, None) for door in CHAT)]
)
async def test_a_client_that_resends_its_whole_history_stores_each_message_once(
    server: Server, upstream: Upstream, door: str, session_id: str | None
) -> None:
    """#68257: with a session id only what is new is taken in; without one the history itself is known again."""
    upstream.script = answering
    texts = questions(range(10))
    field = "messages" if door in CHAT else "input"
    for number, text in enumerate(texts):
        whole: dict[str, Any] = {field: [*dialogue(*texts[:number]), user(text)]}
        turn = await take(server, text, door, session_id, **whole)
        assert asked(upstream)[-1] == [*dialogue(*texts[:number]), user(text)]
    assert await said(server, turn.session_id) == dialogue(*texts)
    assert [row["id"] for row in await listed(server)] == [turn.session_id]


async def test_the_second_hundred_turns_take_no_more_room_than_the_first(data: Path, upstream: Upstream) -> None:
    """#68257, #54189: 200 chained responses made a store of 2.0 GB, the last row alone of 26.8 MB."""
    upstream.script = answering
    sizes = [0]
    previous: dict[str, Any] = {}
    for hundred in range(2):
        async with serving(data, upstream=upstream.url) as server:
            for number in range(100):
                turn = await take(server, question(100 * hundred + number), "responses", **previous)
                previous = {"previous_response_id": turn.id}
            assert len(str(await server.get(f"/v1/responses/{turn.id}"))) < 4_000
        sizes.append(sum(path.stat().st_size for path in data.glob("*.db*")))
    assert sizes[2] - sizes[1] <= sizes[1]
    assert sizes[2] < 200 * 4_000
    assert len(asked(upstream)[-1]) == 399


# After rotation the client keeps the stale id: prompts grow without bound, with duplicates. Streams never learn the
# effective id.


@by_every_door
async def test_a_client_that_keeps_its_stale_id_is_led_to_the_tip_and_sent_on_bounded(
    data: Path, upstream: Upstream, door: str
) -> None:
    """#16938: 34 messages and 547 KB went to the model where 18 messages were right. #44004: the id stayed stale."""
    upstream.script = answering
    texts = questions(range(40))
    ids = ["boat"]
    async with serving(data, upstream=upstream.url, compression=COMPRESSION) as server:
        await begin(server, door, text=texts[0])
        for text in texts[1:]:
            turn = await take(server, text, door, "boat")
            sent = asked(upstream)[-1]
            assert sent[-1]["content"] == text
            assert len(set(users(sent))) == len(users(sent))
            assert characters(sent) <= CHARACTERS_MAX
            if turn.session_id != ids[-1]:
                ids.append(turn.session_id)
        assert len(set(ids)) == len(ids) == summaries_asked(upstream) + 1 >= 3
        assert await said(server, "boat") == dialogue(*texts)
        assert await tip(server, "boat") == ids[-1]
        rows = [(await server.get(f"/api/sessions/{session_id}"))["session"] for session_id in ids]
        assert [row["end_reason"] for row in rows] == ["compression"] * (len(rows) - 1) + [None]
        assert [row["parent_session_id"] for row in rows] == [None, *ids[:-1]]
        assert [(row["id"], row["_lineage_root_id"]) for row in await listed(server)] == [(ids[-1], "boat")]


@pytest.mark.parametrize("door", ["chat stream", "responses stream", "session chat stream", "run"])
async def test_streams_tell_the_effective_session_id(data: Path, upstream: Upstream, door: str) -> None:
    """#16938, #44004: the headers of a stream go out first, so the rotation must have happened before they do."""
    upstream.script = answering
    async with serving(data, upstream=upstream.url, compression=COMPRESSION) as server:
        await begin(server, door)
        rotated = "boat"
        for number in itertools.count():
            async with opened(server, question(number), door, "boat") as response:
                told = response.headers["X-Hermes-Session-Id"]
                turn = await finished(server, door, response)
            if told != "boat":
                rotated = told
                break
        assert rotated == await tip(server, "boat")
        if door == "chat stream":
            assert turn.frames[-1]["session_id"] == rotated
        if door == "session chat stream":
            assert {frame["session_id"] for frame in turn.frames} == {rotated}
        if door == "run":
            assert (await server.get(f"/v1/runs/{turn.id}"))["session_id"] == rotated


async def test_the_sdk_reads_the_effective_id_of_a_plain_and_a_streamed_answer(data: Path, upstream: Upstream) -> None:
    """#44004, with the client that people have."""
    upstream.script = answering
    async with serving(data, upstream=upstream.url, compression=COMPRESSION) as server:
        texts = questions(range(16))
        for number, text in enumerate(texts):
            create = partial(
                server.openai.chat.completions.with_raw_response.create,
                model="m",
                messages=[{"role": "user", "content": text}],
                extra_headers={"X-Hermes-Session-Id": "boat"},
            )
            if number % 2:
                stream = await create(stream=True)
                effective = stream.headers["X-Hermes-Session-Id"]
                chunks = [chunk async for chunk in cast("AsyncIterator[Any]", stream.parse())]
                assert chunks[-1].session_id == effective
            else:
                effective = (await create(stream=False)).headers["X-Hermes-Session-Id"]
        assert effective == await tip(server, "boat") != "boat"


# Six parallel turns on one session all see the same snapshot and are stored as u u u u a …


@pytest.mark.parametrize("doors", [*((door,) * 6 for door in DOORS), DOORS], ids=[*DOORS, "all doors"])
async def test_parallel_turns_on_one_session_see_those_before_them(
    server: Server, upstream: Upstream, doors: tuple[str, ...]
) -> None:
    """#84235: six parallel turns all saw the same snapshot, and were stored as u u u u a …"""
    upstream.script = answering
    await take(server, "hello", "chat", "boat")
    upstream.gate.clear()
    turns = [asyncio.create_task(take(server, question(number), door, "boat")) for number, door in enumerate(doors)]
    await reached(upstream, 2, *turns)
    await server.get("/health")
    assert len(upstream.requests) == 2
    upstream.gate.set()
    taken = await asyncio.gather(*turns)
    prompts = asked(upstream)
    for before, after in itertools.pairwise(prompts):
        assert after[:-1] == [*before, {"role": "assistant", "content": answer(before[-1]["content"])}]
    assert sorted(turn.text for turn in taken) == sorted(answer(prompt[-1]["content"]) for prompt in prompts[1:])
    assert await said(server, "boat") == dialogue(*(prompt[-1]["content"] for prompt in prompts))
    assert sorted(prompt[-1]["content"] for prompt in prompts[1:]) == sorted(questions(range(len(doors))))


# After a fork, reading the original returns the fork's transcript; a failed fork ends the parent.


async def fork_by_route(server: Server, turns: list[Turn]) -> str:
    messages = (await server.get(f"/api/sessions/{turns[0].session_id}/messages"))["data"]
    forked: str = (await fork(server, turns[0].session_id, turn_id=messages[2]["turn_id"]))["id"]
    return forked


async def fork_by_response(server: Server, turns: list[Turn]) -> str:
    return (await take(server, "otherwise", "responses", previous_response_id=turns[1].id)).session_id


async def fork_by_history(server: Server, _turns: list[Turn]) -> str:
    messages = [*dialogue("one", "two"), user("otherwise")]
    return (await take(server, "", "chat", messages=messages)).session_id


@pytest.mark.parametrize("forking", [fork_by_route, fork_by_response, fork_by_history])
async def test_a_fork_and_its_original_go_their_own_ways(
    data: Path, upstream: Upstream, forking: Callable[[Server, list[Turn]], Awaitable[str]]
) -> None:
    """#68510, #68511: reading the original returned the fork's transcript, and turns on it went there too."""
    upstream.script = answering
    async with serving(data, upstream=upstream.url) as server:
        turns = [await take(server, text, "responses", conversation="trip") for text in ("one", "two", "three")]
        original = turns[0].session_id
        before = (await server.get(f"/api/sessions/{original}"))["session"]
        forked = await forking(server, turns)
        after = (await server.get(f"/api/sessions/{original}"))["session"]
        assert before == after
        assert (after["ended_at"], after["end_reason"]) == (None, None)
        assert await said(server, original) == dialogue("one", "two", "three")
        told = ["one", "two"] if forking is fork_by_route else ["one", "two", "otherwise"]
        assert await said(server, forked) == dialogue(*told)

        await take(server, "in the fork", "chat", forked)
        assert asked(upstream)[-1] == [*dialogue(*told), user("in the fork")]
        assert await said(server, original) == dialogue("one", "two", "three")
    async with serving(data, upstream=upstream.url) as server:
        by_slug = await take(server, "four", "responses", conversation="trip")
        assert by_slug.session_id == original
        assert asked(upstream)[-1] == [*dialogue("one", "two", "three"), user("four")]
        assert await said(server, forked) == dialogue(*told, "in the fork")
        assert {row["id"]: row["end_reason"] for row in await listed(server, "&include_children=true")} == {
            original: None,
            forked: None,
        }


@pytest.mark.parametrize(
    ("source", "body", "status", "code"),
    [
        ("boat", {"id": "other"}, 409, "session_exists"),
        ("boat", {"id": "../boat"}, 400, None),
        ("boat", {"id": "x" * 257}, 400, None),
        ("boat", {"turn_id": "nowhere"}, 404, None),
        ("boat", {"turn_id": 7}, 400, None),
        ("boat", {"title": 7}, 400, None),
        ("nobody", {}, 404, "session_not_found"),
    ],
    ids=str,
)
async def test_a_failed_fork_changes_nothing(
    server: Server, upstream: Upstream, source: str, body: dict[str, Any], status: int, code: str | None
) -> None:
    """#11030: the parent was ended as `branched` before the fork was made, and stayed so when it could not be."""
    upstream.script = answering
    await take(server, "one", "chat", "boat")
    await take(server, "elsewhere", "chat", "other")
    before = await listed(server, "&include_children=true")
    error = await fork(server, source, status, **body)
    assert code in (None, error["code"])
    assert await listed(server, "&include_children=true") == before
    assert {row["end_reason"] for row in before} == {None}
    assert (await take(server, "two", "chat", "boat")).session_id == "boat"
    assert asked(upstream)[-1] == [*dialogue("one"), user("two")]
    assert await said(server, "other") == dialogue("elsewhere")


async def test_a_fork_while_its_source_is_at_work_leaves_both_whole(server: Server, upstream: Upstream) -> None:
    """#11030, #68511: the fork has the turns that are complete, the open one ends in the original."""
    upstream.script = answering
    await take(server, "one", "chat", "boat")
    upstream.gate.clear()
    turn = asyncio.create_task(take(server, "two", "chat", "boat"))
    await reached(upstream, 2, turn)
    forking = asyncio.create_task(fork(server, "boat", id="raft"))
    await server.get("/health")
    upstream.gate.set()
    await asyncio.gather(turn, forking)
    await take(server, "aside", "chat", "raft")
    assert asked(upstream)[-1] in ([*dialogue("one"), user("aside")], [*dialogue("one", "two"), user("aside")])
    assert await said(server, "boat") == dialogue("one", "two")


# The same idempotency key and body in another session returns the first session's id; streams and restarts are not
# covered.


def same(one: Turn, other: Turn) -> bool:
    """Whether two answers are of one turn: the same text, ids and frames, but for the time of telling (`ts`)."""
    frames = [[frame | {"ts": 0} for frame in turn.frames] for turn in (one, other)]
    return one[:3] == other[:3] and frames[0] == frames[1]


@by_every_door
async def test_one_key_in_two_sessions_is_two_turns(server: Server, upstream: Upstream, door: str) -> None:
    """PR #39643: the same key and body in another session was answered with the first session's answer and id."""
    upstream.script = answering
    for session_id in ("boat", "raft"):
        await begin(server, door, session_id, f"hello {session_id}")
    boat, raft = [await take(server, "go on", door, session_id, key="k") for session_id in ("boat", "raft")]
    assert (boat.session_id, raft.session_id) == ("boat", "raft")
    assert asked(upstream)[-2:] == [[*dialogue(f"hello {name}"), user("go on")] for name in ("boat", "raft")]
    assert "Idempotency-Replayed" not in raft.headers
    again = await take(server, "go on", door, "boat", key="k")
    assert same(again, boat)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert len(upstream.requests) == 4


@by_every_door
async def test_a_retry_is_answered_from_the_log_streamed_or_not_before_and_after_a_restart(
    data: Path, upstream: Upstream, door: str
) -> None:
    """#88400, #64947: keys were kept in memory for five minutes, and for plain answers only."""
    upstream.script = answering
    async with serving(data, upstream=upstream.url) as server:
        await begin(server, door)
        first = await take(server, "go on", door, "boat", key="k")
        assert "Idempotency-Replayed" not in first.headers
        retries = [await take(server, "go on", door, "boat", key="k")]
        await take(server, "and on", door, "boat")
        retries.append(await take(server, "go on", door, "boat", key="k"))
    async with serving(data, upstream=upstream.url) as server:
        retries.append(await take(server, "go on", door, "boat", key="k"))
        assert all(same(retry, first) for retry in retries)
        assert {retry.headers["Idempotency-Replayed"] for retry in retries} == {"true"}
        assert len(upstream.requests) == 3
        assert await said(server, "boat") == dialogue("hello", "go on", "and on")


@by_doors_with_header
async def test_a_retry_of_a_first_turn_finds_the_session_that_it_made(
    data: Path, upstream: Upstream, door: str
) -> None:
    """#64947: the answer got lost on its way, and with it the id that the server had made up."""
    upstream.script = answering
    async with serving(data, upstream=upstream.url) as server:
        first = await take(server, "hello", door, key="k")
    async with serving(data, upstream=upstream.url) as server:
        assert same(await take(server, "hello", door, key="k"), first)
        assert len(await listed(server)) == 1
    assert len(upstream.requests) == 1


@by_every_door
async def test_a_retry_waits_for_a_first_that_is_still_running(server: Server, upstream: Upstream, door: str) -> None:
    """#88400: concurrent submissions with the same key create exactly one turn."""
    upstream.script = answering
    await begin(server, door)
    upstream.gate.clear()
    turns = [asyncio.create_task(take(server, "go on", door, "boat", key="k"))]
    await reached(upstream, 2, *turns)
    turns += [asyncio.create_task(take(server, "go on", door, "boat", key="k")) for _ in range(3)]
    await server.get("/health")
    upstream.gate.set()
    first, *retries = await asyncio.gather(*turns)
    assert all(same(retry, first) for retry in retries)
    assert len(upstream.requests) == 2
    assert await said(server, "boat") == dialogue("hello", "go on")


async def test_a_retry_learns_the_id_of_a_run_that_is_at_work(server: Server, upstream: Upstream) -> None:
    """#64947: where the 202 got lost, nobody could follow or stop the run, as nobody knew its id."""
    failures: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    upstream.script = answering
    upstream.gate.clear()
    run_ids: list[str] = []
    watching: list[asyncio.Task[list[dict[str, Any]]]] = []
    for _ in range(3):
        async with asyncio.timeout(5), opened(server, "hello", "run", "boat", "k") as response:
            assert response.status == 202
            run_ids.append((await response.json())["run_id"])
        await upstream.wait_for_requests(1)
        watching.append(asyncio.create_task(run_frames(server, run_ids[-1])))
        await server.get(f"/v1/runs/{run_ids[-1]}")
    upstream.gate.set()
    async with asyncio.timeout(5):
        watched = await asyncio.gather(*watching)
    assert len(set(run_ids)) == 1
    assert [frames[-1:] for frames in watched] == [watched[-1][-1:]] * 3
    assert watched[-1][-1]["output"] == answer("hello")
    assert len(upstream.requests) == 1
    gc.collect()  # a task that failed behind everybody's back is told when it is collected
    assert failures == []


@by_every_door
async def test_another_body_under_a_used_key_is_a_conflict_that_is_not_retried(
    server: Server, upstream: Upstream, door: str
) -> None:
    """#88400: another payload under a known key is refused, by a stable code."""
    upstream.script = answering
    await begin(server, door)
    await take(server, "go on", door, "boat", key="k")
    error = await refused(server, "something else", door, "boat", "k", status=409)
    assert error["code"] == "idempotency_key_conflict"
    assert error["x-should-retry"] == "false"
    assert len(upstream.requests) == 2
    assert await said(server, "boat") == dialogue("hello", "go on")


async def test_turns_that_died_with_the_server_are_done_once_under_their_keys(upstream: Upstream, start: Start) -> None:
    """#88400, #64947: callers could not retry behind a crash without a second execution being kept."""
    upstream.script = answering
    server = (process := await start()).server
    for door in DOORS:
        await begin(server, door, door)
    before = len(upstream.requests)
    upstream.gate.clear()
    lost = [asyncio.create_task(take(server, "go on", door, door, key="k")) for door in DOORS]
    await reached(upstream, before + len(DOORS), *lost)
    await process.kill9(*lost)
    upstream.gate.set()
    server = (process := await start()).server
    for door in DOORS:
        first, second = [await take(server, "go on", door, door, key="k") for _ in range(2)]
        assert same(first, second)
        assert first.text == answer("go on")
        await take(server, "and on", door, door)
        assert asked(upstream)[-1] == [*dialogue("hello", "go on"), user("and on")]
    assert len(upstream.requests) == before + 3 * len(DOORS)
    assert await process.terminate() == 0


# Run events cannot be replayed or watched twice; runs ignore the session header.


async def test_run_events_are_watched_by_many_and_replayed_from_anywhere(data: Path, upstream: Upstream) -> None:
    """#118138: one consumer emptied the only queue, the next one got 404."""
    upstream.script = lambda _: says("one two three four")
    upstream.stream_gate_after = 3
    upstream.gate.clear()
    async with serving(data, upstream=upstream.url) as server:
        async with server.http.post("/v1/runs", json={"input": "hello"}) as response:
            assert response.status == 202
            run_id = (await response.json())["run_id"]
        during = [asyncio.create_task(run_frames(server, run_id)) for _ in range(3)]
        await upstream.wait_for_pieces(3)
        upstream.gate.set()
        watched = [*await asyncio.gather(*during), await run_frames(server, run_id)]
        assert all(frames == watched[0] for frames in watched)
        whole = watched[0]
        assert "".join(frame["delta"] for frame in whole if frame["event"] == "message.delta") == "one two three four"
        assert whole[-1]["event"] == "run.completed"
        for number, frame in enumerate(whole):
            assert await run_frames(server, run_id, frame["id"]) == whole[number + 1 :]
    async with serving(data, upstream=upstream.url) as server:
        assert await run_frames(server, run_id) == whole
        assert await run_frames(server, run_id, whole[1]["id"]) == whole[2:]
    assert len(upstream.requests) == 1


async def test_a_watcher_that_comes_back_during_the_run_misses_nothing(server: Server, upstream: Upstream) -> None:
    """#118138: what was told while nobody watched was lost."""
    upstream.script = lambda _: says("one two three four")
    upstream.stream_gate_after = 3
    upstream.gate.clear()
    async with server.http.post("/v1/runs", json={"input": "hello"}) as response:
        run_id = (await response.json())["run_id"]
    async with server.http.get(f"/v1/runs/{run_id}/events") as response:
        first = await anext(sse(response))
    upstream.gate.set()
    rest = await run_frames(server, run_id, first["id"])
    assert [first, *rest] == await run_frames(server, run_id)


@pytest.mark.parametrize("named", ["header", "body", "slug"])
async def test_a_run_goes_on_in_the_session_it_names(server: Server, upstream: Upstream, named: str) -> None:
    """#84406: runs ignored the session header; each was a session of its own."""
    upstream.script = answering
    await take(server, "one", "responses", "boat", conversation="trip")
    body = {"header": {}, "body": {"session_id": "boat"}, "slug": {"conversation": "trip"}}[named]
    turn = await take(server, "two", "run", "boat" if named == "header" else None, **body)
    assert turn.session_id == "boat"
    assert (await server.get(f"/v1/runs/{turn.id}"))["session_id"] == "boat"
    assert asked(upstream)[-1] == [*dialogue("one"), user("two")]
    await take(server, "three", "chat", "boat")
    assert asked(upstream)[-1] == [*dialogue("one", "two"), user("three")]


# A disconnect kills the turn; kill -9 keeps the user's row, loses the answer, leaves no marker.


async def test_a_run_outlives_everybody_who_watches_it(server: Server, upstream: Upstream) -> None:
    """#85016: the phone locks, the stream drops, and the work of minutes was interrupted with it."""
    upstream.script = lambda _: says("one two three four")
    upstream.stream_gate_after = 3
    upstream.gate.clear()
    async with opened(server, "hello", "run", "boat") as response:
        run_id = (await response.json())["run_id"]
    async with server.http.get(f"/v1/runs/{run_id}/events") as response:
        await anext(sse(response))
    upstream.gate.set()
    assert (await run_frames(server, run_id))[-1]["output"] == "one two three four"
    assert [message["content"] for message in await said(server, "boat")] == ["hello", "one two three four"]


@pytest.mark.parametrize("door", ["chat stream", "responses stream", "session chat stream"])
async def test_a_dropped_stream_is_marked_and_its_retry_doubles_nothing(
    server: Server, upstream: Upstream, door: str
) -> None:
    """#85016: a drop was told as the user's own interruption. Here it is marked, and what there was is shown."""
    upstream.script = answering
    await begin(server, door)
    upstream.script = lambda _: says("one two three four")
    upstream.stream_gate_after = 3
    upstream.gate.clear()
    async with opened(server, "go on", door, "boat") as response:
        async for line in response.content:
            if b" two" in line:
                break
    upstream.script = answering
    upstream.stream_gate_after = None
    upstream.gate.set()
    turn = await take(server, "go on", door, "boat")
    assert (turn.text, turn.session_id) == (answer("go on"), "boat")
    assert asked(upstream)[-1] == [*dialogue("hello"), user("go on")]
    shown = [(m["role"], m["content"], m["status"]) for m in await server.messages("boat")]
    assert shown[2:-2] == [("user", "go on", "cancelled"), ("assistant", "one two", "cancelled")]
    assert [status for _, _, status in shown[-2:]] == ["completed"] * 2


async def test_a_kill_keeps_every_answer_and_marks_the_questions_that_have_none(
    data: Path, upstream: Upstream, start: Start
) -> None:
    """#45110: the user's row without its answer and without a marker. #92079: the whole transcript was gone."""
    upstream.script = answering
    server = (process := await start()).server
    texts = ["one", "two", "three"]
    for door in DOORS:
        await begin(server, door, door, texts[0])
        for text in texts[1:]:
            await take(server, text, door, door)
    before = len(upstream.requests)
    upstream.gate.clear()
    lost = [asyncio.create_task(take(server, "lost", door, door)) for door in DOORS]
    await reached(upstream, before + len(DOORS), *lost)
    await process.kill9(*lost)
    upstream.gate.set()
    server = (process := await start("--runs-after-crash", "cancel")).server
    for door in DOORS:
        messages = await server.messages(door)
        assert plain(messages) == [*dialogue(*texts), user("lost")]
        assert [message["status"] for message in messages] == ["completed"] * 6 + ["cancelled"]
        await take(server, "four", door, door)
        assert asked(upstream)[-1] == [*dialogue(*texts), user("four")]
    assert await process.terminate() == 0
    await turnlog("replay", "--data", str(data), "--verify")


async def test_a_run_that_was_open_at_a_kill_is_done_after_the_start(upstream: Upstream, start: Start) -> None:
    """#45110, #92079, #64947: the run was gone, and nobody knew."""
    upstream.script = answering
    process = await start()
    upstream.gate.clear()
    async with opened(process.server, "hello", "run", "boat") as response:
        run_id = (await response.json())["run_id"]
    await upstream.wait_for_requests(1)
    await process.kill9()
    upstream.gate.set()
    process = await start()
    assert (await run_frames(process.server, run_id))[-1]["output"] == answer("hello")
    assert await said(process.server, "boat") == dialogue("hello")
    assert asked(upstream) == [[user("hello")]] * 2
    assert await process.terminate() == 0


# Deleting leaves data behind; unbounded growth; corruption.


@pytest.mark.parametrize("later", ["at once", "after a restart", "after the views are rebuilt"])
async def test_nothing_of_a_deleted_session_comes_back(data: Path, upstream: Upstream, later: str) -> None:
    """#55088: responses, search and memory went on knowing what had been deleted."""
    upstream.script = answering
    ada = {"X-Hermes-Session-Key": "ada"}
    async with serving(data, upstream=upstream.url) as server:
        server.http.headers.update(ada)
        response = await take(server, "we sail to Zanzibar", "responses", "boat", conversation="trip", key="k")
        run = await take(server, "and then on to Madagascar", "run", "boat")
        assert await found(server, "Zanzibar")
        await delete(server, "/api/sessions/boat")
        if later == "at once":
            await check_forgotten(server, upstream, response, run)
            return
    if later == "after the views are rebuilt":
        for path in data.glob("views.db*"):
            path.unlink()
    async with serving(data, upstream=upstream.url) as server:
        server.http.headers.update(ada)
        await check_forgotten(server, upstream, response, run)


async def check_forgotten(server: Server, upstream: Upstream, response: Turn, run: Turn) -> None:
    """The deleted session can not be reached by any of its names, nor by its words."""
    for path in ("/api/sessions/boat", "/api/sessions/boat/messages", "/api/sessions/boat/lineage"):
        await server.get(path, 404)
    await delete(server, "/api/sessions/boat", 404)
    await server.get(f"/v1/responses/{response.id}", 404)
    await server.get(f"/v1/runs/{run.id}", 404)
    await server.get(f"/v1/runs/{run.id}/events", 404)
    assert await listed(server, "&include_children=true") == []
    assert await found(server, "Zanzibar") == await found(server, "Madagascar") == []
    await refused(server, "x", "responses", status=404, previous_response_id=response.id)
    before = len(upstream.requests)
    recalled = await take(server, "what about Zanzibar and Madagascar?", "chat")
    del server.http.headers["X-Hermes-Session-Key"]
    by_slug = await take(server, "by slug", "responses", conversation="trip")
    history = [user("we sail to Zanzibar"), {"role": "assistant", "content": response.text}]
    by_history = await take(server, "", "chat", messages=[*history, user("by history")])
    assert upstream.messages[before:] == [
        [user("what about Zanzibar and Madagascar?")],
        [user("by slug")],
        [*history, user("by history")],
    ]
    assert len({turn.session_id for turn in (recalled, by_slug, by_history)}) == 3


async def test_a_slug_of_a_deleted_session_does_not_lead_to_whoever_takes_its_id(
    server: Server, upstream: Upstream
) -> None:
    """#55088: what led to the session is of the session."""
    upstream.script = answering
    await take(server, "one", "responses", "boat", conversation="trip")
    await delete(server, "/api/sessions/boat")
    await take(server, "by id", "chat", "boat")
    assert asked(upstream)[-1] == [user("by id")]
    by_slug = await take(server, "by slug", "responses", conversation="trip")
    assert asked(upstream)[-1] == [user("by slug")]
    assert by_slug.session_id != "boat"


async def test_the_key_of_a_deleted_sessions_turn_gives_nothing_of_it_back(server: Server, upstream: Upstream) -> None:
    """#55088: a remembered answer is data too."""
    upstream.script = answering
    first = await take(server, "a secret", "chat", "boat", key="k")
    await delete(server, "/api/sessions/boat")
    second = await take(server, "a secret", "chat", "boat", key="k")
    assert second.id != first.id
    assert asked(upstream)[-1] == [user("a secret")]
    assert await said(server, "boat") == dialogue("a secret")


async def test_no_row_of_a_view_is_about_a_deleted_session(data: Path, upstream: Upstream) -> None:
    """#55088: rows that nothing led to any more, with all that was said, were most of the original's database."""
    upstream.script = answering
    async with serving(data, upstream=upstream.url) as server:
        server.http.headers["X-Hermes-Session-Key"] = "ada"
        for text in ("we sail", "to Zanzibar"):
            await take(server, text, "responses", "boat", conversation="trip", key=text.replace(" ", "-"))
        await take(server, "something else", "chat", "raft")
        assert await found(server, "Zanzibar")
        await delete(server, "/api/sessions/boat")
        assert await found(server, "Zanzibar") == []
    with sqlite3.connect(data / "views.db") as database:
        # What the index of words has marked as deleted goes with its next merge: of words, in no order, and unfindable.
        named = """SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'
            AND name <> 'passages_fts_data'"""
        tables = [name for (name,) in database.execute(named)]
        rows = {table: database.execute(f'SELECT * FROM "{table}"').fetchall() for table in tables}
    database.close()
    words = ("boat", "trip", "zanzibar")
    assert [table for table in tables if any(word in str(row).lower() for row in rows[table] for word in words)] == []


async def test_a_lineage_is_deleted_whole_by_any_of_its_ids_and_its_forks_stay(data: Path, upstream: Upstream) -> None:
    """#55088: the generations before a compression stayed behind."""
    upstream.script = answering
    async with serving(data, upstream=upstream.url, compression=COMPRESSION) as server:
        ids = dict.fromkeys([(await take(server, question(n), "chat", "boat")).session_id for n in range(24)])
        assert len(ids) >= 3
        forked = (await fork(server, "boat", id="raft"))["id"]
        inherited = await said(server, forked)
        await delete(server, f"/api/sessions/{list(ids)[1]}")
        for session_id in ids:
            await server.get(f"/api/sessions/{session_id}", 404)
            await server.get(f"/api/sessions/{session_id}/messages", 404)
        assert [row["id"] for row in await listed(server, "&include_children=true")] == [forked]
        assert await said(server, forked) == inherited
        await take(server, "anew", "chat", "boat")
        assert asked(upstream)[-1] == [user("anew")]
    for path in data.glob("views.db*"):
        path.unlink()
    async with serving(data, upstream=upstream.url, compression=COMPRESSION) as server:
        assert await said(server, forked) == inherited
        await take(server, "still here", "chat", forked)
        assert len(asked(upstream)[-1]) > 1
        assert await said(server, forked) == [*inherited, *dialogue("still here")]
        assert await said(server, "boat") == dialogue("anew")


async def test_deleting_a_session_at_work_stops_its_turn_and_leaves_nothing(server: Server, upstream: Upstream) -> None:
    """#55088: a turn that ended behind the deletion brought the session back."""
    upstream.script = answering
    await take(server, "one", "chat", "boat")
    upstream.gate.clear()
    lost = asyncio.create_task(take(server, "two", "chat", "boat"))
    await reached(upstream, 2, lost)
    await delete(server, "/api/sessions/boat")
    upstream.gate.set()
    await asyncio.gather(lost, return_exceptions=True)
    await server.get("/api/sessions/boat", 404)
    await take(server, "three", "chat", "boat")
    assert asked(upstream)[-1] == [user("three")]


async def test_what_is_stored_of_responses_is_bounded_by_what_was_asked_for(data: Path, upstream: Upstream) -> None:
    """#54189: the store of responses grew with everything ever said in each."""
    upstream.script = answering
    async with serving(data, upstream=upstream.url, responses_max=5) as server:
        turns = [await take(server, question(n), "responses", conversation=f"c{n % 3}") for n in range(30)]
        status = []
        for turn in turns:
            async with server.http.get(f"/v1/responses/{turn.id}") as response:
                status.append(response.status)
        assert status == [404] * 25 + [200] * 5
        for number in range(3):
            expected = dialogue(*questions(range(30))[number::3])
            assert await said(server, turns[number].session_id) == expected
            await take(server, "more", "responses", conversation=f"c{number}")
            assert asked(upstream)[-1] == [*expected, user("more")]


async def test_views_that_are_rubbish_are_made_again_from_the_log(data: Path, upstream: Upstream) -> None:
    """#90837, #100896: a malformed index took the transcripts with it, or was written on top of."""
    upstream.script = answering
    async with serving(data, upstream=upstream.url) as server:
        turn = await take(server, "we sail to Zanzibar", "responses", "boat", conversation="trip")
    for path in data.glob("views.db-*"):
        path.unlink()
    content = bytearray((data / "views.db").read_bytes())
    content[4_096:] = random.Random(7).randbytes(len(content) - 4_096)  # noqa: S311 (a test that can be repeated)
    (data / "views.db").write_bytes(content)
    async with serving(data, upstream=upstream.url) as server:
        assert await said(server, "boat") == dialogue("we sail to Zanzibar")
        assert len(await found(server, "Zanzibar")) == 1
        await server.get(f"/v1/responses/{turn.id}")
        await take(server, "two", "responses", conversation="trip")
        assert asked(upstream)[-1] == [*dialogue("we sail to Zanzibar"), user("two")]


async def test_a_log_that_was_altered_is_not_served(data: Path, upstream: Upstream, start: Start) -> None:
    """#90837, #100896: a damaged store was served and written to for hours."""
    upstream.script = answering
    async with serving(data, upstream=upstream.url) as server:
        await take(server, "we sail to Zanzibar", "chat", "boat")
    content = (data / "log.db").read_bytes()
    (data / "log.db").write_bytes(content.replace(b"we sail to Zanzibar", b"we sail to Mombasa!"))
    with pytest.raises(RuntimeError, match="the log is damaged at position"):
        await start()
    assert len(upstream.requests) == 1


async def test_kills_in_the_midst_of_parallel_turns_corrupt_nothing(
    data: Path, upstream: Upstream, start: Start
) -> None:
    """#90837, #100896: a process that was killed while it wrote left a malformed database."""
    upstream.script = answering
    answered: dict[str, list[str]] = {}

    async def talk(server: Server, session_id: str, first: int) -> None:
        for number in itertools.count(first):
            await take(server, question(number), "chat", session_id)
            answered.setdefault(session_id, []).append(question(number))

    for _ in range(3):
        process = await start()
        before = len(upstream.requests)
        sessions = [f"s{number}" for number in range(6)]
        talks = [asyncio.create_task(talk(process.server, s, 1_000 * len(answered.get(s, ())))) for s in sessions]
        await reached(upstream, before + 100, *talks)
        await process.kill9(*talks)
    await turnlog("replay", "--data", str(data), "--verify")
    for path in data.glob("*.db"):
        with sqlite3.connect(path) as database:
            assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        database.close()
    process = await start()
    with pytest.raises(RuntimeError, match="exit"):
        await start()
    for session_id, texts in answered.items():
        messages = await process.server.messages(session_id)
        whole = plain([message for message in messages if message["status"] == "completed"])
        # What was answered is there. An answer may have been recorded that its client did not live to see.
        kept = iter(users(whole))
        assert all(text in kept for text in texts)
        await take(process.server, "next", "chat", session_id)
        assert asked(upstream)[-1] == [*whole, user("next")]
    assert await process.terminate() == 0
