"""Turns that come at the same time: one after the other on one session, at once on different ones."""

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import openai
import pytest

from eventstore import writer
from eventstore.events import ConversationCreated, SessionStarted, TurnCancelled, TurnCompleted
from eventstore.log import Recorded
from eventstore.sqlite import SqliteLog
from tests.support.server import KEY, Server, serving
from tests.support.upstream import Message, Reply, Upstream, says

WAIT_S = 20.0
both_apis = pytest.mark.parametrize("api", ["chat", "responses"])


def answer(body: dict[str, Any]) -> Reply:
    """An answer that tells which question it is to."""
    return says(f"re: {body['messages'][-1]['content']}")


async def recorded(data: Path) -> list[Recorded]:
    """Everything in the log, beside the running server."""
    log = await SqliteLog.open_read_only(data)
    try:
        return [event async for batch in log.read_all() for event in batch]
    finally:
        await log.close()


async def turn(server: Server, api: str, text: str, session_id: str, *, stream: bool = False) -> str:
    """One turn by the SDK, in a session: the text of the answer."""
    headers = {"X-Hermes-Session-Id": session_id}
    chat, responses = server.openai.chat.completions, server.openai.responses
    if api == "responses" and stream:
        async with responses.stream(model="m", input=text, extra_headers=headers) as events:
            return (await events.get_final_response()).output_text
    if api == "responses":
        return (await responses.create(model="m", input=text, extra_headers=headers)).output_text
    if stream:
        async with chat.stream(
            model="m", messages=[{"role": "user", "content": text}], extra_headers=headers
        ) as chunks:
            return (await chunks.get_final_completion()).choices[0].message.content or ""
    whole = await chat.create(model="m", messages=[{"role": "user", "content": text}], extra_headers=headers)
    return whole.choices[0].message.content or ""


def check_one_after_the_other(prompts: Sequence[Sequence[Message]], texts: set[str]) -> None:
    """Each prompt is the one before it, its answer, and one more question: all predecessors, strictly alternating."""
    assert [len(messages) for messages in prompts] == [2 * number + 1 for number in range(len(texts))]
    for messages in prompts:
        roles = [message["role"] for message in messages]
        assert roles == [("user", "assistant")[index % 2] for index in range(len(messages))]
        for question, reply in zip(messages[::2], messages[1::2], strict=False):
            assert reply["content"] == f"re: {question['content']}"
    for earlier, later in itertools.pairwise(prompts):
        assert later[: len(earlier)] == earlier
    assert {message["content"] for message in prompts[-1][::2]} == texts


async def test_sixteen_first_requests_for_one_slug_make_one_session(
    server: Server, upstream: Upstream, data: Path
) -> None:
    upstream.script = answer
    texts = {f"question {number}" for number in range(16)}

    async def first(text: str, slug: str) -> str:
        raw = await server.openai.responses.with_raw_response.create(model="m", input=text, conversation=slug)
        assert raw.parse().output_text == f"re: {text}"
        session_id: str = raw.headers["X-Hermes-Session-Id"]
        return session_id

    slugs = [f"slug {number}" for number in range(8)]  # more than one: whoever comes first does so by chance
    for slug in slugs:
        upstream.requests.clear()
        sessions = await asyncio.gather(*(first(text, slug) for text in texts), return_exceptions=True)
        assert [session for session in sessions if isinstance(session, BaseException)] == []
        assert len(set(sessions)) == 1
        check_one_after_the_other(upstream.messages, texts)
        assert len(await server.messages(str(sessions[0]))) == 32
    facts = [entry.event for entry in await recorded(data)]
    for kind, count in ((ConversationCreated, 8), (SessionStarted, 8), (TurnCompleted, 8 * 16)):
        assert sum(isinstance(fact, kind) for fact in facts) == count


@both_apis
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("is_new", [False, True], ids=["known session", "new session"])
async def test_six_turns_on_one_session_follow_each_other(
    server: Server, upstream: Upstream, api: str, stream: bool, is_new: bool
) -> None:
    upstream.script = answer
    texts = {f"question {number}" for number in range(6)}
    if not is_new:
        await turn(server, api, "before", "s1")
    answers = await asyncio.gather(*(turn(server, api, text, "s1", stream=stream) for text in texts))
    assert set(answers) == {f"re: {text}" for text in texts}
    check_one_after_the_other(upstream.messages, texts if is_new else texts | {"before"})


async def test_turns_by_different_names_of_one_session_follow_each_other(server: Server, upstream: Upstream) -> None:
    upstream.script = answer
    await server.openai.responses.create(
        model="m", input="before", conversation="slug", extra_headers={"X-Hermes-Session-Id": "s1"}
    )
    by_slug = (f"slug {number}" for number in range(4))
    by_header = (f"header {number}" for number in range(4))
    await asyncio.gather(
        *(server.openai.responses.create(model="m", input=text, conversation="slug") for text in by_slug),
        *(turn(server, "chat", text, "s1") for text in by_header),
    )
    names = {f"{name} {number}" for name in ("slug", "header") for number in range(4)}
    check_one_after_the_other(upstream.messages, {"before"} | names)


