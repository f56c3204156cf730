"""GET /api/events as a stream: the past, then what comes, without a gap or a double, whatever breaks in between."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest

from api import keys
from api.context import FEED
from api.turns import feed
from eventstore.events import SessionRenamed
from eventstore.log import Part
from tests.support.api import call, record
from tests.support.feed import Sent, following, page, pages
from tests.support.server import Process, Server, serving
from tests.support.upstream import Upstream

WAIT_S = 30.0
TURNS = 10


def ids(events: list[Sent]) -> list[int]:
    return [int(event.id) for event in events]


async def test_the_past_is_told_and_then_what_comes(server: Server) -> None:
    await server.chat("one", "s1")
    async with asyncio.timeout(WAIT_S), following(server) as reader:
        sent = await reader.some(3)
        for said in ("two", "three"):
            await server.chat(said, "s1")
            sent += await reader.some(2)
    whole = await pages(server)
    assert [event.data for event in sent] == whole
    assert ids(sent) == list(range(1, 8))
    assert [event.name for event in sent] == [event["type"] for event in whole]


async def test_a_stream_goes_on_behind_the_last_event_that_was_seen(server: Server) -> None:
    for said in ("one", "two", "three"):
        await server.chat(said, "s1")
    for seen in range(7):
        async with asyncio.timeout(WAIT_S), following(server, "after=2&until=7", last=seen) as reader:
            assert ids(await reader.rest()) == list(range(seen + 1, 8))
    async with asyncio.timeout(WAIT_S), following(server, "until=7&after=2") as reader:
        assert ids(await reader.rest()) == list(range(3, 8))


async def test_a_stream_tells_only_what_was_asked_for(server: Server) -> None:
    await server.chat("one", "s1")
    wanted = "session=s1&type=TurnCompleted"
    async with asyncio.timeout(WAIT_S), following(server, wanted) as reader:
        sent = await reader.some(1)
        for said, session_id in (("two", "s2"), ("three", "s1"), ("four", "s2"), ("five", "s1")):
            await server.chat(said, session_id)
        sent += await reader.some(2)
    assert [event.data for event in sent] == await pages(server, wanted)
    assert len(sent) == 3


async def test_a_slice_that_is_not_all_there_yet_ends_once_it_is(server: Server) -> None:
    await server.chat("one", "s1")
    slices = ("until=5", "session=s1&until_version=5", "session=s1&until_version=5&type=SessionStarted", "until=0")
    async with asyncio.timeout(WAIT_S), contextlib.AsyncExitStack() as streams:
        readers = [await streams.enter_async_context(following(server, wanted)) for wanted in slices]
        assert [len(await reader.some(count)) for reader, count in zip(readers, (3, 3, 1, 0), strict=True)]
        await server.chat("two", "s1")
        await server.chat("three", "s1")
        assert [ids(await reader.rest()) for reader in readers] == [[4, 5], [4, 5], [], []]


async def test_a_stream_ends_cleanly_with_the_server_and_goes_on_with_the_next(
    start: Callable[..., Awaitable[Process]],
) -> None:
    process = await start("--grace-s", "0")
    await process.server.chat("one", "s1")
    async with asyncio.timeout(WAIT_S), following(process.server) as reader:
        sent = await reader.some(3)
        process.popen.terminate()
        assert await reader.rest() == []
    assert await process.terminate() == 0
    process = await start()
    await process.server.chat("two", "s1")
    async with asyncio.timeout(WAIT_S), following(process.server, "until=5", last=int(sent[-1].id)) as reader:
        assert ids(sent + await reader.rest()) == [1, 2, 3, 4, 5]


async def test_nothing_is_lost_or_doubled_by_a_crash(start: Callable[..., Awaitable[Process]]) -> None:
    seen: list[Sent] = []
    acknowledged = 0
    for _ in range(2):
        process = await start()
        talking = asyncio.create_task(_talk(process.server))
        with contextlib.suppress(aiohttp.ClientError):
            async with asyncio.timeout(WAIT_S), following(process.server, last=len(seen)) as reader:
                seen += await reader.some(20)
                acknowledged = (await page(process.server, "limit=1"))["head"]
                await process.kill9(talking)
                seen += await reader.rest()
    process = await start()
    async with asyncio.timeout(WAIT_S), following(process.server, f"until={acknowledged}", last=len(seen)) as reader:
        seen += await reader.rest()
    assert ids(seen) == list(range(1, len(seen) + 1))
    assert len(seen) >= acknowledged
    assert [event.data for event in seen] == (await pages(process.server))[: len(seen)]


async def _talk(server: Server) -> None:
    with contextlib.suppress(aiohttp.ClientError):
        for number in range(10_000):
            await server.chat(f"word {number}", f"s{number % 3}")


async def test_each_follower_of_many_is_told_its_own(data: Path, upstream: Upstream) -> None:
    data.mkdir()
    tenants = [{"authorization": f"Bearer {keys.add(data, name, name)}"} for name in ("ada", "bob")]
    async with asyncio.timeout(WAIT_S), serving(data, upstream=upstream.url) as server:
        async with contextlib.AsyncExitStack() as streams:
            readers = [
                await streams.enter_async_context(following(server, wanted, headers=headers))
                for headers in tenants
                for wanted in ("", "type=TurnStarted", "type=TurnQueued")
            ]
            for number in range(4):
                for headers in tenants:
                    body = {"model": "m", "messages": [{"role": "user", "content": str(number)}]}
                    async with server.http.post(
                        "/v1/chat/completions", json=body, headers=headers | {"X-Hermes-Session-Id": "s1"}
                    ) as answer:
                        assert answer.status == 200
            counts = [9, 4, 0] * 2
            sent = [await reader.some(count) for reader, count in zip(readers, counts, strict=True)]
        for headers, (everything, starts, _) in zip(tenants, (sent[:3], sent[3:]), strict=True):
            whole = await pages(server, headers=headers)
            assert [event.data for event in everything] == whole
            assert [event.data for event in starts] == [event for event in whole if event["type"] == "TurnStarted"]


async def test_a_silent_stream_is_kept_alive(data: Path) -> None:
    asked = {"accept": "text/event-stream"}
    async with serving(data, keepalive_s=0.01) as server, server.http.get("/api/events", headers=asked) as answer:
        assert await answer.content.readuntil(b"\n\n") == b": keepalive\n\n"


async def test_no_more_follow_than_may(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "FOLLOWERS_OF_TENANT_MAX", 2)
    async with asyncio.timeout(WAIT_S), following(server), following(server) as second:
        async with server.http.get("/api/events", headers={"accept": "text/event-stream"}) as third:
            assert third.status == 429
            assert third.headers["retry-after"] == "1"
            assert (await third.json())["error"]["code"] == "rate_limit_exceeded"
        await page(server)
        second.close()
        while True:  # until the server has seen that it is gone
            async with server.http.get("/api/events", headers={"accept": "text/event-stream"}) as third:
                if third.status == 200:
                    break


async def test_a_key_that_is_withdrawn_opens_nothing_any_more(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "LOOK_AGAIN_S", 0.0)
    data.mkdir()
    secret = keys.add(data, "ada", "default")
    async with asyncio.timeout(WAIT_S), serving(data) as server:
        await server.chat("one", "s1")
        async with following(server, headers={"authorization": f"Bearer {secret}"}) as reader:
            assert len(await reader.some(3)) == 3
            keys.revoke(data, "ada")
            await server.chat("two", "s1")
            (told,) = await reader.rest()
    assert (told.name, told.data["error"]["code"]) == ("error", "invalid_api_key")


async def test_followers_wait_without_a_task_that_nobody_needs(server: Server) -> None:
    assert server.app is not None
    followed = server.app[FEED]
    await server.chat("one", "s1")
    async with asyncio.timeout(WAIT_S):
        async with following(server, "until=5") as reader:
            await reader.some(3)
            await server.chat("two", "s1")
            await reader.rest()
        assert followed._looking is None
        async with following(server, "after=5") as reader:
            await server.chat("three", "s1")
            assert ids(await reader.some(2)) == [6, 7]


async def test_a_follower_ahead_of_the_log_waits_for_what_it_has_not_seen(server: Server) -> None:
    async with asyncio.timeout(WAIT_S), following(server, "after=4") as ahead, following(server) as level:
        await server.chat("one", "s1")
        await server.chat("two", "s1")
        assert ids(await ahead.some(1)) == [5]
        assert ids(await level.some(5)) == [1, 2, 3, 4, 5]


async def test_who_reads_slowly_is_not_told_what_was_erased_meanwhile(server: Server) -> None:
    assert server.app is not None
    followed = server.app[FEED]
    await server.chat("hello", "s1")
    renamed = [SessionRenamed(title=f"Zqneedle {number}") for number in range(2 * feed.BATCH_EVENTS)]
    async with asyncio.timeout(WAIT_S):
        with followed.following(Part(tenant="default", after_position=2)) as batches:
            assert len(await anext(batches)) == 1
            told = asyncio.create_task(anext(batches))
            await asyncio.sleep(0)  # now it waits for news
            await record(server, "s1", renamed)
            first = await told
            assert (len(first), b"Zqneedle" in first[-1]) == (feed.BATCH_EVENTS, True)
            await call(server, "DELETE", "/api/sessions/s1?erase=true", 200)
            rest = [frame async for batch in _until(batches, 205) for frame in batch]
    assert not any(b"Zqneedle" in frame for frame in rest)
    assert [frame.partition(b"\n")[0] for frame in rest] == [b"id: %d" % position for position in range(104, 206)]


async def _until(batches: AsyncIterator[list[bytes]], position: int) -> AsyncIterator[list[bytes]]:
    async for batch in batches:
        yield batch
        if batch[-1].startswith(b"id: %d\n" % position):
            return


async def test_followers_that_never_read_stop_nobody_and_are_kept_nothing_for(
    start: Callable[..., Awaitable[Process]],
) -> None:
    process = await start()
    server = process.server
    await server.chat("one", "s1")
    async with asyncio.timeout(WAIT_S), contextlib.AsyncExitStack() as streams:
        for _ in range(40):
            await streams.enter_async_context(_deaf(server))
        before = _memory_bytes(process)
        await asyncio.gather(*(_long_turns(server, f"d{number}") for number in range(10)))
        grown = _memory_bytes(process) - before
        whole = await page(server, "limit=1")
    assert whole["head"] == 1 + 10 + 2 * (1 + 10 * TURNS)
    assert grown < 100_000_000, grown  # of 40 times as much as was said, which is 320 MB


async def _long_turns(server: Server, session_id: str) -> None:
    for _ in range(TURNS):
        await server.chat("x" * 40_000, session_id)


@contextlib.asynccontextmanager
async def _deaf(server: Server) -> AsyncIterator[None]:
    host, _, port = server.url.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port), limit=1)
    writer.write(b"GET /api/events HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n")
    writer.write(b"authorization: Bearer test-key-0123456789\r\n\r\n")
    try:
        yield
    finally:
        writer.close()


def _memory_bytes(process: Process) -> int:
    resident = Path(f"/proc/{process.popen.pid}/statm").read_text().split()[1]
    return int(resident) * 4_096
