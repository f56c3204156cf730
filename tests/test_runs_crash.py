"""Runs and the end of their process: started again once, or cancelled, as the server is told; nothing is doubled."""

import asyncio
from functools import partial
from pathlib import Path

import pytest

from eventstore.events import Event, TurnCancelled, TurnCompleted, TurnRestarted, TurnStarted
from eventstore.log import Recorded
from tests.support.runs import CLOSED, events, following, frames, parsed, said, some, start_run
from tests.support.server import Process, Server, serving
from tests.support.upstream import Upstream, says
from tests.test_crash import recorded, verify

WAIT_S = 30.0
ATTEMPT = 1_000_000
TEXT = "one two three four"
PIECES = ["one", " two", " three", " four"]
TOOL = {"type": "function", "name": "look", "parameters": {}}
policies = pytest.mark.parametrize("policy", ["restart", "cancel"])


def hold(upstream: Upstream) -> None:
    """Answers of four words, of which two go out before they are held back."""
    upstream.script = lambda _: says(TEXT)
    upstream.stream_gate_after = 3
    upstream.pieces_sent = 0
    upstream.gate.clear()


async def half_a_run(server: Server, upstream: Upstream) -> str:
    """A run of session s1, of whose answer two words have come."""
    hold(upstream)
    run_id = await start_run(
        server, "hello", session_id="s1", conversation="slug", instructions="brief", tools=[TOOL], temperature=0.5
    )
    async with asyncio.timeout(WAIT_S), following(server, run_id) as response:
        assert said(parsed(await some(response, 2))) == ["one", " two"]
    return run_id


async def facts(data: Path, *types: type[Event]) -> list[Recorded]:
    return [entry for entry in await recorded(data) if isinstance(entry.event, types)]


async def start(data: Path, upstream: Upstream, policy: str = "restart", *more: str) -> Process:
    flags = ("--upstream", upstream.url, "--default-model", "m", "--runs-after-crash", policy)
    return await Process.start(data, *flags, *more)


async def health(server: Server) -> int:
    async with server.http.get("/health") as response:
        return response.status


# kill -9


async def test_a_run_that_was_killed_is_started_again_and_seen_to_be(data: Path, upstream: Upstream) -> None:
    process = await start(data, upstream)
    await process.server.chat("before", "s1")
    run_id = await half_a_run(process.server, upstream)
    await process.kill9()

    hold(upstream)
    process = await start(data, upstream)
    server = process.server
    assert (await server.get(f"/v1/runs/{run_id}"))["last_event"] == "run.restarted"
    chat = asyncio.create_task(server.chat("behind it", "s1"))
    async with asyncio.timeout(WAIT_S), following(server, run_id, 2) as response:
        begun = await some(response, 3)  # the restart, and two words
        upstream.gate.set()
        live = begun + await response.read()
    happened = parsed(live)
    assert [event.name for event in happened] == ["run.restarted", *["message.delta"] * 4, "run.completed"]
    assert [event.id for event in happened] == [ATTEMPT + number for number in range(6)]
    assert said(happened) == PIECES
    for after in (None, 0, 1, 2, 999):  # what was read of the first attempt no longer holds
        assert await frames(server, run_id, after) == live
    assert parsed(await frames(server, run_id, ATTEMPT + 2)) == happened[3:]
    assert (await server.get(f"/v1/runs/{run_id}"))["status"] == "completed"

    await chat
    # The chat, the run, the run again with the very same prompt, and the chat that has waited for it.
    first, again = upstream.requests[1:3]
    assert first == again
    assert [message["content"] for message in upstream.messages[3]][-3:] == ["hello", TEXT, "behind it"]
    assert len(upstream.requests) == 4
    assert await process.terminate() == 0
    assert len(await facts(data, TurnRestarted)) == 1
    assert len(await facts(data, TurnStarted)) == 3
    assert not await facts(data, TurnCancelled)
    await verify(data)
    async with serving(data, upstream=upstream.url) as later:
        assert await frames(later, run_id) == live


async def test_a_run_that_is_killed_twice_is_cancelled(data: Path, upstream: Upstream) -> None:
    process = await start(data, upstream)
    run_id = await half_a_run(process.server, upstream)
    await process.kill9()
    hold(upstream)
    process = await start(data, upstream)
    async with asyncio.timeout(WAIT_S), following(process.server, run_id) as response:
        seen = parsed(await some(response, 3))[-1].id
    await process.kill9()

    upstream.gate.set()
    process = await start(data, upstream)
    [ended] = await events(process.server, run_id, seen)
    assert (ended.name, ended.payload["reason"], ended.id) == ("run.cancelled", "crash", 2 * ATTEMPT)
    status = await process.server.get(f"/v1/runs/{run_id}")
    assert (status["status"], status["reason"]) == ("cancelled", "crash")
    answer, _ = await process.server.chat("again", "s1")
    assert answer["choices"][0]["message"]["content"] == TEXT
    assert upstream.messages[-1] == [{"role": "user", "content": "again"}]
    assert len(upstream.requests) == 3
    assert await process.terminate() == 0
    await verify(data)


