"""Responses in the background and the end of their process: started again once, or failed with a clear error."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import openai
import pytest

from eventstore.events import TurnCancelled, TurnDequeued, TurnQueued, TurnRestarted, TurnStarted
from tests.support.background import (
    DONE,
    PIECES,
    S1,
    TEXT,
    ask,
    asking,
    behind,
    ended,
    following,
    frames,
    hold,
    kinds,
    numbers,
    parsed,
    said,
    some,
)
from tests.support.server import Process, Server, serving
from tests.support.upstream import Upstream
from tests.test_crash import recorded, verify

WAIT_S = 30.0
ATTEMPT = 1_000_000
Start = Callable[..., Awaitable[Process]]


async def half_a_response(server: Server, upstream: Upstream) -> tuple[str, bytes]:
    """A response of session s1, of whose answer two words have come; and its stream so far."""
    hold(upstream)
    async with asyncio.timeout(WAIT_S), asking(server, headers=S1) as response:
        begun = await some(response, 7)
    assert said(parsed(begun)) == ["one", " two"]
    return parsed(begun)[0]["response"]["id"], begun


async def test_a_response_that_was_killed_is_started_again(data: Path, upstream: Upstream, start: Start) -> None:
    process = await start()
    response_id, first = await half_a_response(process.server, upstream)
    await process.kill9()

    hold(upstream)
    process = await start()
    server = process.server
    assert (await server.get(f"/v1/responses/{response_id}"))["status"] == "in_progress"
    async with asyncio.timeout(WAIT_S), following(server, response_id) as response:
        begun = await some(response, 8)
        upstream.gate.set()
        live = begun + await response.read()
    happened = parsed(live)
    # What both attempts have in common is the same; what the second one says is numbered apart.
    assert live.startswith(behind(first, -1).partition(b"event: response.output_item.added")[0])
    assert numbers(happened) == [0, 1, 2, *(ATTEMPT + number for number in range(11))]
    assert kinds(happened)[:5] == ["created", "queued", "in_progress", "in_progress", "output_item.added"]
    assert happened[3]["response"]["output"] == []
    assert said(happened) == PIECES
    assert kinds(happened)[-1] == "completed"
    for seen in numbers(parsed(first))[2:]:  # what was read of the first attempt no longer holds
        assert await frames(server, response_id, seen) == behind(live, ATTEMPT - 1)
    assert await frames(server, response_id, ATTEMPT + 4) == behind(live, ATTEMPT + 4)

    done = await ended(server, response_id)
    assert (done.status, done.output_text, done.background) == ("completed", TEXT, True)
    async with server.openai.responses.stream(response_id=response_id) as stream:
        assert (await stream.get_final_response()).output_text == TEXT
    assert upstream.requests[0] == upstream.requests[1]
    assert await process.terminate() == 0
    assert await count(data, TurnRestarted) == 1
    assert await count(data, TurnStarted) == 1
    assert not await count(data, TurnCancelled)
    await verify(data)
    async with serving(data, upstream=upstream.url) as later:
        assert await frames(later, response_id) == live


async def test_a_response_that_is_killed_twice_has_failed(data: Path, upstream: Upstream, start: Start) -> None:
    process = await start()
    response_id, _ = await half_a_response(process.server, upstream)
    await process.kill9()
    hold(upstream)
    process = await start()
    async with asyncio.timeout(WAIT_S), following(process.server, response_id) as response:
        seen = numbers(parsed(await some(response, 8)))
    await process.kill9()
    upstream.gate.set()
    process = await start()
    await has_failed(process.server, response_id)
    happened = parsed(await frames(process.server, response_id))
    assert numbers(happened) == [0, 1, 2, ATTEMPT, 2 * ATTEMPT]
    assert kinds(happened)[-1] == "failed"
    assert numbers(parsed(await frames(process.server, response_id, seen[-1]))) == [2 * ATTEMPT]
    await ended(process.server, (await ask(process.server, "again", extra_headers=S1)).id)
    assert upstream.messages[-1] == [{"role": "user", "content": "again"}]
    assert len(upstream.requests) == 3
    assert await process.terminate() == 0
    await verify(data)


async def test_a_response_that_was_killed_has_failed_where_the_server_is_told_so(
    upstream: Upstream, start: Start
) -> None:
    process = await start("--runs-after-crash", "cancel")
    response_id, first = await half_a_response(process.server, upstream)
    whole = await ask(process.server, "whole", extra_headers={"X-Hermes-Session-Id": "s2"})
    await upstream.wait_for_requests(2)
    await process.kill9()
    upstream.gate.set()
    process = await start("--runs-after-crash", "cancel")
    server = process.server
    for lost in (response_id, whole.id):
        await has_failed(server, lost)
        failed = await server.openai.responses.retrieve(lost)
        assert await server.openai.responses.cancel(lost) == failed
    happened = parsed(await frames(server, response_id))
    assert (numbers(happened), kinds(happened)[-1]) == ([0, 1, 2, ATTEMPT], "failed")
    assert happened[-1]["response"] == await server.get(f"/v1/responses/{response_id}")
    assert parsed(await frames(server, response_id, numbers(parsed(first))[-1])) == happened[-1:]
    await server.openai.responses.delete(response_id)
    assert len(upstream.requests) == 2
    assert await process.terminate() == 0


async def test_one_that_was_cancelled_before_a_crash_stays_cancelled(upstream: Upstream, start: Start) -> None:
    process = await start()
    response_id, _ = await half_a_response(process.server, upstream)
    cancelled = await process.server.openai.responses.cancel(response_id)
    await process.kill9()
    upstream.gate.set()
    process = await start()
    assert await process.server.openai.responses.retrieve(response_id) == cancelled
    assert cancelled.status == "cancelled"
    assert len(upstream.requests) == 1
    assert await process.terminate() == 0


async def test_a_stop_that_cuts_a_response_short_is_like_a_crash_to_it(upstream: Upstream, start: Start) -> None:
    process = await start("--grace-s", "0")
    response_id, first = await half_a_response(process.server, upstream)
    async with following(process.server, response_id) as response:
        assert await process.terminate() == 0
        assert await response.read() == first  # no end: its reader is to come back
    upstream.gate.set()
    process = await start()
    rest = await frames(process.server, response_id, numbers(parsed(first))[-1])
    assert (said(parsed(rest)), rest.endswith(DONE)) == (PIECES, True)
    assert await process.terminate() == 0


async def test_a_stop_that_cuts_a_response_short_says_so_where_it_is_not_started_again(
    tmp_path: Path, upstream: Upstream
) -> None:
    serve = partial(serving, tmp_path / "data", upstream=upstream.url, runs_after_crash="cancel")
    async with serve() as server:
        response_id, first = await half_a_response(server, upstream)
    async with serve() as server:
        await has_failed(server, response_id)
        again = await frames(server, response_id)
    assert again.startswith(first)
    assert kinds(parsed(again)) == [*kinds(parsed(first)), "failed"]


async def has_failed(server: Server, response_id: str) -> None:
    """The response is failed, and says that its server was restarted."""
    failed = await server.openai.responses.retrieve(response_id)
    assert (failed.status, failed.completed_at) == ("failed", None)
    assert failed.error is not None
    assert failed.error.code == "server_error"
    assert "restarted" in failed.error.message


async def count(data: Path, cls: type) -> int:
    """How many facts of that type the log has."""
    return sum(isinstance(entry.event, cls) for entry in await recorded(data))


# Queued


async def test_what_was_queued_waits_on_after_a_crash(data: Path, upstream: Upstream, start: Start) -> None:
    process = await start()
    first, _ = await half_a_response(process.server, upstream)
    second = await ask(process.server, "second", extra_headers=S1, metadata={"a": "b"}, instructions="brief")
    async with asking(process.server, "third", headers=S1 | {"Idempotency-Key": "k"}) as response:
        begun = await some(response, 2)
    third = parsed(begun)[0]["response"]["id"]
    gone = await ask(process.server, "gone", extra_headers=S1)
    assert (await process.server.openai.responses.cancel(gone.id)).status == "cancelled"
    assert second.status == "queued"
    await process.kill9()

    hold(upstream)
    process = await start()
    server = process.server
    assert await server.openai.responses.retrieve(second.id) == second
    async with asyncio.timeout(WAIT_S), following(server, third, 0) as reader:
        assert await some(reader, 1) == behind(begun, 0)
        upstream.gate.set()
        read = behind(begun, 0) + await reader.read()
    for response_id in (first, second.id, third):
        assert (await ended(server, response_id)).output_text == TEXT
    assert await frames(server, third, 0) == read
    assert [message["content"] for message in upstream.messages[-2]][:1] == ["brief"]
    contents = [message["content"] for message in await server.messages("s1")]
    assert contents == ["hello", TEXT, "second", TEXT, "third", TEXT]
    with pytest.raises(openai.NotFoundError):
        await server.openai.responses.retrieve(gone.id)
    again = await ask(server, "third", stream=False, extra_headers=S1 | {"Idempotency-Key": "other"})
    await server.openai.responses.cancel(again.id)
    assert await process.terminate() == 0
    await verify(data)

    process = await start()  # nothing of it is done twice
    assert await process.server.messages("s1")
    assert await process.terminate() == 0
    assert await count(data, TurnStarted) == 4
    assert await count(data, TurnQueued) == await count(data, TurnDequeued) == 3


async def test_what_was_queued_waits_on_after_a_stop(tmp_path: Path, upstream: Upstream) -> None:
    serve = partial(serving, tmp_path / "data", upstream=upstream.url)
    async with serve() as server:
        await half_a_response(server, upstream)
        async with asking(server, "second", headers=S1) as response:
            begun = await some(response, 2)
    second = parsed(begun)[0]["response"]["id"]
    upstream.gate.set()
    async with serve() as server:
        assert (await frames(server, second)).startswith(begun)
        assert (await ended(server, second)).output_text == TEXT
        contents = [message["content"] for message in await server.messages("s1")]
    assert contents == ["hello", TEXT, "second", TEXT]


async def test_a_queued_one_is_sent_again_under_its_key_after_a_crash(upstream: Upstream, start: Start) -> None:
    keyed = S1 | {"Idempotency-Key": "k"}
    process = await start()
    await half_a_response(process.server, upstream)
    queued = await ask(process.server, "second", extra_headers=keyed)
    await process.kill9()
    hold(upstream)
    process = await start()
    again = await ask(process.server, "second", extra_headers=keyed)
    assert (again.id, again.status) == (queued.id, "queued")
    upstream.gate.set()
    assert (await ended(process.server, queued.id)).output_text == TEXT
    assert (await ask(process.server, "second", extra_headers=keyed)).id == queued.id
    assert len(await process.server.messages("s1")) == 4
    assert await process.terminate() == 0