async def test_two_children_of_one_response_at_once_do_not_see_each_other(server: Server, upstream: Upstream) -> None:
    upstream.script = answer
    parent = await server.openai.responses.create(
        model="m", input="parent", extra_headers={"X-Hermes-Session-Id": "s1"}
    )

    async def child(text: str) -> str:
        raw = await server.openai.responses.with_raw_response.create(
            model="m", input=text, previous_response_id=parent.id
        )
        session_id: str = raw.headers["X-Hermes-Session-Id"]
        return session_id

    sessions = await asyncio.gather(child("left"), child("right"))
    for messages in upstream.messages[1:]:
        assert [message["content"] for message in messages[:-1]] == ["parent", "re: parent"]
    # One of them goes on in the session, the other in a fork of it.
    assert "s1" in sessions
    assert len(set(sessions)) == 2
    fork = next(session_id for session_id in sessions if session_id != "s1")
    assert (await server.get(f"/api/sessions/{fork}"))["session"]["parent_session_id"] == "s1"


@both_apis
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_turn_that_waits_too_long_is_told_to_come_again(
    data: Path, upstream: Upstream, api: str, stream: bool
) -> None:
    upstream.script = answer
    async with serving(data, upstream=upstream.url, lock_wait_s=0.2) as server:
        upstream.gate.clear()
        slow = asyncio.create_task(turn(server, api, "slow", "s1"))
        await upstream.wait_for_requests(1)
        with pytest.raises(openai.ConflictError) as refused:
            await turn(server, api, "impatient", "s1", stream=stream)
        assert (refused.value.code, refused.value.type) == ("conversation_locked", "invalid_request_error")
        assert float(refused.value.response.headers["retry-after"]) > 0
        assert refused.value.response.headers.get("x-should-retry", "true") == "true"
        upstream.gate.set()
        assert await slow == "re: slow"
        assert await turn(server, api, "impatient", "s1", stream=stream) == "re: impatient"
    check_one_after_the_other(upstream.messages, {"slow", "impatient"})


@both_apis
async def test_a_stream_that_waits_too_long_is_refused_properly_whatever_its_keep_alive(
    data: Path, upstream: Upstream, api: str
) -> None:
    """Once a comment has begun a stream, a refusal can not be an answer of its own any more."""
    upstream.script = answer
    async with serving(data, upstream=upstream.url, lock_wait_s=0.3, keepalive_s=0.05) as server:
        upstream.gate.clear()
        slow = asyncio.create_task(turn(server, api, "slow", "s1"))
        await upstream.wait_for_requests(1)
        told = await _refusal(server, api)
        upstream.gate.set()
        await slow
        # The connection is as good as before.
        assert await turn(server, api, "next", "s1", stream=True) == "re: next"
    assert told == "conversation_locked"
    check_one_after_the_other(upstream.messages, {"slow", "next"})


async def _refusal(server: Server, api: str) -> str | None:
    """The code that a stream ends with: an error that the SDK raises, or a response that failed."""
    headers = {"X-Hermes-Session-Id": "s1"}
    events: Any
    try:
        if api == "chat":
            events = await server.openai.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "late"}], extra_headers=headers, stream=True
            )
        else:
            events = await server.openai.responses.create(model="m", input="late", extra_headers=headers, stream=True)
        async for event in events:
            if getattr(event, "type", "") == "response.failed":
                return str(event.response.error.message).rpartition("(")[2].removesuffix(")")
    except openai.APIError as error:
        return error.code
    return None


async def test_an_sdk_that_retries_gets_through_a_locked_session(data: Path, upstream: Upstream) -> None:
    upstream.script = answer
    async with serving(data, upstream=upstream.url, lock_wait_s=0.2) as server:
        upstream.gate.clear()
        slow = asyncio.create_task(turn(server, "chat", "slow", "s1"))
        await upstream.wait_for_requests(1)
        refusals = 0

        async def count(response: Any) -> None:
            nonlocal refusals
            if response.status_code == 409:
                refusals += 1
                upstream.gate.set()

        client = openai.DefaultAsyncHttpxClient(event_hooks={"response": [count]})
        async with server.openai.with_options(max_retries=3, http_client=client) as patient:
            completion = await patient.chat.completions.create(
                model="m",
                messages=[{"role": "user", "content": "patient"}],
                extra_headers={"X-Hermes-Session-Id": "s1"},
            )
        assert completion.choices[0].message.content == "re: patient"
        assert refusals == 1
        await slow
    check_one_after_the_other(upstream.messages, {"slow", "patient"})


@both_apis
async def test_turns_on_different_sessions_overlap(server: Server, upstream: Upstream, api: str) -> None:
    upstream.script = answer
    upstream.gate.clear()
    async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as group:
        turns = [group.create_task(turn(server, api, f"question {number}", f"s{number}")) for number in range(8)]
        await upstream.wait_for_requests(8)
        upstream.gate.set()
    assert [task.result() for task in turns] == [f"re: question {number}" for number in range(8)]
    assert all(len(messages) == 1 for messages in upstream.messages)


