"""Real processes, stopped the hard way: whatever was acknowledged is there afterwards, and nothing else gets in."""

import asyncio
import contextlib
import itertools
import random
import signal
import subprocess
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import msgspec
import openai
import pytest

from eventstore.events import TurnCancelled, TurnCompleted, TurnFailed, TurnStarted
from eventstore.log import Recorded
from eventstore.sqlite import SqliteLog
from tests.support.server import Process, Server, serving, turnlog_command
from tests.support.upstream import Upstream, says

WAIT_S = 30.0
ROUNDS = 20
CLIENTS = 7
SEED = 20_261_120
PAGE = 500

APIS: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "one"}]}),
    "responses": ("/v1/responses", {"model": "m", "input": "one"}),
}
both_apis = pytest.mark.parametrize("api", APIS)
S1 = {"X-Hermes-Session-Id": "s1"}


async def recorded(data: Path) -> list[Recorded]:
    """Everything in the log; reading checks the hash chain."""
    log = await SqliteLog.open_read_only(data)
    try:
        return [event async for batch in log.read_all() for event in batch]
    finally:
        await log.close()


async def cancellations(data: Path) -> list[TurnCancelled]:
    return [entry.event for entry in await recorded(data) if isinstance(entry.event, TurnCancelled)]


def contents(messages: Sequence[dict[str, Any]]) -> list[Any]:
    return [message["content"] for message in messages]


