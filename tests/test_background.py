"""Responses in the background over HTTP, with the official SDK: told at once, followed, cancelled, deleted."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest

from api import keys
from eventstore.events import TurnCancelled, TurnCompleted, TurnDequeued, TurnQueued, TurnStarted
from tests.support.background import (
    DONE,
    PIECES,
    S1,
    TEXT,
    Event,
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
from tests.support.runs import start_run
from tests.support.server import Server, serving
from tests.support.upstream import Reply, Upstream, calls, refuses, says
from tests.test_crash import recorded
from tests.test_degraded import out_of_reach

WAIT_S = 30.0
BEGINNING = ["created", "queued", "in_progress", "output_item.added", "content_part.added"]
END = ["output_text.done", "content_part.done", "output_item.done"]


async def refused(request: Any, status: int) -> dict[str, Any]:
    """Send a request of the SDK that is refused; the error."""
    with pytest.raises(openai.APIStatusError) as raised:
        await request
    assert raised.value.status_code == status
    assert isinstance(raised.value.body, dict)
    assert raised.value.body.keys() == {"message", "type", "param", "code"}
    return raised.value.body


# Asked for, and looked at


async def test_a_response_in_the_background_is_told_at_once_and_answered_later(
    server: Server, upstream: Upstream
) -> None:
    hold(upstream)
    begun = await ask(server, metadata={"a": "b"}, instructions="brief")
    assert (begun.status, begun.background, begun.output, begun.completed_at) == ("in_progress", True, [], None)
    assert await server.openai.responses.retrieve(begun.id) == begun
    upstream.gate.set()
    done = await ended(server, begun.id)
    assert (done.status, done.background, done.output_text) == ("completed", True, TEXT)
    assert (done.metadata, done.instructions, done.created_at) == ({"a": "b"}, "brief", begun.created_at)
    assert done.completed_at is not None
    assert done.usage is not None
    [request] = upstream.requests
    assert [message["content"] for message in request["messages"]] == ["brief", "hello"]


async def test_the_client_that_asked_may_hang_up(server: Server, upstream: Upstream) -> None:
    hold(upstream)
    client = Server(server.url)
    asked = await ask(client)
    await client.close()
    upstream.gate.set()
    assert (await ended(server, asked.id)).output_text == TEXT


async def test_it_goes_on_in_the_session_the_conversation_and_behind_the_response_that_are_named(
    server: Server, upstream: Upstream
) -> None:
    async with server.http.post(
        "/v1/responses", json={"model": "m", "input": "one", "background": True}, headers=S1
    ) as reply:
        assert reply.headers["X-Hermes-Session-Id"] == "s1"
        first = (await reply.json())["id"]
    await ended(server, first)
    second = await server.openai.responses.create(model="m", input="two", previous_response_id=first)
    third = await ended(server, (await ask(server, "three", previous_response_id=second.id)).id)
    assert third.previous_response_id == second.id
    contents = [message["content"] for message in upstream.messages[-1]]
    assert contents == ["one", "1: one", "two", "3: two", "three"]
    slug = await ended(server, (await ask(server, "four", conversation="trip")).id)
    assert slug.conversation is not None
    assert slug.conversation.id == "trip"
    await ended(server, (await ask(server, "five", conversation="trip")).id)
    assert [message["content"] for message in upstream.messages[-1]] == ["four", "1: four", "five"]


async def test_a_tool_call_is_an_item_of_it_and_the_next_answers_it(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: calls("look", '{"at":"rome"}')
    tools = [{"type": "function", "name": "look", "parameters": {}}]
    called = await ended(server, (await ask(server, "look!", tools=tools)).id)
    [call] = called.output
    assert call.type == "function_call"
    upstream.script = lambda _: says("sunny")
    result = [{"type": "function_call_output", "call_id": call.call_id, "output": "sun"}]
    done = await ended(server, (await ask(server, result, previous_response_id=called.id)).id)  # type: ignore[arg-type]
    assert done.output_text == "sunny"


async def test_a_response_that_fails_says_why(tmp_path: Path, upstream: Upstream) -> None:
    serve = partial(serving, tmp_path / "data", upstream=upstream.url)
    upstream.script = lambda _: refuses(400, "too long", code="context_length_exceeded")
    async with serve() as server:
        failed = await ended(server, (await ask(server, extra_headers=S1)).id)
        async with asking(server) as response:
            live = await response.read()
        assert kinds(parsed(live)) == ["created", "queued", "in_progress", "failed"]
        streamed = parsed(live)[-1]["response"]
        upstream.script = lambda _: says("ok")
        await ended(server, (await ask(server, "again", extra_headers=S1)).id)
    assert (failed.status, failed.output) == ("failed", [])
    for error in (failed.error.model_dump() if failed.error else {}, streamed["error"]):
        assert (error["code"], error["message"]) == ("context_length_exceeded", "too long")
    assert upstream.messages[-1] == [{"role": "user", "content": "again"}]
    async with serve() as server:
        assert await frames(server, streamed["id"]) == live


async def test_a_run_is_no_response_in_the_background_and_such_a_response_is_no_run(
    server: Server, upstream: Upstream
) -> None:
    hold(upstream)
    response_id, run_id = (await ask(server)).id, await start_run(server, "hello")
    for _ in ("at work", "ended"):
        as_run = response_id.replace("resp_", "run_")
        await server.get(f"/v1/runs/{as_run}", 404)
        await server.get(f"/v1/runs/{as_run}/events", 404)
        async with server.http.post(f"/v1/runs/{as_run}/stop") as reply:
            assert reply.status == 404
        as_response = run_id.replace("run_", "resp_")
        await server.get(f"/v1/responses/{as_response}", 404)
        await refused(server.openai.responses.cancel(as_response), 404)
        upstream.gate.set()
        await ended(server, response_id)


async def test_what_is_stored_of_it(tmp_path: Path, upstream: Upstream) -> None:
    async with serving(tmp_path / "data", upstream=upstream.url) as server:
        asked = await ask(server)
        await ended(server, asked.id)
    [_, began, done] = [entry.event for entry in await recorded(tmp_path / "data")]
    assert isinstance(began, TurnStarted)
    assert ("resp_" + began.turn_id, began.api, began.background, began.stream) == (asked.id, "responses", True, False)
    assert b"background" not in began.parameters
    assert isinstance(done, TurnCompleted)


# Streams


async def test_its_stream_is_read_live_again_from_any_event_and_after_a_restart(
    tmp_path: Path, upstream: Upstream
) -> None:
    serve = partial(serving, tmp_path / "data", upstream=upstream.url)
    hold(upstream)
    async with serve() as server:
        async with asking(server, headers=S1) as first:
            assert first.headers["X-Hermes-Session-Id"] == "s1"
            begun = await some(first, 7)
            response_id = parsed(begun)[0]["response"]["id"]
            async with following(server, response_id) as second, following(server, response_id, 5) as third:
                assert await some(second, 7) == begun
                assert await some(third, 1) == behind(begun, 5)
                upstream.gate.set()
                live = begun + await first.read()
                assert begun + await second.read() == live
                assert behind(begun, 5) + await third.read() == behind(live, 5)
        happened = parsed(live)
        assert kinds(happened) == [*BEGINNING, *["output_text.delta"] * 4, *END, "completed"]
        assert numbers(happened) == list(range(13))
        assert [event["response"]["status"] for event in happened[:3]] == ["queued", "queued", "in_progress"]
        assert said(happened) == PIECES
        assert live.endswith(DONE)
        whole = await server.get(f"/v1/responses/{response_id}")
        assert happened[-1]["response"] == whole
    async with serve() as server:
        assert await frames(server, response_id) == live
        for after in range(14):
            assert await frames(server, response_id, after) == behind(live, after)
        assert await frames(server, response_id, 99) == DONE


async def test_the_sdk_streams_it_again(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: says(TEXT)
    stream = await server.openai.responses.create(model="m", input="hello", background=True, stream=True)
    live = [event async for event in stream]
    response_id = live[0].response.id  # type: ignore[union-attr]
    async for again in await server.openai.responses.retrieve(response_id, stream=True):
        assert again == live.pop(0)
    assert not live
    rest = [event async for event in await server.openai.responses.retrieve(response_id, stream=True, starting_after=7)]
    assert [event.sequence_number for event in rest] == [8, 9, 10, 11, 12]
    async with server.openai.responses.stream(response_id=response_id, starting_after=7) as helper:
        assert [event.sequence_number async for event in helper] == [8, 9, 10, 11, 12]
        assert (await helper.get_final_response()).output_text == TEXT


async def test_a_client_that_hangs_up_its_stream_does_not_stop_the_work(server: Server, upstream: Upstream) -> None:
    hold(upstream)
    async with asking(server) as response:
        begun = parsed(await some(response, 6))
    upstream.gate.set()
    done = await ended(server, begun[0]["response"]["id"])
    assert (done.status, done.output_text) == ("completed", TEXT)


async def test_only_what_was_streamed_in_the_background_can_be_streamed_again(
    server: Server, upstream: Upstream
) -> None:
    hold(upstream)
    asked = await ask(server)
    upstream.gate.set()
    foreground = await server.openai.responses.create(model="m", input="hello")
    stream = await server.openai.responses.create(model="m", input="hello", stream=True)
    [streamed, *_] = [event.response.id async for event in stream if event.type == "response.created"]
    for response_id in (asked.id, foreground.id, streamed):
        error = await refused(server.openai.responses.retrieve(response_id, stream=True), 400)
        assert (error["param"], error["type"]) == ("stream", "invalid_request_error")


@pytest.mark.parametrize(
    ("query", "param"),
    [
        *(({"stream": "true", "starting_after": after}, "starting_after") for after in ("x", "-1", "1.5", "", "²")),
        ({"stream": "true", "starting_after": "9" * 30}, "starting_after"),
        ({"stream": "maybe"}, "stream"),
    ],
)
async def test_a_query_that_means_nothing_is_refused(server: Server, query: dict[str, str], param: str) -> None:
    async with server.http.get(f"/v1/responses/{(await ask(server)).id}", params=query) as response:
        error = (await response.json())["error"]
        assert (response.status, error["param"], error["type"]) == (400, param, "invalid_request_error")


# Queued


async def queued_behind(server: Server, upstream: Upstream) -> tuple[str, str]:
    """A response that is being made in session s1, and one that waits for it."""
    hold(upstream)
    first = await ask(server, "first", extra_headers=S1)
    second = await ask(server, "second", extra_headers=S1, metadata={"a": "b"})
    assert (first.status, second.status, second.background) == ("in_progress", "queued", True)
    assert await server.openai.responses.retrieve(second.id) == second
    return first.id, second.id


async def test_one_whose_session_is_busy_is_queued_until_its_turn_has_come(tmp_path: Path, upstream: Upstream) -> None:
    async with serving(tmp_path / "data", upstream=upstream.url, lock_wait_s=0.6) as server:
        first, second = await queued_behind(server, upstream)
        third = await ask(server, "third", extra_headers=S1)  # by now, others have waited for longer than may be
        upstream.gate.set()
        for response_id in (first, second, third.id):
            assert (await ended(server, response_id)).output_text == TEXT
        asked = [message["content"] for message in await server.messages("s1") if message["role"] == "user"]
        assert asked == ["first", "second", "third"]
        done = await server.openai.responses.retrieve(second)
        assert (done.id, done.metadata) == (second, {"a": "b"})


async def test_the_stream_of_a_queued_one_begins_at_once_and_is_the_same_later(
    server: Server, upstream: Upstream
) -> None:
    hold(upstream)
    await ask(server, "first", extra_headers=S1)
    async with asking(server, "second", headers=S1, conversation="trip") as live:
        begun = await some(live, 2)
        assert kinds(parsed(begun)) == ["created", "queued"]
        response_id = parsed(begun)[0]["response"]["id"]
        assert (await server.get(f"/v1/responses/{response_id}"))["status"] == "queued"
        async with following(server, response_id, 0) as reader:
            read = await some(reader, 1)
            upstream.gate.set()
            read += await reader.read()
        begun += await live.read()
    assert read == behind(begun, 0)
    assert await frames(server, response_id) == begun
    assert kinds(parsed(begun))[-1] == "completed"


async def test_a_queued_one_can_be_cancelled_and_leaves_no_turn(server: Server, upstream: Upstream) -> None:
    first, second = await queued_behind(server, upstream)
    error = await refused(server.openai.responses.delete(second), 400)
    assert error["code"] == "response_in_progress"
    async with asking(server, "third", headers=S1) as response:
        begun = await some(response, 2)
        third = parsed(begun)[0]["response"]["id"]
        for response_id in (second, third):
            cancelled = await server.openai.responses.cancel(response_id)
            assert (cancelled.status, cancelled.completed_at, cancelled.output) == ("cancelled", None, [])
            assert await server.openai.responses.cancel(response_id) == cancelled
            assert await server.openai.responses.retrieve(response_id) == cancelled
        happened = parsed(begun + await response.read())
    assert kinds(happened) == ["created", "queued", "incomplete"]
    assert happened[-1]["response"]["status"] == "cancelled"
    assert parsed(await frames(server, third)) == happened
    upstream.gate.set()
    await ended(server, first)
    await ended(server, (await ask(server, "fourth", extra_headers=S1)).id)
    assert [message["content"] for message in await server.messages("s1")] == ["first", TEXT, "fourth", TEXT]
    assert (await server.openai.responses.retrieve(second)).status == "cancelled"
    await server.openai.responses.delete(second)
    await refused(server.openai.responses.retrieve(second), 404)
    await refused(server.openai.responses.delete(second), 404)


async def test_many_for_one_session_come_one_after_another(tmp_path: Path, upstream: Upstream) -> None:
    async with serving(tmp_path / "data", upstream=upstream.url) as server:
        hold(upstream)
        asked = await asyncio.gather(*(ask(server, f"{number}", extra_headers=S1) for number in range(20)))
        assert sorted(response.status or "" for response in asked) == ["in_progress"] + ["queued"] * 19
        upstream.gate.set()
        for response in asked:
            done = await ended(server, response.id)
            assert done.output_text == TEXT
            await server.openai.responses.delete(done.id)
        roles = [message["role"] for message in await server.messages("s1")]
        assert roles == ["user", "assistant"] * 20
    facts = [type(entry.event) for entry in await recorded(tmp_path / "data")]
    assert facts.count(TurnQueued) == facts.count(TurnDequeued) == 19


async def test_one_that_can_not_be_put_in_the_log_is_not_queued(data: Path, server: Server, upstream: Upstream) -> None:
    hold(upstream)
    first = await ask(server, "first", extra_headers=S1)
    with out_of_reach(data):
        error = await refused(ask(server, "second", extra_headers=S1), 503)
    assert error["code"] == "log_unavailable"
    upstream.gate.set()
    await ended(server, first.id)
    await ended(server, (await ask(server, "third", extra_headers=S1)).id)
    assert [message["content"] for message in await server.messages("s1")] == ["first", TEXT, "third", TEXT]


async def test_a_queued_one_whose_session_is_deleted_begins_it_anew(server: Server, upstream: Upstream) -> None:
    first, second = await queued_behind(server, upstream)
    async with server.http.delete("/api/sessions/s1") as response:
        assert response.status == 200
    upstream.gate.set()
    assert (await ended(server, second)).status == "completed"
    await refused(server.openai.responses.retrieve(first), 404)
    assert upstream.messages[-1] == [{"role": "user", "content": "second"}]


async def test_a_queued_one_that_can_not_begin_fails_and_says_why(server: Server, upstream: Upstream) -> None:
    before = await server.openai.responses.create(model="m", input="before", extra_headers=S1)
    hold(upstream)
    first = await ask(server, "first", extra_headers=S1)
    child = await ask(server, "second", previous_response_id=before.id)
    async with asking(server, "third", previous_response_id=before.id) as response:
        begun = await some(response, 2)
        await server.openai.responses.delete(before.id)
        upstream.gate.set()
        happened = parsed(begun + await response.read())
    assert child.status == "queued"
    failed = await ended(server, child.id)
    assert failed.status == "failed"
    assert failed.error is not None
    assert before.id in failed.error.message
    assert kinds(happened) == ["created", "queued", "failed"]
    assert happened[-1]["response"]["error"]["code"] == "server_error"
    assert (await ended(server, first.id)).status == "completed"


async def test_one_that_hangs_up_before_it_is_told_leaves_nothing_behind(server: Server, upstream: Upstream) -> None:
    hold(upstream)
    first = await ask(server, "first", extra_headers=S1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await ask(server, "never", extra_headers=S1)
    upstream.gate.set()
    await ended(server, first.id)
    await ended(server, (await ask(server, "second", extra_headers=S1)).id)
    assert [message["content"] for message in await server.messages("s1")] == ["first", TEXT, "second", TEXT]


# Cancelled


async def test_a_cancelled_response_keeps_what_was_said_out_of_later_prompts(
    tmp_path: Path, upstream: Upstream
) -> None:
    serve = partial(serving, tmp_path / "data", upstream=upstream.url)
    hold(upstream)
    async with serve() as server:
        async with asking(server, headers=S1) as response:
            begun = await some(response, 7)
            response_id = parsed(begun)[0]["response"]["id"]
            cancelled = await server.openai.responses.cancel(response_id)
            assert (cancelled.status, cancelled.completed_at, cancelled.error) == ("cancelled", None, None)
            assert cancelled.output_text == "one two"
            live = begun + await response.read()
        happened = parsed(live)
        assert kinds(happened) == [*BEGINNING, *["output_text.delta"] * 2, *END, "incomplete"]
        assert happened[-1]["response"] == await server.get(f"/v1/responses/{response_id}")
        upstream.gate.set()  # what the model says now changes nothing
        assert await server.openai.responses.cancel(response_id) == cancelled
        await ended(server, (await ask(server, "again", extra_headers=S1)).id)
        assert upstream.messages[-1] == [{"role": "user", "content": "again"}]
        assert await server.openai.responses.retrieve(response_id) == cancelled
    async with serve() as server:
        assert await frames(server, response_id) == live
        assert await server.openai.responses.cancel(response_id) == cancelled


async def test_one_that_has_ended_stays_as_it_ended(server: Server, upstream: Upstream) -> None:
    done = await ended(server, (await ask(server)).id)
    assert await server.openai.responses.cancel(done.id) == done
    upstream.script = lambda _: refuses(400, "no")
    failed = await ended(server, (await ask(server)).id)
    assert await server.openai.responses.cancel(failed.id) == failed


async def test_a_synchronous_response_can_not_be_cancelled(server: Server) -> None:
    response = await server.openai.responses.create(model="m", input="hello")
    error = await refused(server.openai.responses.cancel(response.id), 400)
    assert error["message"] == "Cannot cancel a synchronous response."
    assert (error["type"], error["code"]) == ("invalid_request_error", "response_not_in_background")


async def test_many_cancels_and_a_late_answer_agree_on_one_end(tmp_path: Path, upstream: Upstream) -> None:
    hold(upstream)
    async with serving(tmp_path / "data", upstream=upstream.url) as server:
        asked = [(await ask(server)).id for _ in range(20)]
        await upstream.wait_for_requests(20)
        upstream.gate.set()
        cancels = (server.openai.responses.cancel(response_id) for response_id in asked for _ in range(3))
        answers = await asyncio.gather(*cancels)
        for answer in answers:
            assert answer.status in ("completed", "cancelled")
            assert await server.openai.responses.retrieve(answer.id) == answer
    facts = [entry.event for entry in await recorded(tmp_path / "data")]
    assert sum(isinstance(fact, TurnCancelled | TurnCompleted) for fact in facts) == 20


# Deleted


async def test_one_in_progress_can_not_be_deleted_and_a_deleted_one_is_gone(server: Server, upstream: Upstream) -> None:
    hold(upstream)
    async with asking(server) as response:
        response_id = parsed(await some(response, 1))[0]["response"]["id"]
        error = await refused(server.openai.responses.delete(response_id), 400)
        assert error["code"] == "response_in_progress"
        upstream.gate.set()
        await response.read()
    await server.openai.responses.delete(response_id)
    responses = server.openai.responses
    await refused(responses.retrieve(response_id), 404)
    await refused(responses.retrieve(response_id, stream=True), 404)
    await refused(responses.cancel(response_id), 404)
    await refused(responses.delete(response_id), 404)


async def test_a_cancelled_one_can_be_deleted(server: Server, upstream: Upstream) -> None:
    hold(upstream)
    asked = await ask(server)
    await server.openai.responses.cancel(asked.id)
    await server.openai.responses.delete(asked.id)
    await refused(server.openai.responses.cancel(asked.id), 404)


async def test_an_unknown_one_is_404(server: Server) -> None:
    for unknown in ("resp_nobody", "nobody", "run_x"):
        error = await refused(server.openai.responses.cancel(unknown), 404)
        assert (error["param"], error["code"]) == ("response_id", "response_not_found")


async def test_what_another_tenant_makes_is_as_unknown_as_what_nobody_makes(tmp_path: Path, upstream: Upstream) -> None:
    data = tmp_path / "data"
    data.mkdir()
    bravo = {"authorization": f"Bearer {keys.add(data, 'bravo', 'bravo')}"}
    async with serving(data, upstream=upstream.url) as server:
        first, second = await queued_behind(server, upstream)
        for response_id in (first, second):
            for method, path in (("GET", ""), ("GET", "?stream=true"), ("POST", "/cancel"), ("DELETE", "")):
                async with server.http.request(method, f"/v1/responses/{response_id}{path}", headers=bravo) as reply:
                    assert (reply.status, (await reply.json())["error"]["code"]) == (404, "response_not_found")
            body = {"model": "m", "input": "x", "previous_response_id": response_id}
            async with server.http.post("/v1/responses", json=body, headers=bravo) as reply:
                assert (reply.status, (await reply.json())["error"]["code"]) == (404, "previous_response_not_found")
        upstream.gate.set()
        await ended(server, second)


# What is asked together


async def test_a_response_goes_on_only_from_what_is_over(server: Server, upstream: Upstream) -> None:
    first, second = await queued_behind(server, upstream)
    for previous in (first, second):
        for more in ({}, {"stream": True}, {"background": True}, {"store": False}):
            create: Any = server.openai.responses.create
            error = await refused(create(model="m", input="x", previous_response_id=previous, **more), 400)
            assert (error["param"], error["code"]) == ("previous_response_id", "previous_response_in_progress")
        async with server.http.post("/v1/runs", json={"input": "x", "previous_response_id": previous}) as reply:
            assert reply.status == 400
    upstream.gate.set()
    await ended(server, second)
    child = await server.openai.responses.create(model="m", input="x", previous_response_id=second)
    assert child.output_text == TEXT


async def test_it_is_stored_or_not_at_all(server: Server) -> None:
    error = await refused(ask(server, store=False), 400)
    assert (error["param"], error["type"]) == ("background", "invalid_request_error")


async def test_it_shares_the_limit_with_runs(tmp_path: Path, upstream: Upstream) -> None:
    hold(upstream)
    async with serving(tmp_path / "data", upstream=upstream.url, runs_max=2) as server:
        await start_run(server, "one")
        second = await ask(server)
        body = {"model": "m", "input": "x", "background": True}
        for path in ("/v1/responses", "/v1/runs"):
            async with server.http.post(path, json=body) as response:
                assert (response.status, response.headers["retry-after"]) == (429, "1")
                assert (await response.json())["error"]["code"] == "rate_limit_exceeded"
        await server.openai.responses.cancel(second.id)
        upstream.gate.set()
        assert (await ended(server, (await ask(server)).id)).status == "completed"


async def test_an_idempotency_key_makes_one_response(tmp_path: Path, upstream: Upstream) -> None:
    async def post(server: Server, said: str = "hello") -> tuple[int, str, str | None]:
        body = {"model": "m", "input": said, "background": True}
        async with server.http.post("/v1/responses", json=body, headers=S1 | {"Idempotency-Key": "k"}) as reply:
            return reply.status, (await reply.json()).get("id", ""), reply.headers.get("Idempotency-Replayed")

    serve = partial(serving, tmp_path / "data", upstream=upstream.url)
    hold(upstream)
    async with serve() as server:
        status, response_id, replayed = await post(server)
        assert (status, replayed) == (200, None)
        assert await post(server) == (200, response_id, "true")
        upstream.gate.set()
        await ended(server, response_id)
        assert await post(server) == (200, response_id, "true")
        assert (await post(server, "another"))[0] == 409
    async with serve() as server:
        assert await post(server) == (200, response_id, "true")
    assert len(upstream.requests) == 1


async def test_an_idempotency_key_of_a_queued_one_is_known(server: Server, upstream: Upstream) -> None:
    hold(upstream)
    await ask(server, "first", extra_headers=S1)
    asked = [ask(server, "second", extra_headers=S1 | {"Idempotency-Key": "k"}) for _ in range(3)]
    [response_id] = {response.id for response in await asyncio.gather(*asked)}
    other = ask(server, "another", extra_headers=S1 | {"Idempotency-Key": "k"})
    assert (await refused(other, 409))["code"] == "idempotency_key_conflict"
    upstream.gate.set()
    assert (await ended(server, response_id)).output_text == TEXT
    again = await ask(server, "second", extra_headers=S1 | {"Idempotency-Key": "k"})
    assert (again.id, again.status) == (response_id, "completed")
    assert len(upstream.requests) == 2


async def test_thoughts_and_refusals_are_streamed_again_as_they_were_streamed(
    tmp_path: Path, upstream: Upstream
) -> None:
    pieces: list[Event] = [
        {"reasoning_content": "hm"},
        {"reasoning_content": "m"},
        {"content": "sun"},
        {"content": "ny"},
    ]
    upstream.script = lambda _: Reply(pieces=pieces)
    serve = partial(serving, tmp_path / "data", upstream=upstream.url)
    async with serve() as server, asking(server) as response:
        live = parsed(await response.read())
    async with serve() as server:
        again = parsed(await frames(server, live[0]["response"]["id"]))
    assert (said(again), kinds(again)[-1]) == (said(live), "completed")


async def test_the_capabilities_say_so(server: Server) -> None:
    told = await server.get("/v1/capabilities")
    assert told["features"]["background_responses"] is True
    assert told["endpoints"]["response_cancel"] == {"method": "POST", "path": "/v1/responses/{response_id}/cancel"}