async def test_of_many_that_wait_each_is_answered_or_told_to_come_again(data: Path, upstream: Upstream) -> None:
    upstream.script = answer
    async with serving(data, upstream=upstream.url, lock_wait_s=0.05) as server:

        async def status(text: str) -> int:
            body = {"model": "m", "messages": [{"role": "user", "content": text}]}
            headers = {"X-Hermes-Session-Id": "s1"}
            async with server.http.post("/v1/chat/completions", json=body, headers=headers) as response:
                return response.status

        for round_ in range(5):
            texts = [f"round {round_} question {number}" for number in range(240)]
            statuses = await asyncio.gather(*map(status, texts))
            assert set(statuses) <= {200, 409}
        upstream.requests.clear()
        assert await turn(server, "chat", "last", "s1") == "re: last"
    (messages,) = upstream.messages
    assert len(messages) % 2 == 1


async def sent(server: Server, text: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A turn of session s1 that the server has had in front of it for a while: its connection."""
    url = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    body = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": text}]})
    headers = f"Host: {url.netloc}\r\nAuthorization: Bearer {KEY}\r\nX-Hermes-Session-Id: s1\r\nConnection: close\r\n"
    head = f"POST /v1/chat/completions HTTP/1.1\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    await writer.drain()
    await settled(server)
    return reader, writer


async def settled(server: Server) -> None:
    """Return once the server has seen whatever was sent before: it has one event loop, and answers others meanwhile."""
    for _ in range(20):
        await server.get("/health")


async def test_a_waiting_client_that_hangs_up_does_not_block_those_behind_it(
    server: Server, upstream: Upstream
) -> None:
    upstream.script = answer
    upstream.gate.clear()
    async with asyncio.timeout(WAIT_S):
        slow = asyncio.create_task(turn(server, "chat", "slow", "s1"))
        await upstream.wait_for_requests(1)
        _, impatient = await sent(server, "impatient")
        reader, patient = await sent(server, "patient")
        impatient.close()
        await impatient.wait_closed()
        await settled(server)
        upstream.gate.set()
        assert await slow == "re: slow"
        assert b"re: patient" in await reader.read()
        patient.close()
        assert await turn(server, "chat", "last", "s1") == "re: last"
        messages = await server.messages("s1")
    check_one_after_the_other(upstream.messages, {"slow", "patient", "last"})
    assert "impatient" not in [message["content"] for message in messages]


async def test_turns_are_served_in_the_order_they_came_in(server: Server, upstream: Upstream) -> None:
    upstream.script = answer
    upstream.gate.clear()
    async with asyncio.timeout(WAIT_S):
        slow = asyncio.create_task(turn(server, "chat", "0", "s1"))
        await upstream.wait_for_requests(1)
        clients = [await sent(server, str(number)) for number in range(1, 6)]
        upstream.gate.set()
        await slow
        for number, (reader, writer) in enumerate(clients, 1):
            assert f"re: {number}".encode() in await reader.read()
            writer.close()
    assert [message["content"] for message in upstream.messages[-1][::2]] == [str(number) for number in range(6)]


@both_apis
async def test_a_running_client_that_hangs_up_frees_the_session(data: Path, upstream: Upstream, api: str) -> None:
    upstream.script = answer
    upstream.stream_gate_after = 2
    bodies: dict[str, tuple[str, dict[str, Any]]] = {
        "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "abandoned"}]}),
        "responses": ("/v1/responses", {"input": "abandoned"}),
    }
    path, body = bodies[api]
    async with serving(data, upstream=upstream.url) as server, asyncio.timeout(WAIT_S):
        upstream.gate.clear()
        abandoned = await server.http.post(
            path, json={"model": "m", "stream": True} | body, headers={"X-Hermes-Session-Id": "s1"}
        )
        await upstream.wait_for_pieces(2)
        received = b""
        while b'"re:' not in received:
            received += await abandoned.content.readline()
        next_ = asyncio.create_task(turn(server, api, "next", "s1"))
        abandoned.close()
        upstream.stream_gate_after = None
        upstream.gate.set()
        assert await next_ == "re: next"
        messages = await server.messages("s1")
    assert upstream.messages[-1] == [{"role": "user", "content": "next"}]
    assert [(message["content"], message["status"]) for message in messages] == [
        ("abandoned", "cancelled"),
        ("re:", "cancelled"),
        ("next", "completed"),
        ("re: next", "completed"),
    ]
    reasons = [entry.event.reason for entry in await recorded(data) if isinstance(entry.event, TurnCancelled)]
    assert reasons == ["disconnect"]


async def test_a_disk_that_does_not_keep_up_is_503_and_come_again(
    server: Server, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as slow:
        slow.setattr(writer, "QUEUE_ROWS_MAX", 0)
        slow.setattr(writer, "WAIT_S", 0.01)
        body = {"model": "m", "messages": [{"role": "user", "content": "one"}]}
        async with server.http.post("/v1/chat/completions", json=body) as answer:
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            assert (await answer.json())["error"]["code"] == "overloaded"
    await server.chat("two", "s1")
    assert [message["content"] for message in upstream.messages[0]] == ["two"]
