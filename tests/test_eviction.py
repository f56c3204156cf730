"""Responses that go, and everything else that stays: sessions, slugs and chains never notice."""

import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from freezegun import freeze_time

from api import keys
from api.context import EVICTION, LINEAGES
from api.turns import eviction as eviction_module
from api.turns.eviction import Eviction
from eventstore.events import CompressionRotated, ResponseEvicted
from eventstore.log import LogUnavailable, Recorded
from eventstore.sqlite import SqliteLog
from projections.rebuild import rebuild
from projections.runner import VIEWS_FILE
from projections.snapshot import Snapshot
from projections.views import VIEWS
from tests.support.facts import assistant
from tests.support.server import Server, serving
from tests.support.upstream import Upstream, refuses, says

DAY_S = 86_400.0
SESSION = "X-Hermes-Session-Id"


async def respond(server: Server, text: str, headers: dict[str, str] | None = None, **more: Any) -> str:
    """A response's id."""
    body = {"model": "m", "input": text} | more
    async with server.http.post("/v1/responses", json=body, headers=headers or {}) as response:
        assert response.status == 200, await response.text()
        return str((await response.json())["id"])


async def is_there(server: Server, response_id: str) -> bool:
    """Whether the response can be read."""
    async with server.http.get(f"/v1/responses/{response_id}") as response:
        assert response.status in (200, 404)
        return response.status == 200


async def check_gone(server: Server, response_id: str) -> None:
    """Neither read, nor deleted, nor continued from."""
    for method in ("get", "delete"):
        async with server.http.request(method, f"/v1/responses/{response_id}") as response:
            assert response.status == 404
            assert (await response.json())["error"]["code"] == "response_not_found"
    body = {"model": "m", "input": "more", "previous_response_id": response_id}
    for more in ({}, {"store": False}, {"stream": True}):
        async with server.http.post("/v1/responses", json=body | more) as response:
            assert response.status == 404
            error = (await response.json())["error"]
            assert (error["code"], error["param"]) == ("previous_response_not_found", "previous_response_id")


async def evictions(data: Path) -> list[tuple[str, str]]:
    """The evicted responses in the order of the log, and why each went."""
    log = await SqliteLog.open_read_only(data)
    try:
        facts = [entry.event async for batch in log.read_all() for entry in batch]
    finally:
        await log.close()
    return [(f"resp_{fact.turn_id}", fact.reason) for fact in facts if isinstance(fact, ResponseEvicted)]


def eviction_of(server: Server) -> Eviction:
    assert server.app is not None
    return server.app[EVICTION]