async def turnlog(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `turnlog` to its end."""
    command = [str(turnlog_command()), *arguments]
    return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=WAIT_S, check=False)


async def verify(data: Path) -> None:
    """`turnlog replay --verify`, on a stopped server's data."""
    verified = await turnlog("replay", "--data", str(data), "--verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


@contextlib.asynccontextmanager
async def half_an_answer(server: Server, upstream: Upstream, api: str) -> AsyncIterator[aiohttp.ClientResponse]:
    """A streamed turn of session s1, of whose answer `half of an answer` the client has received the first half."""
    upstream.script = lambda _: says("half of an answer")
    upstream.stream_gate_after = 3
    upstream.gate.clear()
    path, body = APIS[api]
    async with server.http.post(path, json=body | {"stream": True}, headers=S1) as response:
        received = b""
        while b'" of"' not in received:
            received += await response.content.readline()
        yield response


# kill -9


@both_apis
async def test_a_kill_in_the_middle_of_a_streamed_answer_leaves_the_question_and_no_half_answer(
    data: Path, upstream: Upstream, api: str
) -> None:
    process = await Process.start(data, "--upstream", upstream.url)
    async with asyncio.timeout(WAIT_S), half_an_answer(process.server, upstream, api):
        await process.kill9()

    upstream.stream_gate_after = None
    upstream.gate.set()
    process = await Process.start(data, "--upstream", upstream.url)
    messages = await process.server.messages("s1")
    assert ("user", "one", "cancelled") in [
        (message["role"], message["content"], message["status"]) for message in messages
    ]
    assert {message["status"] for message in messages} == {"cancelled"}
    assert [fact.reason for fact in await cancellations(data)] == ["crash"]
    # The client tries again: the model sees the question once, and of the answer nothing.
    upstream.script = lambda _: says("a whole answer")
    answer, effective = await process.server.chat("one", "s1")
    assert (answer["choices"][0]["message"]["content"], effective) == ("a whole answer", "s1")
    await process.server.chat("two", "s1")
    assert contents(upstream.messages[1]) == ["one"]
    assert contents(upstream.messages[2]) == ["one", "a whole answer", "two"]
    assert await process.terminate() == 0
    await verify(data)


async def test_a_kill_while_the_model_thinks_leaves_slug_and_previous_response_usable(
    data: Path, upstream: Upstream
) -> None:
    process = await Process.start(data, "--upstream", upstream.url)
    first = await process.server.openai.responses.create(model="m", input="one", conversation="slug")
    upstream.gate.clear()
    lost = [
        asyncio.create_task(
            process.server.http.post("/v1/responses", json={"model": "m", "input": "lost", "conversation": slug})
        )
        for slug in ("slug", "new")
    ]
    async with asyncio.timeout(WAIT_S):
        await upstream.wait_for_requests(3)
    outcomes = await process.kill9(*lost)
    assert all(isinstance(outcome, aiohttp.ClientError) for outcome in outcomes)

    upstream.gate.set()
    process = await Process.start(data, "--upstream", upstream.url)
    responses = process.server.openai.responses
    second = await responses.create(model="m", input="two", previous_response_id=first.id)
    await responses.create(model="m", input="three", conversation="slug")
    await responses.create(model="m", input="four", conversation="new")
    assert second.previous_response_id == first.id
    assert contents(upstream.messages[-2]) == ["one", "1: one", "two", "3: two", "three"]
    assert contents(upstream.messages[-1]) == ["four"]
    assert [fact.reason for fact in await cancellations(data)] == ["crash", "crash"]
    assert await process.terminate() == 0
    await verify(data)


class Acknowledged(NamedTuple):
    """A turn whose answer a client has received whole."""

    id: str
    session_id: str
    text: str
    answer: str

    @property
    def turn_id(self) -> str:
        return self.id.removeprefix("chatcmpl-").removeprefix("resp_")


class Load:
    """Clients that take turns as fast as they are answered, until the server is gone."""

    def __init__(self) -> None:
        self.acknowledged: list[Acknowledged] = []
        self._news = asyncio.Condition()

    async def run(self, process: Process, round_: int, kill_after: int) -> None:
        """Let the clients loose on a server, and kill it once so many more turns are acknowledged."""
        enough = len(self.acknowledged) + kill_after
        clients = [asyncio.create_task(self._client(process.server, round_, number)) for number in range(CLIENTS)]
        async with asyncio.timeout(WAIT_S), self._news:
            await self._news.wait_for(lambda: len(self.acknowledged) >= enough)
        process.popen.kill()
        await asyncio.gather(*clients)  # each meets the end by itself
        await process.kill9()

    async def _client(self, server: Server, round_: int, number: int) -> None:
        for turn in itertools.count():
            text = f"round {round_} client {number} turn {turn}"
            try:
                acknowledged = await _turn(server, number, text, is_streamed=turn % 2 == 1)
            except (aiohttp.ClientError, ConnectionError):
                return
            self.acknowledged.append(acknowledged)
            async with self._news:
                self._news.notify_all()


async def _turn(server: Server, client: int, text: str, *, is_streamed: bool) -> Acknowledged:
    """Sessions of their own for two clients, one that two share, slugs for two more, and a new slug in each turn."""
    path: str
    body: dict[str, Any]
    if client < 4:
        path, body = "/v1/chat/completions", {"messages": [{"role": "user", "content": text}]}
        headers = {"X-Hermes-Session-Id": f"s{min(client, 2)}"}
    else:
        slug = text if client == 6 else f"slug {client}"
        path, body, headers = "/v1/responses", {"input": text, "conversation": slug}, {}
    async with server.http.post(path, json=body | {"model": "m", "stream": is_streamed}, headers=headers) as response:
        answer = await response.text()
        assert response.status == 200, answer
        session_id = response.headers["X-Hermes-Session-Id"]
    response_id, said = (_streamed if is_streamed else _whole)(answer)
    return Acknowledged(response_id, session_id, text, said)


def _whole(body: str) -> tuple[str, str]:
    """Id and text of an answer in one piece."""
    return _said(msgspec.json.decode(body))


def _said(answer: dict[str, Any]) -> tuple[str, str]:
    if answer["object"] == "response":
        return answer["id"], answer["output"][0]["content"][0]["text"]
    return answer["id"], answer["choices"][0]["message"]["content"]


def _streamed(body: str) -> tuple[str, str]:
    """The same of a stream; one that was cut off is no answer."""
    *frames, last, _ = body.split("\n\n")
    if last != "data: [DONE]":
        raise ConnectionResetError("cut off")
    payloads = [msgspec.json.decode(frame.split("data: ", 1)[1]) for frame in frames]
    if "response" in payloads[-1]:
        assert payloads[-1]["type"] == "response.completed"
        return _said(payloads[-1]["response"])
    assert payloads[-1]["choices"][0]["finish_reason"] == "stop"
    return payloads[0]["id"], "".join(payload["choices"][0]["delta"].get("content") or "" for payload in payloads)


async def all_messages(server: Server, session_id: str) -> list[dict[str, Any]]:
    """The session's messages, page by page."""
    messages: list[dict[str, Any]] = []
    path = f"/api/sessions/{session_id}/messages?limit={PAGE}&offset="
    while page := (await server.get(f"{path}{len(messages)}"))["data"]:
        messages += page
    return messages


async def check_sessions(server: Server, acknowledged: Sequence[Acknowledged]) -> None:
    """Every acknowledged turn is there, whole and once, and each turn had seen exactly the completed ones before it."""
    by_session: dict[str, list[Acknowledged]] = defaultdict(list)
    for turn in acknowledged:
        by_session[turn.session_id].append(turn)
    for session_id, turns in by_session.items():
        messages = await all_messages(server, session_id)
        assert {message["status"] for message in messages} <= {"completed", "cancelled"}
        completed = [message for message in messages if message["status"] == "completed"]
        assert [message["role"] for message in completed] == ["user", "assistant"] * (len(completed) // 2)
        pairs = {asked["turn_id"]: (asked["content"], said["content"]) for asked, said in _pairs(completed)}
        assert {turn.turn_id: (turn.text, turn.answer) for turn in turns}.items() <= pairs.items()
        assert max(Counter(asked for asked, _ in pairs.values()).values()) == 1
        for number, (_, said) in enumerate(pairs.values()):
            assert (f"I see {2 * number} earlier messages" if number else "the first message I see") in said
    for turn in acknowledged:
        if turn.id.startswith("resp_"):
            assert _said(await server.get(f"/v1/responses/{turn.id}")) == (turn.id, turn.answer)


def _pairs(messages: Sequence[dict[str, Any]]) -> Iterable[tuple[dict[str, Any], dict[str, Any]]]:
    return zip(messages[::2], messages[1::2], strict=True)


def check_log(log: Sequence[Recorded]) -> None:
    """Positions and versions count without gaps, and each turn began once and ended once."""
    assert [entry.position for entry in log] == list(range(1, len(log) + 1))
    versions: Counter[str] = Counter()
    for entry in log:
        versions[entry.stream] += 1
        assert entry.version == versions[entry.stream]
    began = [entry.event.turn_id for entry in log if isinstance(entry.event, TurnStarted)]
    endings = TurnCompleted | TurnCancelled | TurnFailed
    ended = [entry.event.turn_id for entry in log if isinstance(entry.event, endings)]
    assert len(set(began)) == len(began)
    assert sorted(began) == sorted(ended)


async def test_no_acknowledged_turn_is_lost_in_twenty_kills_under_load(data: Path) -> None:
    chance = random.Random(SEED)  # noqa: S311 (the same rounds each time)
    load = Load()
    for round_ in range(ROUNDS):
        process = await Process.start(data, "--log-level", "error")
        before = len(load.acknowledged)
        await check_sessions(process.server, load.acknowledged[-200:])
        await load.run(process, round_, kill_after=chance.randint(1, 60))
        assert len(load.acknowledged) > before
    process = await Process.start(data, "--log-level", "error")
    await check_sessions(process.server, load.acknowledged)
    assert process.log == ""
    assert await process.terminate() == 0
    log = await recorded(data)
    check_log(log)
    assert {fact.event.reason for fact in log if isinstance(fact.event, TurnCancelled)} == {"crash"}
    await verify(data)


# SIGTERM


async def draining(server: Server) -> aiohttp.ClientResponse:
    """The first answer of /health that is not 200."""
    while True:
        async with server.http.get("/health") as response:
            if response.status != 200:
                return response


@both_apis
async def test_a_running_stream_is_given_its_grace_while_new_turns_are_refused(
    data: Path, upstream: Upstream, api: str
) -> None:
    process = await Process.start(data, "--upstream", upstream.url, "--grace-s", "20")
    async with asyncio.timeout(WAIT_S), half_an_answer(process.server, upstream, api) as running:
        process.popen.send_signal(signal.SIGTERM)
        health = await draining(process.server)
        assert (health.status, float(health.headers["retry-after"]) > 0) == (503, True)
        for path, body in APIS.values():
            async with process.server.http.post(path, json=body, headers={"X-Hermes-Session-Id": "s2"}) as refused:
                assert refused.status == 503
                assert float(refused.headers["retry-after"]) > 0
                assert (await refused.json())["error"].keys() == {"message", "type", "param", "code"}
        upstream.gate.set()
        rest = await running.text()
    assert rest.endswith("data: [DONE]\n\n")
    assert '" answer"' in rest
    assert await asyncio.to_thread(process.popen.wait, WAIT_S) == 0
    await process.terminate()
    assert len(upstream.requests) == 1
    assert not await cancellations(data)
    async with serving(data, upstream=upstream.url) as server:
        assert contents(await server.messages("s1")) == ["one", "half of an answer"]
        await server.get("/api/sessions/s2", status=404)
    await verify(data)


@both_apis
async def test_what_outlasts_the_grace_is_recorded_as_cancelled_by_the_shutdown(
    data: Path, upstream: Upstream, api: str
) -> None:
    process = await Process.start(data, "--upstream", upstream.url, "--grace-s", "0.1")
    async with asyncio.timeout(WAIT_S), half_an_answer(process.server, upstream, api) as running:
        process.popen.send_signal(signal.SIGTERM)
        rest = await running.text()
    assert await asyncio.to_thread(process.popen.wait, WAIT_S) == 0
    await process.terminate()
    assert "event: response.completed" not in rest
    assert '"finish_reason":"stop"' not in rest
    (cancelled,) = await cancellations(data)
    assert cancelled.reason == "shutdown"
    assert contents([msgspec.json.decode(item) for item in cancelled.output]) == ["half of"]
    upstream.stream_gate_after = None
    upstream.gate.set()
    async with serving(data, upstream=upstream.url) as server:
        assert {message["status"] for message in await server.messages("s1")} == {"cancelled"}
        await server.chat("two", "s1")
    assert contents(upstream.messages[-1]) == ["two"]
    await verify(data)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
async def test_a_turn_that_waits_in_line_at_a_shutdown_is_told_to_come_again(
    data: Path, upstream: Upstream, stream: bool
) -> None:
    process = await Process.start(data, "--upstream", upstream.url, "--grace-s", "0.1", "--keepalive-s", "0.05")
    async with asyncio.timeout(WAIT_S), half_an_answer(process.server, upstream, "chat"):
        waiting = asyncio.create_task(_refusal(process.server, stream=stream))
        for _ in range(20):  # by then the server has the turn in front of it: it has one event loop
            await process.server.get("/health")
        process.popen.send_signal(signal.SIGTERM)
        refused = await waiting
        assert await asyncio.to_thread(process.popen.wait, WAIT_S) == 0
    await process.terminate()
    assert refused.code == "shutting_down"
    started = [entry.event for entry in await recorded(data) if isinstance(entry.event, TurnStarted)]
    assert len(started) == len(upstream.requests) == 1
    assert [fact.reason for fact in await cancellations(data)] == ["shutdown"]


async def _refusal(server: Server, *, stream: bool) -> openai.APIError:
    """What the SDK raises for a second turn of session s1, before or in the stream."""
    try:
        chunks: Any = await server.openai.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "two"}], stream=stream, extra_headers=S1
        )
        async for _ in chunks:
            pass
    except openai.APIError as error:
        return error
    raise AssertionError("the turn was answered")


