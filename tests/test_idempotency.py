"""One key, one turn: whatever comes twice is answered twice and done once."""

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec
import openai
import pytest
from freezegun import freeze_time

from api import keys
from api.context import LINEAGES, TURNS
from api.turns.idempotency import WAITING_MAX
from eventstore.events import (
    CompressionRotated,
    Event,
    SessionStarted,
    TurnCancelled,
    TurnCompleted,
    TurnStarted,
)
from eventstore.log import Recorded
from eventstore.sqlite import SqliteLog
from tests.support.facts import assistant, completed, started
from tests.support.server import Process, Server, serving
from tests.support.upstream import Reply, Upstream, calls, refuses, says

WAIT_S = 20.0
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"model": "m", "messages": [{"role": "user", "content": "one"}]},
    RESPONSES: {"model": "m", "input": "one"},
}
both_apis = pytest.mark.parametrize("path", BODIES)
streamed_or_not = pytest.mark.parametrize("stream", [False, True])
KEY = {"Idempotency-Key": "key-1"}
REPLAYED = "Idempotency-Replayed"
SESSION = "X-Hermes-Session-Id"


class Answered(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def is_replayed(self) -> bool:
        return self.headers.get(REPLAYED) == "true"

    @property
    def session_id(self) -> str:
        return self.headers[SESSION]


async def post(server: Server, path: str, headers: dict[str, str] | None = None, **more: Any) -> Answered:
    """One turn under the key: status, headers and the very bytes of the answer."""
    async with server.http.post(path, json=BODIES[path] | more, headers=KEY | (headers or {})) as response:
        return Answered(response.status, response.headers, await response.read())


async def recorded(data: Path) -> list[Recorded]:
    """Everything in the log."""
    log = await SqliteLog.open_read_only(data)
    try:
        return [event async for batch in log.read_all() for event in batch]
    finally:
        await log.close()


async def record(data: Path, stream: str, *events: Event) -> None:
    """Add to a stopped server's log."""
    log = await SqliteLog.open(data)
    await log.append(stream, len(await log.read(stream)), events)
    await log.close()


async def count(data: Path, kind: type[Event]) -> int:
    return sum(isinstance(entry.event, kind) for entry in await recorded(data))


@both_apis
@streamed_or_not
async def test_the_same_request_again_gets_the_same_bytes_and_makes_no_turn(
    server: Server, upstream: Upstream, data: Path, path: str, *, stream: bool
) -> None:
    upstream.script = lambda _: says("a rather long answer")
    first = await post(server, path, stream=stream)
    second = await post(server, path, stream=stream)
    assert (first.status, first.is_replayed, second.is_replayed) == (200, False, True)
    assert second.body == first.body
    assert second.session_id == first.session_id
    assert len(upstream.requests) == 1
    assert await count(data, TurnStarted) == 1
    assert len(await server.messages(first.session_id)) == 2


ANSWERS: dict[str, Reply] = {
    "a tool call": calls("look_up", '{"a": 1}'),
    "cut short": says("half of it", finish_reason="length"),
    "several choices": says(
        "a",
        extra={
            "system_fingerprint": "fp",
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"},
                {"index": 1, "message": {"role": "assistant", "content": "b"}, "finish_reason": "stop"},
            ],
        },
    ),
    "without usage": says("a", usage=None),
}


@both_apis
@pytest.mark.parametrize("answer", ANSWERS)
async def test_answers_of_any_kind_are_the_same_again(
    server: Server, upstream: Upstream, path: str, answer: str
) -> None:
    upstream.script = lambda _: ANSWERS[answer]
    first, second = await post(server, path), await post(server, path)
    assert (first.status, second.is_replayed) == (200, True)
    assert second.body == first.body


@both_apis
@streamed_or_not
async def test_the_same_request_after_a_restart_gets_the_same_bytes(
    data: Path, upstream: Upstream, path: str, *, stream: bool
) -> None:
    async with serving(data, upstream=upstream.url) as server:
        first = await post(server, path, stream=stream)
    async with serving(data, upstream=upstream.url) as server:
        again = await asyncio.gather(*(post(server, path, stream=stream) for _ in range(5)))
    assert all(answer.is_replayed and answer.body == first.body for answer in again)
    assert len(upstream.requests) == 1