async def sweep(server: Server) -> None:
    await eviction_of(server).sweep(time.time_ns() // 1_000)


@contextlib.asynccontextmanager
async def limited(data: Path, upstream: Upstream, responses_max: int) -> AsyncIterator[Server]:
    async with serving(data, upstream=upstream.url, responses_max=responses_max) as server:
        yield server


# By number


async def test_the_least_recently_used_goes_as_one_too_many_is_made(data: Path, upstream: Upstream) -> None:
    async with limited(data, upstream, 3) as server:
        ids = [await respond(server, f"{n}") for n in range(5)]
        assert await evictions(data) == [(ids[0], "lru"), (ids[1], "lru")]
        for gone in ids[:2]:
            await check_gone(server, gone)
        assert [await is_there(server, response_id) for response_id in ids[2:]] == [True] * 3


async def test_a_chain_goes_on_behind_its_evicted_beginning(data: Path, upstream: Upstream) -> None:
    async with limited(data, upstream, 2) as server:
        ids = [await respond(server, "0", {SESSION: "s1"})]
        for n in range(1, 10):
            ids.append(await respond(server, f"{n}", previous_response_id=ids[-1]))
        assert [len(messages) for messages in upstream.messages] == list(range(1, 20, 2))
        assert len(await server.messages("s1")) == 20
        assert [gone for gone, _ in await evictions(data)] == ids[:8]
        await respond(server, "by header", {SESSION: "s1"})
        assert len(upstream.messages[-1]) == 21


async def test_reading_one_and_going_on_from_one_are_uses(data: Path, upstream: Upstream) -> None:
    async with limited(data, upstream, 3) as server:
        ids = [await respond(server, f"{n}") for n in range(3)]
        assert await is_there(server, ids[0])
        ids.append(await respond(server, "from 1", previous_response_id=ids[1]))
        assert await evictions(data) == [(ids[2], "lru")]
        ids.append(await respond(server, "another"))
        assert await evictions(data) == [(ids[2], "lru"), (ids[0], "lru")]


async def test_after_a_restart_what_was_continued_from_is_still_the_more_recently_used(
    data: Path, upstream: Upstream
) -> None:
    async with limited(data, upstream, 3) as server:
        ids = [await respond(server, f"{n}") for n in range(2)]
        ids.append(await respond(server, "from 0", previous_response_id=ids[0]))
    async with limited(data, upstream, 3) as server:
        await respond(server, "one more")
        assert await evictions(data) == [(ids[1], "lru")]


async def test_a_deleted_response_does_not_count(data: Path, upstream: Upstream) -> None:
    async with limited(data, upstream, 2) as server:
        ids = [await respond(server, f"{n}") for n in range(2)]
        await server.openai.responses.delete(ids[1])
        await respond(server, "2")
        assert await evictions(data) == [(ids[1], "deleted")]
        assert await is_there(server, ids[0])


async def test_the_responses_of_a_deleted_session_do_not_count(data: Path, upstream: Upstream) -> None:
    async with limited(data, upstream, 2) as server:
        ids = [await respond(server, f"{n}", {SESSION: f"s{n}"}) for n in range(2)]
        async with server.http.delete("/api/sessions/s1") as response:
            assert response.status == 200
        await respond(server, "2")
        assert await is_there(server, ids[0])


async def test_failed_responses_count_too(data: Path, upstream: Upstream) -> None:
    async with limited(data, upstream, 2) as server:
        ids = [await respond(server, f"{n}") for n in range(2)]
        upstream.script = lambda _: refuses(500)
        async with server.http.post("/v1/responses", json={"model": "m", "input": "fails"}) as response:
            assert response.status == 502
        assert await evictions(data) == [(ids[0], "lru")]


async def test_tenants_do_not_push_each_others_responses_out(data: Path, upstream: Upstream) -> None:
    data.mkdir()
    other = keys.add(data, "bob", "bob")
    async with limited(data, upstream, 1) as server:
        mine = await respond(server, "mine")
        theirs = [await respond(server, f"{n}", {"authorization": f"Bearer {other}"}) for n in range(2)]
        assert await is_there(server, mine)
        assert await evictions(data) == [(theirs[0], "lru")]


async def test_chat_turns_are_not_stored_responses(data: Path, upstream: Upstream) -> None:
    async with limited(data, upstream, 1) as server:
        kept = await respond(server, "kept")
        for n in range(3):
            await server.chat(f"{n}", "s1")
        assert await is_there(server, kept)


async def test_one_in_progress_is_never_evicted(data: Path, upstream: Upstream) -> None:
    async with limited(data, upstream, 1) as server:
        upstream.stream_gate_after = 1
        upstream.gate.clear()
        body = {"model": "m", "input": "slow", "stream": True}
        async with server.http.post("/v1/responses", json=body, headers={SESSION: "slow"}) as slow:
            await upstream.wait_for_pieces(1)
            ids = [await respond(server, f"{n}") for n in range(3)]
            await eviction_of(server)._evict_others("default")
            assert [gone for gone, _ in await evictions(data)] == ids[:2]
            upstream.gate.set()
            assert b"response.completed" in await slow.read()
        # It ended last: now the others are too many.
        assert [gone for gone, _ in await evictions(data)] == ids
        assert len(await server.messages("slow")) == 2


async def test_a_limit_lowered_at_a_restart_counts_at_once_and_is_swept(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        ids = [await respond(server, f"{n}") for n in range(9)]
        assert await evictions(data) == []
    async with limited(data, upstream, 2) as server:
        for gone in ids[5:7]:
            await check_gone(server, gone)
        await sweep(server)
        assert sorted(await evictions(data)) == [(gone, "lru") for gone in ids[:7]]
        assert [await is_there(server, kept) for kept in ids[7:]] == [True, True]


async def test_many_are_swept_in_batches(data: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eviction_module, "BATCH_ROWS", 2)
    async with serving(data, upstream=upstream.url) as server:
        ids = [await respond(server, f"{n}", {SESSION: f"s{n % 2}"}) for n in range(9)]
    async with limited(data, upstream, 1) as server:
        await sweep(server)
        assert sorted(await evictions(data)) == [(gone, "lru") for gone in ids[:8]]


async def test_an_eviction_that_can_not_be_recorded_fails_no_turn_and_is_made_up_for(
    data: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with limited(data, upstream, 1) as server:
        first = await respond(server, "first", {SESSION: "s1"})
        assert server.app is not None
        log = server.app[LINEAGES]._log
        append, broken = log.append, True

        async def full_disk(stream: str, expected_version: int, events: Sequence[Any]) -> tuple[Recorded, ...]:
            if broken and isinstance(events[0], ResponseEvicted):
                raise LogUnavailable("no space left")
            return await append(stream, expected_version, events)

        monkeypatch.setattr(log, "append", full_disk)
        second = await respond(server, "second", {SESSION: "s2"})
        await check_gone(server, first)
        assert await evictions(data) == []
        with pytest.raises(LogUnavailable):
            await sweep(server)
        broken = False
        await sweep(server)
        assert await evictions(data) == [(first, "lru")]
        assert await is_there(server, second)


async def test_a_response_behind_a_rotation_is_evicted_and_deleted_like_any_other(
    data: Path, upstream: Upstream
) -> None:
    async with serving(data, upstream=upstream.url) as server:
        ids = [await respond(server, f"{n}", {SESSION: "s1"}) for n in range(3)]
    rotated = CompressionRotated(
        old_session_id="s1",
        session_id="s1-2",
        summary=assistant("so far"),
        head=0,
        tail=0,
        trigger="manual",
        tokens_before=10,
        tokens_after=5,
        summariser="deterministic",
    )
    log = await SqliteLog.open(data)
    await log.append("lineage/default/s1", len(await log.read("lineage/default/s1")), (rotated,))
    await log.close()
    async with limited(data, upstream, 3) as server:
        await respond(server, "3", {SESSION: "s1"})
        await server.openai.responses.delete(ids[1])
        assert await evictions(data) == [(ids[0], "lru"), (ids[1], "deleted")]
        await check_gone(server, ids[0])
        await check_gone(server, ids[1])
        assert await is_there(server, ids[2])


# By age


async def test_a_response_past_its_age_is_gone_before_anybody_sweeps(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url, response_ttl_s=DAY_S) as server:
        with freeze_time("2026-12-01T12:00:00", real_asyncio=True):
            old = [await respond(server, f"{n}", {SESSION: f"s{n}"}) for n in range(2)]
            slug = await respond(server, "in a slug", conversation="slug")
        with freeze_time("2026-12-02T11:59:59", real_asyncio=True):
            assert await is_there(server, old[0])
            newer = await respond(server, "more", previous_response_id=old[0])
        with freeze_time("2026-12-02T12:00:00", real_asyncio=True):
            for gone in (*old, slug):
                await check_gone(server, gone)
            assert await evictions(data) == [(gone, "expired") for gone in (*old, slug)]
            await respond(server, "and more", previous_response_id=newer)
            assert len(upstream.messages[-1]) == 5
            await respond(server, "by its slug", conversation="slug")
            assert [message["content"] for message in upstream.messages[-1]][::2] == ["in a slug", "by its slug"]


async def test_the_sweep_evicts_what_nobody_asks_for(
    data: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eviction_module, "BATCH_ROWS", 2)
    async with serving(data, upstream=upstream.url) as server:  # 30 days, unless told otherwise
        with freeze_time("2026-12-01T12:00:00", real_asyncio=True):
            old = [await respond(server, f"{n}", {SESSION: f"s{n % 2}"}) for n in range(5)]
        with freeze_time("2026-12-15T12:00:00", real_asyncio=True):
            young = await respond(server, "young")
        with freeze_time("2026-12-31T11:59:59", real_asyncio=True):
            await sweep(server)
            assert await evictions(data) == []
        with freeze_time("2026-12-31T12:00:01", real_asyncio=True):
            await sweep(server)
            await sweep(server)
            assert sorted(await evictions(data)) == sorted((gone, "expired") for gone in old)
            assert await is_there(server, young)
            assert not await is_there(server, old[0])


async def test_a_server_sweeps_as_it_starts(data: Path, upstream: Upstream) -> None:
    with freeze_time("2026-12-01T12:00:00", real_asyncio=True):
        async with serving(data, upstream=upstream.url) as server:
            old = await respond(server, "old")
    with freeze_time("2027-01-01T12:00:00", real_asyncio=True):
        async with serving(data, upstream=upstream.url) as server:
            assert server.app is not None
            async for batch in server.app[LINEAGES]._log.follow():
                if any(entry.event == ResponseEvicted(turn_id=old[5:], reason="expired") for entry in batch):
                    break


async def test_without_limits_nothing_goes_and_nothing_is_kept_in_memory(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url, response_ttl_s=0) as server:
        with freeze_time("1999-12-01T12:00:00", real_asyncio=True):
            ids = [await respond(server, f"{n}") for n in range(3)]
        await sweep(server)
        assert [await is_there(server, response_id) for response_id in ids] == [True] * 3
        assert not eviction_of(server)._tenants
        assert await evictions(data) == []


# What the system before it lost (#16517)


@pytest.mark.parametrize("responses_max", [0, 100])
async def test_a_slug_continues_its_session_after_104_other_responses_and_a_restart(
    data: Path, upstream: Upstream, responses_max: int
) -> None:
    upstream.script = lambda body: says(f"re: {body['messages'][-1]['content']}")
    asked = ["my name is Ada", "what is my name?", "and now?", "and after a restart?"]
    history = [text for question in asked for text in (question, f"re: {question}")]
    async with limited(data, upstream, responses_max) as server:
        first = await respond(server, asked[0], conversation="slug")
        await respond(server, asked[1], conversation="slug")
        for n in range(104):
            await respond(server, f"other {n}")
        await respond(server, asked[2], conversation="slug")
        assert [message["content"] for message in upstream.messages[-1]] == history[:5]
        assert await is_there(server, first) is (responses_max == 0)
    async with limited(data, upstream, responses_max) as server:
        answer = await server.openai.responses.with_raw_response.create(
            model="m", input=asked[3], extra_body={"conversation": "slug"}
        )
        assert [message["content"] for message in upstream.messages[-1]] == history[:7]
        said = await server.messages(answer.headers[SESSION])
        assert [message["content"] for message in said] == history
        assert await is_there(server, first) is (responses_max == 0)
    await check_replay(data)


async def check_replay(data: Path) -> None:
    """Replayed views are those that were followed live."""
    log = await SqliteLog.open_read_only(data)
    (await rebuild(log, data / "rebuilt.db", VIEWS)).close()
    await log.close()
    rows = []
    for name in ("rebuilt.db", VIEWS_FILE):
        snapshot = Snapshot(data / name, VIEWS)
        rows.append(list(snapshot.rows()))
        snapshot.close()
    assert rows[0] == rows[1]