# Files


async def test_a_second_server_on_the_same_data_is_refused_and_names_the_first(data: Path) -> None:
    first = await Process.start(data)
    second = await turnlog("serve", "--data", str(data), "--port", "0")
    assert second.returncode != 0
    assert "turnlog serves" not in second.stdout
    assert str(first.popen.pid) in second.stderr
    await first.server.chat("still here", "s1")
    await first.kill9()
    again = await Process.start(data)
    assert contents(await again.server.messages("s1"))[0] == "still here"
    assert await again.terminate() == 0


async def test_views_that_were_deleted_while_stopped_break_nothing(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        first = await server.openai.responses.create(model="m", input="one", conversation="slug")
        second = await server.openai.responses.create(model="m", input="two", conversation="slug")
        fork = await server.openai.responses.with_raw_response.create(
            model="m", input="other", previous_response_id=first.id
        )
        gone = await server.openai.responses.create(model="m", input="gone")
        await server.openai.responses.delete(gone.id)
        await server.chat("uno", "s1")
        paths = ["/api/sessions", f"/v1/responses/{second.id}", "/api/sessions/s1", "/api/sessions/s1/messages"]
        paths.append(f"/api/sessions/{fork.headers['X-Hermes-Session-Id']}/messages")
        before = [await server.get(path) for path in paths]
    views = list(data.glob("views.db*"))
    assert views
    for path in views:
        path.unlink()
    async with serving(data, upstream=upstream.url) as server:
        assert [await server.get(path) for path in paths] == before
        await server.get(f"/v1/responses/{gone.id}", status=404)
        await server.openai.responses.create(model="m", input="three", conversation="slug")
        assert contents(upstream.messages[-1]) == ["one", "1: one", "two", "3: two", "three"]
        await server.openai.responses.create(model="m", input="more", previous_response_id=fork.parse().id)
        assert contents(upstream.messages[-1]) == ["one", "1: one", "other", "3: other", "more"]
        await server.chat("due", "s1")
        assert contents(upstream.messages[-1]) == ["uno", "1: uno", "due"]
    await verify(data)