async def test_sdk_clients_get_the_same_chat_completion_twice(server: Server, upstream: Upstream) -> None:
    chat = server.openai.chat.completions.with_raw_response
    ask: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "one"}], "extra_headers": KEY}
    first, second = await chat.create(**ask), await chat.create(**ask)
    assert (first.headers.get(REPLAYED), second.headers.get(REPLAYED)) == (None, "true")
    assert first.parse() == second.parse()
    assert len(upstream.requests) == 1


async def test_sdk_clients_get_the_same_stream_twice(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: says("one two three")
    chat, responses = server.openai.chat.completions, server.openai.responses
    asked: dict[str, Any] = {"model": "m", "stream": True, "extra_headers": KEY}
    ask: dict[str, Any] = asked | {"messages": [{"role": "user", "content": "a"}]}
    events = [[event async for event in await responses.create(input="a", **asked)] for _ in range(2)]
    chunks = [[chunk async for chunk in await chat.create(**ask)] for _ in range(2)]
    assert events[0] == events[1]
    assert [event.type for event in events[1]].count("response.output_text.delta") == 3
    assert chunks[0] == chunks[1]
    assert len(upstream.requests) == 2


@both_apis
@streamed_or_not
async def test_of_twenty_at_once_one_asks_the_model_and_all_get_its_answer(
    server: Server, upstream: Upstream, data: Path, path: str, *, stream: bool
) -> None:
    upstream.gate.clear()
    upstream.script = lambda _: says("the one answer")
    asking = [asyncio.create_task(post(server, path, {SESSION: "s1"}, stream=stream)) for _ in range(20)]
    async with asyncio.timeout(WAIT_S):
        await upstream.wait_for_requests(1)
        await waiting(server, 19)
        upstream.gate.set()
        answers = await asyncio.gather(*asking)
    assert sorted(answer.is_replayed for answer in answers) == [False] + [True] * 19
    assert len({answer.body for answer in answers}) == 1
    assert len(upstream.requests) == 1
    assert (await count(data, TurnStarted), await count(data, TurnCompleted)) == (1, 1)


async def waiting(server: Server, requests: int) -> None:
    """Return once so many requests wait for another one's key."""
    assert server.app is not None
    held = server.app[TURNS]._keys._held
    while sum(claim._waiting for claim in held.values()) < requests:  # noqa: ASYNC110
        await asyncio.sleep(0)  # nothing tells that somebody has begun to wait


async def held(server: Server) -> None:
    """Return once a request holds its key."""
    assert server.app is not None
    while not server.app[TURNS]._keys._held:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def start_run(server: Server, text: str) -> Answered:
    body = {"model": "m", "input": text}
    async with server.http.post("/v1/runs", json=body, headers=KEY | {SESSION: "s1"}) as response:
        return Answered(response.status, response.headers, await response.read())


async def run_to_its_end(server: Server, started: Answered) -> str:
    """Everything that happened in a run."""
    run_id = msgspec.json.decode(started.body)["run_id"]
    async with server.http.get(f"/v1/runs/{run_id}/events") as events:
        return await events.text()


async def test_a_run_that_is_asked_for_again_is_told_of_at_once_while_it_runs_and_ever_after(
    data: Path, upstream: Upstream
) -> None:
    async with serving(data, upstream=upstream.url) as server, asyncio.timeout(WAIT_S):
        upstream.gate.clear()
        first, again = await start_run(server, "one"), await start_run(server, "one")
        assert (first.status, again.status, first.is_replayed, again.is_replayed) == (202, 202, False, True)
        assert again.body == first.body
        assert (await start_run(server, "two")).status == 409
        upstream.gate.set()
        assert "run.completed" in await run_to_its_end(server, first)
        assert (await start_run(server, "one")).body == first.body
    async with serving(data, upstream=upstream.url) as server:
        last = await start_run(server, "one")
        assert (last.status, last.is_replayed, last.body) == (202, True, first.body)
        assert len(await server.messages("s1")) == 2
    assert len(upstream.requests) == 1


async def test_a_run_that_goes_on_after_a_kill_keeps_its_key(data: Path, upstream: Upstream) -> None:
    upstream.gate.clear()
    async with asyncio.timeout(WAIT_S):
        process = await Process.start(data, "--upstream", upstream.url)
        first = await start_run(process.server, "one")
        await upstream.wait_for_requests(1)
        await process.kill9()
        process = await Process.start(data, "--upstream", upstream.url)
        again = await start_run(process.server, "one")
        assert (again.is_replayed, again.body) == (True, first.body)
        upstream.gate.set()
        assert "run.completed" in await run_to_its_end(process.server, first)
        assert await process.terminate() == 0
    assert (await count(data, TurnStarted), await count(data, TurnCompleted)) == (1, 1)


@both_apis
async def test_another_body_under_the_same_key_is_409_and_no_sdk_tries_again(
    server: Server, upstream: Upstream, path: str
) -> None:
    assert (await post(server, path)).status == 200
    for more in ({"temperature": 1}, {"model": "other"}):
        other = await post(server, path, **more)
        assert other.status == 409
        assert other.headers["x-should-retry"] == "false"
        assert b'"code":"idempotency_key_conflict"' in other.body
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=server.openai.api_key, max_retries=3) as sdk:
        await sdk.responses.create(model="m", input="first", extra_headers=KEY | {SESSION: "s9"})
        with pytest.raises(openai.ConflictError):
            await sdk.responses.create(model="m", input="second", extra_headers=KEY | {SESSION: "s9"})
    assert len(upstream.requests) == 2


