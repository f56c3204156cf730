"""Runs over HTTP: they go on without their client, and everybody can follow them, at any time and from anywhere."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from api import keys
from api.context import LINEAGES
from eventstore.events import (
    CompressionRotated,
    Identity,
    SessionDeleted,
    SessionStarted,
    TurnStarted,
    lineage_stream,
)
from tests.support.runs import CLOSED, events, following, frames, parsed, refused, said, some, start_run
from tests.support.server import Server, serving
from tests.support.upstream import Reply, Upstream, calls, refuses, says
from tests.test_crash import recorded

USAGE = {"input_tokens": 11, "output_tokens": 7, "total_tokens": 18}
TEXT = "one two three four"
PIECES = ["one", " two", " three", " four"]
S1 = {"X-Hermes-Session-Id": "s1"}


def hold(upstream: Upstream, after: int = 3) -> None:
    """Answers of four words, held back behind so many streamed pieces, of which the first is empty."""
    upstream.script = lambda _: says(TEXT)
    upstream.stream_gate_after = after
    upstream.gate.clear()


# Shapes


async def test_a_run_is_accepted_and_answers_behind_its_clients_back(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: says(TEXT)
    headers = {"X-Hermes-Session-Key": "k", "X-Hermes-User-Id": "ada"}
    async with server.http.post("/v1/runs", json={"input": "hello"}, headers=headers) as response:
        assert response.status == 202
        assert {name: response.headers[name] for name in headers} == headers
        session_id = response.headers["X-Hermes-Session-Id"]
        answer = await response.json()
    run_id = answer["run_id"]
    assert answer == {"run_id": run_id, "status": "started"}
    assert run_id.startswith("run_")
    happened = await events(server, run_id)
    assert [event.id for event in happened] == [1, 2, 3, 4, 5]
    assert said(happened) == PIECES
    status = await server.get(f"/v1/runs/{run_id}")
    created_at, updated_at = status.pop("created_at"), status.pop("updated_at")
    assert status == {
        "object": "hermes.run",
        "run_id": run_id,
        "status": "completed",
        "session_id": session_id,
        "model": "m",
        "last_event": "run.completed",
        "output": TEXT,
        "usage": USAGE,
        "finish_reason": "stop",
    }
    assert happened[0].payload == {
        "event": "message.delta",
        "run_id": run_id,
        "timestamp": created_at,
        "delta": "one",
    }
    assert happened[-1].payload == {
        "event": "run.completed",
        "run_id": run_id,
        "timestamp": updated_at,
        "output": TEXT,
        "usage": USAGE,
        "finish_reason": "stop",
    }
    assert 0 < created_at < updated_at


async def test_a_run_at_work_is_running(server: Server, upstream: Upstream) -> None:
    hold(upstream)
    run_id = await start_run(server, "hello")
    status = await server.get(f"/v1/runs/{run_id}")
    assert status["status"] == "running"
    assert status["created_at"] == status["updated_at"]
    assert status.keys() == {"object", "run_id", "status", "updated_at", "created_at", "session_id", "model"}
    upstream.gate.set()
    assert (await events(server, run_id))[-1].name == "run.completed"


async def test_tool_calls_and_thoughts_are_told_and_the_next_run_answers_the_call(
    server: Server, upstream: Upstream
) -> None:
    upstream.script = lambda _: calls("look", '{"at":"rome"}')
    tools = [{"type": "function", "name": "look", "parameters": {}}]
    run_id = await start_run(server, "look!", session_id="s1", tools=tools)
    [ended] = await events(server, run_id)
    [call] = ended.payload["tool_calls"]
    assert (call["type"], call["call_id"], call["name"], call["arguments"]) == (
        "function_call",
        "call_1",
        "look",
        '{"at":"rome"}',
    )
    assert (ended.payload["output"], ended.payload["finish_reason"]) == ("", "tool_calls")
    assert (await server.get(f"/v1/runs/{run_id}"))["tool_calls"] == [call]
    thoughtful = Reply(pieces=[{"reasoning_content": "hm"}, {"reasoning_content": "m"}, {"content": "sunny"}])
    upstream.script = lambda _: thoughtful
    result = {"type": "function_call_output", "call_id": "call_1", "output": "sun"}
    happened = await events(server, await start_run(server, [result], session_id="s1"))
    assert [event.name for event in happened] == ["message.delta", "reasoning.available", "run.completed"]
    assert happened[1].payload["text"] == "hmm"
    assert [message["role"] for message in upstream.messages[1]] == ["user", "assistant", "tool"]


async def test_instructions_history_and_parameters_reach_the_model(server: Server, upstream: Upstream) -> None:
    history = [{"role": "user", "content": "old"}, {"role": "assistant", "content": "older"}]
    run_id = await start_run(
        server,
        [{"role": "user", "content": [{"type": "input_text", "text": "new"}]}],
        instructions="be brief",
        conversation_history=history,
        model="m2",
        temperature=0.5,
        session_id="s1",
    )
    await events(server, run_id)
    [request] = upstream.requests
    assert request["messages"] == [
        {"role": "system", "content": "be brief"},
        *history,
        {"role": "user", "content": "new"},
    ]
    assert (request["model"], request["temperature"]) == ("m2", 0.5)
    assert not request.keys() & {"session_id", "conversation_history", "input"}


async def test_the_capabilities_say_so(server: Server) -> None:
    said_of_itself = await server.get("/v1/capabilities")
    features, endpoints = said_of_itself["features"], said_of_itself["endpoints"]
    assert all(features[name] is True for name in ("run_submission", "run_status", "run_events_sse", "run_stop"))
    assert endpoints["runs"] == {"method": "POST", "path": "/v1/runs"}
    assert endpoints["run_status"] == {"method": "GET", "path": "/v1/runs/{run_id}"}
    assert endpoints["run_events"] == {"method": "GET", "path": "/v1/runs/{run_id}/events"}
    assert endpoints["run_stop"] == {"method": "POST", "path": "/v1/runs/{run_id}/stop"}


# Following


async def test_any_number_follow_at_once_and_late_and_read_the_same(server: Server, upstream: Upstream) -> None:
    hold(upstream)
    run_id = await start_run(server, "hello")
    async with following(server, run_id) as first, following(server, run_id) as second:
        begun = [await some(first, 2), await some(second, 2)]
        async with following(server, run_id) as late:
            begun.append(await some(late, 2))
            upstream.gate.set()
            read = [begun[index] + await reader.read() for index, reader in enumerate((first, second, late))]
    assert read == [await frames(server, run_id)] * 3
    assert said(parsed(read[0])) == PIECES
    assert len(upstream.requests) == 1


async def test_events_go_on_behind_every_event_during_and_after_the_run_and_after_a_restart(
    tmp_path: Path, upstream: Upstream
) -> None:
    serve = partial(serving, tmp_path / "data", upstream=upstream.url)
    hold(upstream)
    async with serve() as server:
        run_id = await start_run(server, "hello")
        await upstream.wait_for_pieces(3)
        readers = [asyncio.create_task(frames(server, run_id, after)) for after in range(8)]
        async with following(server, run_id) as response:  # the others have been let in before it
            await some(response, 2)
            upstream.gate.set()
        live = await asyncio.gather(*readers)
        after_run = [await frames(server, run_id, after) for after in range(8)]
    async with serve() as server:
        after_restart = [await frames(server, run_id, after) for after in range(8)]
    assert [[event.id for event in parsed(data)] for data in live] == [list(range(after + 1, 6)) for after in range(8)]
    assert live == after_run == after_restart
    assert all(live[0].endswith(data) for data in live)
    assert live[5:] == [CLOSED] * 3


async def test_the_built_in_models_run_is_told_again_as_it_was(tmp_path: Path) -> None:
    async with serving(tmp_path / "data") as server:
        run_id = await start_run(server, "hello")
        live = await frames(server, run_id)
    async with serving(tmp_path / "data") as server:
        assert await frames(server, run_id) == live
    assert parsed(live)[-1].payload["finish_reason"] == "stop"


async def test_a_reader_that_does_not_read_holds_nothing_up(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: Reply(pieces=[{"content": "x" * 50_000} for _ in range(200)])
    upstream.gate.clear()
    run_id = await start_run(server, "hello")
    async with following(server, run_id) as slow:
        upstream.gate.set()
        happened = await events(server, run_id)
        assert len(happened) == 201
        await slow.content.read(1)


async def test_a_client_that_follows_and_hangs_up_does_not_stop_the_run(server: Server, upstream: Upstream) -> None:
    hold(upstream)
    run_id = await start_run(server, "hello")
    async with following(server, run_id) as response:
        await some(response, 2)
    upstream.gate.set()
    assert (await events(server, run_id))[-1].name == "run.completed"


@pytest.mark.parametrize("after", ["x", "-1", "1.5", "9" * 30, "²"])
async def test_a_last_event_id_that_is_none_is_refused(server: Server, after: str) -> None:
    run_id = await start_run(server, "hello")
    async with server.http.get(f"/v1/runs/{run_id}/events", headers={"Last-Event-ID": after}) as response:
        assert response.status == 400
        assert (await response.json())["error"]["param"] == "Last-Event-ID"


# The client that starts it


async def test_the_client_that_started_it_may_hang_up(tmp_path: Path, upstream: Upstream) -> None:
    hold(upstream)
    async with serving(tmp_path / "data", upstream=upstream.url) as server:
        starter = Server(server.url)
        run_id = await start_run(starter, "hello")
        await upstream.wait_for_requests(1)
        await starter.close()
        upstream.gate.set()
        assert said(await events(server, run_id)) == PIECES


async def test_one_that_hangs_up_while_it_waits_for_its_session_leaves_nothing_behind(
    server: Server, upstream: Upstream
) -> None:
    hold(upstream)
    first = await start_run(server, "first", session_id="s1")
    waiting = asyncio.create_task(start_run(server, "never", session_id="s1"))
    await _until(server, is_waited_for=True)
    waiting.cancel()
    await _until(server, is_waited_for=False)
    upstream.gate.set()
    await events(server, first)
    await events(server, await start_run(server, "third", session_id="s1"))
    assert [message["content"] for message in await server.messages("s1")] == ["first", TEXT, "third", TEXT]


async def _until(server: Server, *, is_waited_for: bool) -> None:
    """Return once somebody waits for a session, or nobody does."""
    assert server.app is not None
    line = server.app[LINEAGES].line
    for _ in range(1_000_000):
        if any(line._waiting.values()) == is_waited_for:
            return
        await asyncio.sleep(0)
    raise AssertionError("in vain")


# Stopping and failing


async def test_a_run_that_is_stopped_keeps_what_was_said_out_of_later_prompts(
    tmp_path: Path, upstream: Upstream
) -> None:
    serve = partial(serving, tmp_path / "data", upstream=upstream.url)
    hold(upstream)
    async with serve() as server:
        run_id = await start_run(server, "hello", session_id="s1")
        async with following(server, run_id) as follower:
            begun = await some(follower, 2)
            async with server.http.post(f"/v1/runs/{run_id}/stop") as response:
                assert (response.status, await response.json()) == (200, {"run_id": run_id, "status": "stopping"})
            read = begun + await follower.read()
        happened = parsed(read)
        assert [event.name for event in happened] == ["message.delta", "message.delta", "run.cancelled"]
        assert happened[-1].payload["reason"] == "client"
        status = await server.get(f"/v1/runs/{run_id}")
        assert (status["status"], status["last_event"], status["reason"]) == ("cancelled", "run.cancelled", "client")
        upstream.gate.set()
        await events(server, await start_run(server, "again", session_id="s1"))
        assert upstream.messages[-1] == [{"role": "user", "content": "again"}]
        assert [message["content"] for message in await server.messages("s1")][:2] == ["hello", "one two"]
        assert await frames(server, run_id) == read
    async with serve() as server:
        assert await frames(server, run_id) == read


async def test_a_run_that_has_ended_can_not_be_stopped(server: Server) -> None:
    run_id = await start_run(server, "hello")
    await events(server, run_id)
    for unknown in (run_id, "run_nobody", "nobody", "run_", "resp_x"):
        async with server.http.post(f"/v1/runs/{unknown}/stop") as response:
            assert response.status == 404
            assert (await response.json())["error"] == {
                "message": f"Run not found{' at work: it has ended' if unknown == run_id else ''}: {unknown}",
                "type": "invalid_request_error",
                "param": "run_id",
                "code": "run_not_found",
            }


@pytest.mark.parametrize(
    ("reply", "deltas", "code", "error"),
    [
        (refuses(400, "too long", code="context_length_exceeded"), [], "context_length_exceeded", "too long"),
        (refuses(500, "boom"), [], "upstream_error", "boom"),
        (says(TEXT, break_after=3), ["one", " two"], "upstream_broke_off", ""),
    ],
)
async def test_a_run_that_fails_says_why_and_leaves_nothing_in_later_prompts(
    tmp_path: Path, upstream: Upstream, reply: Reply, deltas: list[str], code: str, error: str
) -> None:
    serve = partial(serving, tmp_path / "data", upstream=upstream.url)
    upstream.script = lambda _: reply
    async with serve() as server:
        run_id = await start_run(server, "hello", session_id="s1")
        read = await frames(server, run_id)
        *spoken, failed = parsed(read)
        assert said(spoken) == deltas
        assert (failed.name, failed.payload["code"]) == ("run.failed", code)
        assert error in failed.payload["error"]
        status = await server.get(f"/v1/runs/{run_id}")
        assert (status["status"], status["error"]) == ("failed", failed.payload["error"])
        assert await frames(server, run_id) == read
        upstream.script = lambda _: says("ok")
        await events(server, await start_run(server, "again", session_id="s1"))
        assert upstream.messages[-1] == [{"role": "user", "content": "again"}]
    async with serve() as server:
        assert await frames(server, run_id) == read


# Names


@pytest.mark.parametrize("named", ["header", "body", "both"])
async def test_a_run_goes_on_in_the_session_that_is_named(server: Server, upstream: Upstream, named: str) -> None:
    await server.chat("one", "s1")
    headers = S1 if named != "body" else None
    body = {"session_id": "s1"} if named != "header" else {}
    async with server.http.post("/v1/runs", json={"input": "two"} | body, headers=headers) as response:
        assert response.headers["X-Hermes-Session-Id"] == "s1"
        run_id = (await response.json())["run_id"]
    await events(server, run_id)
    assert (await server.get(f"/v1/runs/{run_id}"))["session_id"] == "s1"
    await server.chat("three", "s1")
    assert [message["content"] for message in upstream.messages[-1]] == ["one", "1: one", "two", "3: two", "three"]


async def test_a_run_goes_on_in_a_conversation_and_behind_a_response(server: Server, upstream: Upstream) -> None:
    run_id = await start_run(server, "one", conversation="trip")
    assert (await events(server, run_id))[-1].payload["conversation"] == "trip"
    status = await server.get(f"/v1/runs/{run_id}")
    assert status["conversation"] == "trip"
    response = await server.openai.responses.create(model="m", input="two", conversation="trip")
    await events(server, await start_run(server, "three", previous_response_id=response.id))
    await events(server, await start_run(server, "four", conversation="trip"))
    said_by_user = [message["content"] for message in upstream.messages[-1] if message["role"] == "user"]
    assert said_by_user == ["one", "two", "three", "four"]
    forked = await start_run(server, "other", previous_response_id=response.id)
    await events(server, forked)
    assert (await server.get(f"/v1/runs/{forked}"))["session_id"] != status["session_id"]
    assert [message["content"] for message in upstream.messages[-1]][::2] == ["one", "two", "other"]


async def test_a_run_without_a_name_is_a_new_session(server: Server, upstream: Upstream) -> None:
    runs = [await start_run(server, "hello") for _ in range(2)]
    for run_id in runs:
        await events(server, run_id)
    sessions = {(await server.get(f"/v1/runs/{run_id}"))["session_id"] for run_id in runs}
    assert len(sessions) == 2
    assert all(len(messages) == 1 for messages in upstream.messages)


async def test_who_speaks_and_the_idempotency_key_are_recorded(tmp_path: Path, upstream: Upstream) -> None:
    headers = {"Idempotency-Key": "k1", "X-Hermes-Session-Key": "scope", "X-Hermes-Chat-Id": "c1"}
    async with serving(tmp_path / "data", upstream=upstream.url) as server:
        await events(server, await start_run(server, "hello", headers=headers, user="ada"))
    facts = [entry.event for entry in await recorded(tmp_path / "data")]
    began, turn = facts[:2]
    assert isinstance(began, SessionStarted)
    assert (began.session_key, began.identity) == ("scope", Identity(chat_id="c1", user_id="ada"))
    assert isinstance(turn, TurnStarted)
    assert (turn.api, turn.background, turn.idempotency_key, len(turn.body_digest)) == ("runs", True, "k1", 32)


async def test_an_idempotency_key_makes_one_run_that_is_found_at_work_and_ever_after(
    tmp_path: Path, upstream: Upstream
) -> None:
    async def post(server: Server, said: str = "hello") -> tuple[int, Any, str | None]:
        async with server.http.post("/v1/runs", json={"input": said}, headers=S1 | {"Idempotency-Key": "k"}) as reply:
            assert reply.headers.get("X-Hermes-Session-Id") == ("s1" if reply.status == 202 else None)
            return reply.status, await reply.json(), reply.headers.get("Idempotency-Replayed")

    serve = partial(serving, tmp_path / "data", upstream=upstream.url)
    hold(upstream)
    async with serve() as server:
        status, answer, _ = await post(server)
        run_id = answer["run_id"]
        async with following(server, run_id) as follower:
            begun = await some(follower, 2)
            assert await post(server) == (202, answer, "true")
            assert (await server.get(f"/v1/runs/{run_id}"))["status"] == "running"
            upstream.gate.set()
            read = begun + await follower.read()
        assert said(parsed(read)) == PIECES
        assert await post(server) == (202, answer, "true")
        assert (await post(server, "another"))[0] == 409
    async with serve() as server:
        assert await post(server) == (202, answer, "true")
        assert await frames(server, run_id) == read
    assert (status, len(upstream.requests)) == (202, 1)


async def test_a_resent_history_is_not_taken_in_twice(server: Server, upstream: Upstream) -> None:
    await events(server, await start_run(server, "one", session_id="s1"))
    history = [{"role": "user", "content": "one"}, {"role": "assistant", "content": "1: one"}]
    await events(server, await start_run(server, [*history, {"role": "user", "content": "two"}], headers=S1))
    await events(server, await start_run(server, "three", conversation_history=history, headers=S1))
    assert [message["content"] for message in upstream.messages[-1]] == ["one", "1: one", "two", "3: two", "three"]


async def test_parallel_runs_of_one_session_come_one_after_another(server: Server, upstream: Upstream) -> None:
    runs = await asyncio.gather(*(start_run(server, f"run {number}", session_id="s1") for number in range(8)))
    for run_id in runs:
        assert (await events(server, run_id))[-1].name == "run.completed"
    assert [len(messages) for messages in upstream.messages] == [1, 3, 5, 7, 9, 11, 13, 15]
    roles = [message["role"] for message in await server.messages("s1")]
    assert roles == ["user", "assistant"] * 8


async def test_a_turn_waits_for_the_run_of_its_session(server: Server, upstream: Upstream) -> None:
    hold(upstream)
    await start_run(server, "first", session_id="s1")
    chat = asyncio.create_task(server.chat("second", "s1"))
    await upstream.wait_for_pieces(3)
    upstream.gate.set()
    await chat
    assert [message["content"] for message in upstream.messages[-1]] == ["first", TEXT, "second"]


# Refusals


async def test_no_more_runs_than_may_be_at_once(tmp_path: Path, upstream: Upstream) -> None:
    hold(upstream)
    async with serving(tmp_path / "data", upstream=upstream.url, runs_max=2) as server:
        first, second = await start_run(server, "one"), await start_run(server, "two")
        async with server.http.post("/v1/runs", json={"input": "three"}) as response:
            assert (response.status, response.headers["retry-after"]) == (429, "1")
            error = (await response.json())["error"]
            assert (error["type"], error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
        upstream.gate.set()
        await events(server, first)
        await events(server, second)
        await events(server, await start_run(server, "four"))
        assert len(upstream.requests) == 3


async def test_a_run_that_waits_too_long_for_its_session_is_told_to_come_back(
    tmp_path: Path, upstream: Upstream
) -> None:
    hold(upstream)
    async with serving(tmp_path / "data", upstream=upstream.url, lock_wait_s=0.05) as server:
        await start_run(server, "one", session_id="s1")
        error = await refused(server, "two", 409, session_id="s1")
        assert error["code"] == "conversation_locked"


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no input": ({"input": None}, "input"),
    "empty input": ({"input": ""}, "input"),
    "blank input": ({"input": "  "}, "input"),
    "no items": ({"input": []}, "input"),
    "a number": ({"input": 5}, "input"),
    "an item without content": ({"input": [{"role": "user"}]}, "input[0].content"),
    "an unknown item": ({"input": [{"type": "odd"}]}, "input[0].type"),
    "instructions": ({"instructions": 5}, "instructions"),
    "previous response": ({"previous_response_id": 5}, "previous_response_id"),
    "two names": ({"previous_response_id": "resp_x", "conversation": "c"}, "conversation"),
    "history": ({"conversation_history": "x"}, "conversation_history"),
    "an entry of the history": ({"conversation_history": [{"role": "user"}]}, "conversation_history[0].content"),
    "session": ({"session_id": 5}, "session_id"),
    "session path": ({"session_id": "../x"}, "session_id"),
    "long session": ({"session_id": "x" * 257}, "session_id"),
    "unprintable session": ({"session_id": "a\nb"}, "session_id"),
    "model": ({"model": 5}, "model"),
    "conversation": ({"conversation": 5}, "conversation"),
    "temperature": ({"temperature": 5}, "temperature"),
    "tools": ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    "store": ({"store": False}, "store"),
    "metadata": ({"metadata": {"a": 1}}, "metadata"),
}


@pytest.mark.parametrize(("body", "param"), BAD.values(), ids=BAD.keys())
async def test_a_bad_request_is_refused_by_the_name_of_what_is_wrong(
    server: Server, upstream: Upstream, body: dict[str, Any], param: str
) -> None:
    error = await refused(server, "hello", 400, **body)
    assert (error["param"] or "").startswith(param)
    assert not upstream.requests
    assert (await server.get("/api/sessions"))["data"] == []


async def test_two_sessions_in_one_request_are_refused(server: Server) -> None:
    error = await refused(server, "hello", 400, session_id="s2", headers=S1)
    assert (error["param"], error["code"]) == ("session_id", "session_mismatch")
    await server.chat("one", "s1")
    response = await server.openai.responses.create(model="m", input="elsewhere")
    error = await refused(server, "hello", 400, session_id="s1", previous_response_id=response.id)
    assert error["code"] == "session_mismatch"


async def test_an_unknown_response_to_go_on_from_is_refused(server: Server) -> None:
    error = await refused(server, "hello", 404, previous_response_id="resp_nobody")
    assert (error["param"], error["code"]) == ("previous_response_id", "previous_response_not_found")


async def test_without_keys_nobody_names_a_session(tmp_path: Path, upstream: Upstream) -> None:
    async with serving(tmp_path / "data", upstream=upstream.url, auth=False, api_key="") as server:
        assert (await refused(server, "hello", 403, session_id="s1"))["code"] == "session_requires_key"
        await events(server, await start_run(server, "hello"))


async def test_what_another_tenant_runs_is_as_unknown_as_what_nobody_runs(tmp_path: Path, upstream: Upstream) -> None:
    data = tmp_path / "data"
    data.mkdir()
    bravo = {"authorization": f"Bearer {keys.add(data, 'bravo', 'bravo')}"}
    hold(upstream)
    async with serving(data, upstream=upstream.url) as server:
        run_id = await start_run(server, "secret")

        async def is_unknown(method: str, path: str) -> None:
            async with server.http.request(method, path, headers=bravo) as response:
                error = (await response.json())["error"]
                assert (response.status, error["code"]) == (404, "run_not_found")
                assert "secret" not in str(error)

        for _ in ("at work", "ended"):
            await is_unknown("GET", f"/v1/runs/{run_id}")
            await is_unknown("GET", f"/v1/runs/{run_id}/events")
            await is_unknown("POST", f"/v1/runs/{run_id}/stop")
            upstream.gate.set()
            assert (await events(server, run_id))[-1].name == "run.completed"


async def test_a_turn_that_is_no_run_is_none(server: Server) -> None:
    response = await server.openai.responses.create(model="m", input="hello")
    await server.get("/v1/runs/" + response.id.replace("resp_", "run_"), 404)


async def test_a_run_is_no_response(server: Server) -> None:
    run_id = await start_run(server, "hello")
    await events(server, run_id)
    await server.get("/v1/responses/" + run_id.replace("run_", "resp_"), 404)


# Lineages


async def test_a_run_of_an_older_generation_is_still_there(tmp_path: Path, upstream: Upstream) -> None:
    serve = partial(serving, tmp_path / "data", upstream=upstream.url)
    async with serve() as server:
        run_id = await start_run(server, "one", session_id="s1")
        read = await frames(server, run_id)
        rotated = CompressionRotated(
            old_session_id="s1",
            session_id="s2",
            summary=b'{"role":"user","content":"sum"}',
            head=0,
            tail=0,
            trigger="manual",
            tokens_before=9,
            tokens_after=1,
            summariser="deterministic",
        )
        await _record(server, rotated)
        assert await frames(server, run_id) == read
    async with serve() as server:
        assert await frames(server, run_id, 0) == read
        assert (await server.get(f"/v1/runs/{run_id}"))["session_id"] == "s2"


async def test_a_run_goes_with_its_session(tmp_path: Path, upstream: Upstream) -> None:
    serve = partial(serving, tmp_path / "data", upstream=upstream.url)
    async with serve() as server:
        run_id = await start_run(server, "one", session_id="s1")
        await events(server, run_id)
        await _record(server, SessionDeleted())
        await server.get(f"/v1/runs/{run_id}", 404)
        await server.get(f"/v1/runs/{run_id}/events", 404)
    async with serve() as server:
        await server.get(f"/v1/runs/{run_id}", 404)


async def test_a_session_that_is_deleted_ends_its_run(server: Server, upstream: Upstream) -> None:
    hold(upstream)
    run_id = await start_run(server, "secret", session_id="s1")
    async with following(server, run_id) as follower:
        begun = await some(follower, 2)
        async with server.http.delete("/api/sessions/s1") as response:
            assert response.status == 200
        await server.get(f"/v1/runs/{run_id}", 404)
        upstream.gate.set()
        happened = parsed(begun + await follower.read())
    assert said(happened) == ["one", " two"]
    assert (happened[-1].name, happened[-1].payload["reason"]) == ("run.cancelled", "client")
    await events(server, await start_run(server, "anew", session_id="s1"))
    assert upstream.messages[-1] == [{"role": "user", "content": "anew"}]


async def _record(server: Server, event: CompressionRotated | SessionDeleted) -> None:
    """Have something happen to session s1 that other parts of the server see to."""
    assert server.app is not None
    lineages = server.app[LINEAGES]
    async with lineages.held(lineage_stream("default", "s1")) as session:
        await lineages.commit(session, lambda _: [event])