async def test_a_run_that_was_killed_is_cancelled_where_the_server_is_told_so(data: Path, upstream: Upstream) -> None:
    process = await start(data, upstream, "cancel")
    run_id = await half_a_run(process.server, upstream)
    await process.kill9()
    upstream.gate.set()
    process = await start(data, upstream, "cancel")
    for after in (None, 0, 2):  # a reader who has seen two words is told of the end too
        [ended] = await events(process.server, run_id, after)
        assert (ended.name, ended.payload["reason"], ended.id) == ("run.cancelled", "crash", ATTEMPT)
    assert await frames(process.server, run_id, ATTEMPT) == CLOSED
    await process.server.chat("again", "s1")
    assert upstream.messages[-1] == [{"role": "user", "content": "again"}]
    assert await process.terminate() == 0
    assert not await facts(data, TurnRestarted)
    await verify(data)


async def test_many_runs_are_started_again_and_other_turns_are_not(data: Path, upstream: Upstream) -> None:
    process = await start(data, upstream)
    upstream.gate.clear()
    runs = [await start_run(process.server, f"run {number}", session_id=f"s{number}") for number in range(5)]
    chat = asyncio.create_task(process.server.chat("chat", "other"))
    async with asyncio.timeout(WAIT_S):
        await upstream.wait_for_requests(6)
    (outcome,) = await process.kill9(chat)
    assert isinstance(outcome, Exception)
    upstream.gate.set()
    process = await start(data, upstream)
    for run_id in runs:
        assert (await events(process.server, run_id))[-1].name == "run.completed"
    assert [message["status"] for message in await process.server.messages("other")] == ["cancelled"]
    assert await process.terminate() == 0
    assert len(await facts(data, TurnRestarted)) == 5
    assert len(await facts(data, TurnCompleted)) == 5
    assert len(upstream.requests) == 11


# A stop


async def test_a_stop_that_cuts_a_run_short_is_like_a_crash_to_it(data: Path, upstream: Upstream) -> None:
    process = await start(data, upstream, "restart", "--grace-s", "0")
    run_id = await half_a_run(process.server, upstream)
    async with following(process.server, run_id, 2) as response:
        assert await process.terminate() == 0
        assert CLOSED not in await response.read()  # it has not ended: its reader is to come back
    assert not await facts(data, TurnCancelled)
    upstream.gate.set()
    process = await start(data, upstream)
    assert said(await events(process.server, run_id, 2)) == PIECES
    assert await process.terminate() == 0
    await verify(data)


async def test_a_stop_that_cuts_a_run_short_says_so_where_it_is_not_started_again(
    tmp_path: Path, upstream: Upstream
) -> None:
    serve = partial(serving, tmp_path / "data", upstream=upstream.url, runs_after_crash="cancel")
    async with serve() as server:
        run_id = await half_a_run(server, upstream)
    async with serve() as server:
        happened = await events(server, run_id)
    assert [event.name for event in happened] == ["message.delta", "message.delta", "run.cancelled"]
    assert (happened[-1].id, happened[-1].payload["reason"]) == (3, "shutdown")


async def test_a_stop_that_cuts_a_run_short_for_the_second_time_keeps_what_was_said(
    tmp_path: Path, upstream: Upstream
) -> None:
    serve = partial(serving, tmp_path / "data", upstream=upstream.url)
    async with serve() as server:
        run_id = await half_a_run(server, upstream)
    hold(upstream)
    async with serve() as server, following(server, run_id) as response:
        await some(response, 3)
    async with serve() as server:
        happened = await events(server, run_id)
    assert [event.name for event in happened][1:] == ["message.delta", "message.delta", "run.cancelled"]
    assert (happened[-1].id, happened[-1].payload["reason"]) == (ATTEMPT + 3, "shutdown")


@policies
async def test_a_stop_waits_for_runs_as_for_every_turn(data: Path, upstream: Upstream, policy: str) -> None:
    process = await start(data, upstream, policy)
    run_id = await half_a_run(process.server, upstream)
    async with following(process.server, run_id) as response:
        stopped = asyncio.create_task(process.terminate())
        async with asyncio.timeout(WAIT_S):
            while await health(process.server) == 200:
                pass
        upstream.gate.set()
        assert parsed(await response.read())[-1].name == "run.completed"
        assert await stopped == 0
    assert len(await facts(data, TurnCompleted)) == 1