async def test_another_body_is_refused_while_the_first_still_runs(server: Server, upstream: Upstream) -> None:
    upstream.gate.clear()
    first = asyncio.create_task(post(server, CHAT))
    async with asyncio.timeout(WAIT_S):
        await upstream.wait_for_requests(1)
        assert (await post(server, CHAT, temperature=1)).status == 409
        upstream.gate.set()
        assert (await first).status == 200


@both_apis
async def test_the_same_key_and_body_in_another_session_is_another_turn(
    server: Server, upstream: Upstream, path: str
) -> None:
    answers = [await post(server, path, {SESSION: session}) for session in ("s1", "s2", "s1", "s2")]
    assert [answer.session_id for answer in answers] == ["s1", "s2", "s1", "s2"]
    assert [answer.is_replayed for answer in answers] == [False, False, True, True]
    assert [len(await server.messages(session)) for session in ("s1", "s2")] == [2, 2]
    assert len(upstream.requests) == 2


async def test_slugs_responses_and_no_name_at_all_are_scopes_of_their_own(server: Server, upstream: Upstream) -> None:
    unnamed = await post(server, RESPONSES)
    for slug in ("a", "b"):
        assert not (await post(server, RESPONSES, conversation=slug)).is_replayed
        assert (await post(server, RESPONSES, conversation=slug)).is_replayed
    assert not (await post(server, CHAT)).is_replayed, "another route"
    assert (await post(server, RESPONSES)).body == unnamed.body
    assert len(upstream.requests) == 4


async def test_a_retry_behind_a_response_neither_forks_nor_doubles(server: Server, upstream: Upstream) -> None:
    before = await server.openai.responses.create(model="m", input="zero")
    first = await post(server, RESPONSES, previous_response_id=before.id)
    second = await post(server, RESPONSES, previous_response_id=before.id)
    assert second.is_replayed
    assert (second.body, second.session_id) == (first.body, first.session_id)
    assert len(await server.messages(first.session_id)) == 4
    assert len(upstream.requests) == 2


async def test_nothing_of_it_crosses_tenants(data: Path, upstream: Upstream) -> None:
    data.mkdir()
    secrets = [keys.add(data, tenant, tenant) for tenant in ("ada", "bob")]
    async with serving(data, upstream=upstream.url) as server:
        answers = [
            await post(server, CHAT, {SESSION: "s1", "authorization": f"Bearer {secret}"}) for secret in secrets * 2
        ]
    assert [answer.is_replayed for answer in answers] == [False, False, True, True]
    assert len(upstream.requests) == 2


@pytest.mark.parametrize("header", ["X-Hermes-Session-Key", "X-Hermes-User-Id"])
async def test_nobody_is_given_the_answer_to_somebody_elses_request(
    server: Server, upstream: Upstream, header: str
) -> None:
    assert (await post(server, CHAT, {header: "ada"})).status == 200
    assert (await post(server, CHAT, {header: "bob"})).status == 409
    assert (await post(server, CHAT, {header: "ada"})).is_replayed
    assert len(upstream.requests) == 1


@both_apis
async def test_a_first_that_failed_does_not_count(server: Server, upstream: Upstream, data: Path, path: str) -> None:
    upstream.script = lambda _: refuses(500)
    assert (await post(server, path, {SESSION: "s1"})).status == 502
    upstream.script = lambda _: says("at last")
    second = await post(server, path, {SESSION: "s1"}, temperature=0.5)
    third = await post(server, path, {SESSION: "s1"}, temperature=0.5)
    assert (second.status, second.is_replayed, third.is_replayed) == (200, False, True)
    assert third.body == second.body
    assert len(upstream.requests) == 2
    assert await count(data, TurnCompleted) == 1


@both_apis
async def test_whoever_waits_takes_over_from_a_first_whose_client_hangs_up(
    server: Server, upstream: Upstream, data: Path, path: str
) -> None:
    upstream.gate.clear()
    first = asyncio.create_task(post(server, path))
    async with asyncio.timeout(WAIT_S):
        await upstream.wait_for_requests(1)
        second = asyncio.create_task(post(server, path))
        await waiting(server, 1)
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first
        await upstream.wait_for_requests(2)
        upstream.gate.set()
        answer = await second
    assert (answer.status, answer.is_replayed) == (200, False)
    assert (await count(data, TurnCancelled), await count(data, TurnCompleted)) == (1, 1)
    assert (await post(server, path)).body == answer.body


@streamed_or_not
async def test_a_kill_in_the_middle_of_the_first_leaves_the_key_to_the_retry(
    data: Path, upstream: Upstream, *, stream: bool
) -> None:
    upstream.gate.clear()
    process = await Process.start(data, "--upstream", upstream.url)
    lost = asyncio.create_task(post(process.server, RESPONSES, {SESSION: "s1"}, stream=stream))
    async with asyncio.timeout(WAIT_S):
        await upstream.wait_for_requests(1)
    (outcome,) = await process.kill9(lost)
    assert isinstance(outcome, aiohttp.ClientError)
    upstream.gate.set()
    process = await Process.start(data, "--upstream", upstream.url)
    retry = await post(process.server, RESPONSES, {SESSION: "s1"}, stream=stream)
    assert (retry.status, retry.is_replayed) == (200, False)
    await process.kill9()
    process = await Process.start(data, "--upstream", upstream.url)
    again = await post(process.server, RESPONSES, {SESSION: "s1"}, stream=stream)
    assert await process.terminate() == 0
    assert again.is_replayed
    assert again.body == retry.body
    assert [len(messages) for messages in upstream.messages] == [1, 1]
    assert (await count(data, TurnStarted), await count(data, TurnCompleted)) == (2, 1)


async def test_a_key_is_forgotten_after_a_day(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        for now, is_replayed in (
            ("2026-12-01T12:00:00", False),
            ("2026-12-02T11:59:59", True),
            ("2026-12-02T12:00:00", False),
            ("2026-12-03T11:59:59", True),
        ):
            with freeze_time(now, real_asyncio=True):
                assert (await post(server, CHAT)).is_replayed is is_replayed, now
    assert len(upstream.requests) == 2


async def test_any_id_of_a_lineage_is_the_same_session_to_a_key(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        first = await post(server, CHAT, {SESSION: "s1"})
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
    await record(data, "lineage/default/s1", rotated)
    async with serving(data, upstream=upstream.url) as server:
        for session in ("s1", "s1-2"):
            again = await post(server, CHAT, {SESSION: session})
            assert (again.is_replayed, again.body, again.session_id) == (True, first.body, "s1-2")
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("headers", [{}, {SESSION: "s1"}])
async def test_a_key_of_a_deleted_session_runs_anew(
    server: Server, upstream: Upstream, headers: dict[str, str]
) -> None:
    first = await post(server, CHAT, headers)
    async with server.http.delete(f"/api/sessions/{first.session_id}") as response:
        assert response.status == 200
    assert not (await post(server, CHAT, headers)).is_replayed
    assert (await post(server, CHAT, headers)).is_replayed
    assert len(upstream.requests) == 2


async def test_a_sessions_own_chat_is_a_route_of_its_own_streamed_or_not(server: Server, upstream: Upstream) -> None:
    await server.chat("zero", "s1")
    answers = []
    for path in ("/api/sessions/s1/chat", "/api/sessions/s1/chat", "/api/sessions/s1/chat/stream"):
        async with server.http.post(path, json={"message": "one"}, headers=KEY) as response:
            answers.append(Answered(response.status, response.headers, await response.read()))
            assert response.status == 200, answers[-1]
    assert [answer.is_replayed for answer in answers] == [False, True, True]
    assert answers[0].body == answers[1].body
    assert b"event: run.completed" in answers[2].body
    assert not (await post(server, CHAT, {SESSION: "s1"})).is_replayed
    assert len(upstream.requests) == 3


async def at_work_elsewhere(server: Server, data: Path) -> TurnStarted:
    """Another process has opened the turn that the key stands for, and is still at work on it."""
    probe = await post(server, CHAT, {SESSION: "s0"})
    assert probe.status == 200
    ours = next(entry.event for entry in await recorded(data) if isinstance(entry.event, TurnStarted))
    theirs = started(
        "t1",
        "one",
        owner="another",
        lease_ms=600_000,
        idempotency_key="key-1",
        idempotency_scope="chat session:s1",
        body_digest=ours.body_digest,
    )
    assert server.app is not None
    log = server.app[LINEAGES]._log
    await log.append("lineage/default/s1", 0, (SessionStarted(session_id="s1"), theirs))
    return theirs


async def test_a_first_at_work_in_another_process_is_waited_for(server: Server, upstream: Upstream, data: Path) -> None:
    theirs = await at_work_elsewhere(server, data)
    second = asyncio.create_task(post(server, CHAT, {SESSION: "s1"}))
    await held(server)
    others = await asyncio.gather(*(post(server, CHAT, {SESSION: "s1"}, temperature=n) for n in range(2)))
    assert [other.status for other in others] == [409, 409]
    assert server.app is not None
    await server.app[LINEAGES]._log.append("lineage/default/s1", 2, (completed(theirs.turn_id, "theirs"),))
    async with asyncio.timeout(WAIT_S):
        answer = await second
    assert answer.is_replayed
    assert b"theirs" in answer.body
    assert len(upstream.requests) == 1


async def test_a_first_that_runs_for_too_long_is_409_and_the_same_key_may_come_again(
    data: Path, upstream: Upstream
) -> None:
    async with serving(data, upstream=upstream.url, lock_wait_s=0.1) as server:
        await at_work_elsewhere(server, data)
        upstream.gate.clear()
        running = asyncio.create_task(post(server, CHAT))
        async with asyncio.timeout(WAIT_S):
            await upstream.wait_for_requests(2)
            for headers in ({SESSION: "s1"}, {}):
                late = await post(server, CHAT, headers)
                assert late.status == 409
                assert b'"code":"conversation_locked"' in late.body
                assert late.headers["retry-after"] == "1"
            upstream.gate.set()
            assert (await running).status == 200


async def test_not_without_end_many_wait_for_one_key(
    server: Server, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert WAITING_MAX == 256
    monkeypatch.setattr("api.turns.idempotency.WAITING_MAX", 2)
    upstream.gate.clear()
    async with asyncio.timeout(WAIT_S):
        asking = [asyncio.create_task(post(server, CHAT)) for _ in range(3)]
        await upstream.wait_for_requests(1)
        await waiting(server, 2)
        assert (await post(server, CHAT)).status == 409
        upstream.gate.set()
        assert [answer.status for answer in await asyncio.gather(*asking)] == [200] * 3


async def test_a_key_on_a_request_that_stores_nothing_is_not_honoured(server: Server, upstream: Upstream) -> None:
    for path in BODIES:
        answers = [await post(server, path, store=False) for _ in range(2)]
        assert [(answer.status, answer.is_replayed) for answer in answers] == [(200, False)] * 2
    assert len(upstream.requests) == 4


async def test_an_empty_key_is_none(server: Server, upstream: Upstream) -> None:
    answers = [await post(server, CHAT, {"Idempotency-Key": ""}) for _ in range(2)]
    assert [(answer.status, answer.is_replayed) for answer in answers] == [(200, False)] * 2
    assert len(upstream.requests) == 2
