"""GET /api/turns/{id}/prompt: what the model was sent, byte for byte, whatever has become of the session since."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from api import keys
from api.models.router import Upstream as UpstreamSettings
from api.turns.compress import Compression
from eventstore import chain
from eventstore.events import TurnStarted
from eventstore.sqlite import LOG_FILE
from tests.support.api import call, create, fork
from tests.support.responses_upstream import Scripted, scripted_responses_upstream, speaks, thinks
from tests.support.runs import start_run
from tests.support.server import Process, Server, serving
from tests.support.upstream import Reply, Upstream, calls, echo, refuses, says, scripted_upstream
from tests.test_crash import recorded
from tests.test_degraded import out_of_reach
from tools.cli import main

WAIT_S = 30.0
WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": True}
PICTURE = "data:image/png;base64,iVBORw0KGgo="
dialects = pytest.mark.parametrize("dialect", ["chat", "responses"])


async def starts(data: Path) -> list[TurnStarted]:
    return [entry.event for entry in await recorded(data) if isinstance(entry.event, TurnStarted)]


async def shown(server: Server, turn_id: str, **more: Any) -> tuple[dict[str, Any], bytes]:
    """What is answered, and the very bytes of the body in it."""
    async with server.http.get(f"/api/turns/{turn_id}/prompt", **more) as answer:
        raw = await answer.read()
        assert answer.status == 200, raw
        return msgspec.json.decode(raw), raw.partition(b'"body":')[2].removesuffix(b"}")


async def check(server: Server, data: Path, sent: list[bytes]) -> None:
    """The prompts of all turns, in the order in which they began, are what the model server was sent."""
    found = await starts(data)
    assert [(await shown(server, start.turn_id))[1] for start in found] == sent


async def post(server: Server, path: str, body: dict[str, Any], session_id: str = "", **headers: str) -> Any:
    sent = {"X-Hermes-Session-Id": session_id} if session_id else {}
    async with server.http.post(path, json={"model": "m"} | body, headers=sent | headers) as answer:
        told = await answer.text()
        assert answer.status in (200, 202), told
        return told if body.get("stream") else msgspec.json.decode(told)


@contextlib.asynccontextmanager
async def both(data: Path, dialect: str, **settings: Any) -> AsyncIterator[tuple[Server, Upstream]]:
    """A server, and behind it a model server that speaks the dialect."""
    scripted = scripted_upstream() if dialect == "chat" else scripted_responses_upstream()
    async with scripted as model, serving(data, upstream=model.url, upstream_api=dialect, **settings) as server:
        yield server, model


async def talk(server: Server, model: Upstream) -> None:
    """Turns of every kind."""
    chat, respond = "/v1/chat/completions", "/v1/responses"
    for stream in (False, True):
        name = f"s{stream}"
        history = [{"role": "user", "content": "h1"}, {"role": "assistant", "content": "h2"}]
        system = {"role": "system", "content": "be brief"}
        options = {"temperature": 0.5, "max_completion_tokens": 50, "user": "ada", "metadata": {"a": "b"}}
        new = {"role": "user", "content": "naïve 🎈"}
        more = {"stream_options": {"include_usage": True}, "n": 1} if stream else {"seed": None}
        await post(server, chat, {"messages": [system, *history, new], "stream": stream} | options, name)
        await post(server, chat, {"messages": [new], "stream": stream} | more, name)
        model.script = lambda _: calls("weather", '{"city": "Jena"}')
        await post(server, respond, {"input": "rain?", "tools": [WEATHER], "stream": stream}, name)
        model.script = echo
        output = {"type": "function_call_output", "call_id": "call_1", "output": "no"}
        await post(server, respond, {"input": [output], "instructions": "be kind", "stream": stream}, name)
        parts = [{"type": "input_text", "text": "what?"}, {"type": "input_image", "image_url": PICTURE}]
        item = {"role": "user", "content": parts}
        reasoning = {"reasoning": {"effort": "low", "summary": "auto"}, "text": {"verbosity": "low"}}
        await post(server, respond, {"input": [item], "stream": stream, "conversation": "slug"} | reasoning)
        await post(server, respond, {"input": "and?", "stream": stream, "conversation": "slug"})
        pictured = [{"type": "text", "text": "?"}, {"type": "image_url", "image_url": {"url": PICTURE}}]
        await post(server, chat, {"messages": [{"role": "user", "content": pictured}], "stream": stream}, name)
    await create(server, id="made", system_prompt="be kind", model="n")
    await post(server, "/api/sessions/made/chat", {"message": "hello"})
    async with server.http.post("/api/sessions/made/chat/stream", json={"message": "again"}) as answer:
        await answer.read()


@dialects
async def test_turns_of_every_kind_are_shown_as_they_were_sent(data: Path, dialect: str) -> None:
    async with both(data, dialect) as (server, model):
        await talk(server, model)
        sent = list(model.bodies)
        assert len(sent) == 16
        await check(server, data, sent)
        await fork(server, "made", id="forked")
        await post(server, "/api/sessions/forked/chat", {"message": "from there"})
        await check(server, data, model.bodies)
    other = "responses" if dialect == "chat" else "chat"
    # Behind a restart, with nothing in memory, and another upstream that speaks otherwise.
    async with serving(data, upstream="http://127.0.0.1:9/v1", upstream_api=other) as server:
        await check(server, data, model.bodies)
        await call(server, "DELETE", "/api/sessions/made", 200)
        forked = (await starts(data))[-1]
        assert (await shown(server, forked.turn_id))[1] == model.bodies[-1]


async def test_what_is_told_of_a_prompt(server: Server, upstream: Upstream) -> None:
    answer, _ = await server.chat("one", "s1")
    turn_id = answer["id"].removeprefix("chatcmpl-")
    told, body = await shown(server, turn_id)
    assert told == {
        "object": "turn.prompt",
        "turn_id": turn_id,
        "session_id": "s1",
        "position": 2,
        "model": "m",
        "upstream_api": "chat",
        "body": upstream.requests[0],
    }
    assert body == upstream.bodies[0]
    assert (await shown(server, answer["id"]))[0] == told


async def test_responses_and_runs_are_found_by_their_own_ids(server: Server, upstream: Upstream) -> None:
    response = await server.openai.responses.create(model="m", input="one", conversation="slug")
    background = await server.openai.responses.create(model="m", input="two", background=True)
    run_id = await start_run(server, "three", session_id="s3")
    async with asyncio.timeout(WAIT_S):
        await upstream.wait_for_requests(3)
        async with server.http.get(f"/v1/runs/{run_id}/events") as events:
            await events.read()
    for shown_id, body in zip((response.id, background.id, run_id), upstream.bodies, strict=True):
        assert (await shown(server, shown_id))[1] == body
    await call(server, "DELETE", f"/v1/responses/{response.id}", 200)
    assert (await shown(server, response.id))[1] == upstream.bodies[0]


@dialects
async def test_rotations_and_removed_items_change_nothing_of_what_was_sent(data: Path, dialect: str) -> None:
    compression = Compression(context_tokens=2_000)
    async with both(data, dialect, compression=compression) as (server, model):
        model.script = lambda _: says("well " * 20, usage=None)
        turns = [f"say {number} " + "x " * 300 for number in range(12)]
        sent: list[bytes] = []
        for number, text in enumerate(turns):
            await post(server, "/v1/responses", {"input": text, "conversation": "slug", "stream": number % 2 == 1})
            sent.append(model.bodies[-1])
        assert len(model.bodies) > len(sent)  # summaries were asked for
        items = (await server.get("/v1/conversations/slug/items?limit=100&order=asc"))["data"]
        for item in items[-4:-2]:
            await call(server, "DELETE", f"/v1/conversations/slug/items/{item['id']}", 200)
        await post(server, "/v1/responses", {"input": "on", "conversation": "slug"})
        await check(server, data, [*sent, model.bodies[-1]])
        sessions = {(await shown(server, start.turn_id))[0]["session_id"] for start in await starts(data)}
        assert len(sessions) > 1


@dialects
async def test_what_was_recalled_is_shown_as_it_was_then(data: Path, dialect: str) -> None:
    async with both(data, dialect) as (server, model):
        model.script = lambda _: says("noted")
        key = {"X-Hermes-Session-Key": "k"}
        told = "the treasure is buried under the old oak"
        first = await post(server, "/v1/responses", {"input": told, "conversation": "one"}, **key)
        await post(server, "/v1/responses", {"input": "where is the treasure buried?"}, "s2", **key)
        await fork(server, "s2", id="s3")
        await post(server, "/v1/chat/completions", {"messages": [{"role": "user", "content": "so?"}]}, "s3", **key)
        assert b"Said earlier" in model.bodies[1]
        items = (await server.get("/v1/conversations/one/items"))["data"]
        await call(server, "DELETE", f"/v1/conversations/one/items/{items[-1]['id']}", 200)
        await check(server, data, model.bodies)
        session_id = (await shown(server, first["id"]))[0]["session_id"]
        await call(server, "DELETE", f"/api/sessions/{session_id}", 200)
        assert (await shown(server, (await starts(data))[1].turn_id))[1] == model.bodies[1]


@pytest.mark.parametrize("stream", [False, True])
async def test_thoughts_that_a_server_refused_are_not_in_what_it_was_sent_then(data: Path, stream: bool) -> None:
    async with both(data, "responses") as (server, model):
        model.script = lambda _: Scripted(output=[thinks("hm"), speaks("hi")])
        ask = {"messages": [{"role": "user", "content": "one"}], "stream": stream}
        await post(server, "/v1/chat/completions", ask, "s1")

        def script(body: dict[str, Any]) -> Reply:
            has_thoughts = "reasoning" in [item["type"] for item in body["input"]]
            if has_thoughts or (body["model"] == "n" and "include" in body):
                return refuses(400, "Encrypted content is not supported.", code="invalid_encrypted_content")
            return echo(body)

        model.script = script
        await post(server, "/v1/chat/completions", ask, "s1")
        await post(server, "/v1/chat/completions", ask | {"model": "n"}, "s2")
        await post(server, "/v1/chat/completions", ask | {"model": "n"}, "s2")
        first, _, second, _, third, fourth = model.bodies
        await check(server, data, [first, second, third, fourth])


async def test_a_model_is_called_as_its_own_server_knows_it(data: Path, upstream: Upstream) -> None:
    local = UpstreamSettings(name="local", url=upstream.url, models=("m*",))
    async with serving(data, upstreams=(local,)) as server:
        await server.chat("one", "s1", model="local/llama")
        await server.chat("two", "s1", model="m1")
        await check(server, data, upstream.bodies)
        assert (await shown(server, (await starts(data))[0].turn_id))[0]["model"] == "llama"
        body = {"model": "elsewhere", "messages": [{"role": "user", "content": "three"}]}
        await call(server, "POST", "/v1/chat/completions", 404, json=body)
        error = await call(server, "GET", f"/api/turns/{(await starts(data))[2].turn_id}/prompt", 404)
        assert error["code"] == "nothing_sent"


async def test_a_parameter_that_a_server_has_no_word_for_was_never_sent(data: Path) -> None:
    async with both(data, "responses") as (server, model):
        body = {"model": "m", "messages": [{"role": "user", "content": "one"}], "seed": 5}
        await call(server, "POST", "/v1/chat/completions", 400, json=body)
        error = await call(server, "GET", f"/api/turns/{(await starts(data))[0].turn_id}/prompt", 404)
        assert (error["code"], model.bodies) == ("nothing_sent", [])


async def test_failed_and_cancelled_turns_are_shown_too(data: Path, server: Server, upstream: Upstream) -> None:
    await server.chat("one", "s1")
    upstream.script = lambda _: refuses(500)
    await call(server, "POST", "/v1/responses", 502, json={"model": "m", "input": "two", "conversation": "slug"})
    upstream.script = echo
    await server.chat("three", "s1")
    await check(server, data, upstream.bodies)


async def test_a_turn_without_history_was_sent_nothing_but_what_it_brought(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        await server.chat("one", "s1")
    history = [{"role": "user", "content": "h1"}, {"role": "assistant", "content": "h2"}]
    async with serving(data, upstream=upstream.url, history_on_failure="empty") as server:
        with out_of_reach(data):
            await server.chat("two", "s1")
            new = {"messages": [*history, {"role": "user", "content": "three"}]}
            await post(server, "/v1/chat/completions", new, "new")
            await post(server, "/v1/chat/completions", new)
        await server.chat("four", "s1")
        bodies = {(await shown(server, start.turn_id))[1] for start in await starts(data)}
    assert bodies == set(upstream.bodies)
    assert len(bodies) == 5


async def test_a_run_that_was_started_again_is_shown_as_it_was_sent_again(
    start: Callable[..., Awaitable[Process]], upstream: Upstream
) -> None:
    process = await start()
    await process.server.chat("before", "s1")
    upstream.gate.clear()
    run_id = await start_run(process.server, "hello", session_id="s1")
    async with asyncio.timeout(WAIT_S):
        await upstream.wait_for_requests(2)
        await process.kill9()
        upstream.gate.set()
        process = await start()
        await upstream.wait_for_requests(3)
        async with process.server.http.get(f"/v1/runs/{run_id}/events") as events:
            await events.read()
    assert upstream.bodies[1] == upstream.bodies[2]
    assert (await shown(process.server, run_id))[1] == upstream.bodies[2]


async def test_a_turn_in_the_queue_was_sent_to_nobody(server: Server, upstream: Upstream) -> None:
    upstream.gate.clear()
    async with asyncio.timeout(WAIT_S):
        first = await server.openai.responses.create(model="m", input="one", conversation="slug", background=True)
        await upstream.wait_for_requests(1)
        second = await server.openai.responses.create(model="m", input="two", conversation="slug", background=True)
        assert second.status == "queued"
        error = await call(server, "GET", f"/api/turns/{second.id}/prompt", 404)
        assert error["code"] == "nothing_sent"
        assert "queued" in error["message"]
        upstream.gate.set()
        for response in (first, second):
            while (await server.get(f"/v1/responses/{response.id}"))["status"] != "completed":
                pass
    assert [(await shown(server, response.id))[1] for response in (first, second)] == upstream.bodies
    await call(server, "DELETE", f"/v1/responses/{second.id}", 200)
    assert (await shown(server, second.id))[1] == upstream.bodies[1]


async def test_what_is_not_there_is_not_found(data: Path, upstream: Upstream) -> None:
    data.mkdir()
    bravo = {"authorization": f"Bearer {keys.add(data, 'bravo', 'bravo')}"}
    async with serving(data, upstream=upstream.url) as server:
        answer, _ = await server.chat("one", "s1")
        response = await server.openai.responses.create(model="m", input="two", conversation="slug")
        unstored = await server.openai.responses.create(model="m", input="x", store=False)
        for shown_id in (answer["id"], response.id):
            await call(server, "GET", f"/api/turns/{shown_id}/prompt", 404, headers=bravo)
        for other in (
            unstored.id,
            "x",
            "resp_",
            "0" * 28,
            "f" * 28,
            "%00",
            "%FF",
            "resp_%ff",
            "resp_" + "Ａ" * 28,
            "x" * 3_000,
        ):
            error = await call(server, "GET", f"/api/turns/{other}/prompt", 404)
            assert (error["code"], error["param"]) == ("turn_not_found", "turn_id")
        await call(server, "DELETE", "/api/sessions/s1", 200)
        await call(server, "GET", f"/api/turns/{answer['id']}/prompt", 404)
        await server.chat("anew", "s1")
        await call(server, "GET", f"/api/turns/{answer['id']}/prompt", 404)


async def test_a_tool_shows_what_was_sent_beside_the_server_and_of_deleted_sessions(
    data: Path, server: Server, upstream: Upstream
) -> None:
    answer, _ = await server.chat("naïve", "s1")
    await call(server, "DELETE", "/api/sessions/s1", 200)
    response = await server.openai.responses.create(model="m", input="two", background=True)
    async with asyncio.timeout(WAIT_S):
        await upstream.wait_for_requests(2)
    for shown_id, body in zip((answer["id"], response.id), upstream.bodies, strict=True):
        assert await audit(data, "prompt", shown_id) == (0, body + b"\n")
    code, told = await audit(data, "prompt", answer["id"], "--tenant", "other")
    assert (code, told[:22]) == (1, b"Error: Turn not found:")
    code, told = await audit(data, "prompt", "\udcff")
    assert (code, b"is not text in UTF-8" in told) == (2, True)


async def audit(data: Path, command: str, *arguments: str) -> tuple[int, bytes]:
    """What `turnlog audit` says, and its exit code."""
    asked = ["audit", command, "--data", str(data), *arguments]
    done = await asyncio.to_thread(CliRunner().invoke, main, asked, prog_name="turnlog")
    return done.exit_code, done.output_bytes


async def test_what_goes_on_from_erased_content_is_gone(data: Path, upstream: Upstream) -> None:
    key = {"X-Hermes-Session-Key": "k"}
    async with serving(data, upstream=upstream.url) as server:
        upstream.script = lambda _: says("noted")
        told = {"messages": [{"role": "user", "content": "the treasure is buried under the old oak"}]}
        await post(server, "/v1/chat/completions", told, "s1", **key)
        await fork(server, "s1", id="s2")
        await server.chat("on", "s2")
        asked = {"messages": [{"role": "user", "content": "where is the treasure buried?"}]}
        await post(server, "/v1/chat/completions", asked, "s3", **key)
        assert b"Said earlier" in upstream.bodies[-1]
        await call(server, "DELETE", "/api/sessions/s1", 200)
        own, *others = await starts(data)
        assert [(await shown(server, start.turn_id))[1] for start in others] == upstream.bodies[1:]
    erase(data, "lineage/default/s1")
    async with serving(data, upstream=upstream.url) as server:
        await call(server, "GET", f"/api/turns/{own.turn_id}/prompt", 404)
        for start in others:
            error = await call(server, "GET", f"/api/turns/{start.turn_id}/prompt", 410)
            assert error["code"] == "erased"


async def test_what_a_fork_said_behind_an_erasure_of_its_parent_is_shown(server: Server, upstream: Upstream) -> None:
    await server.chat("the treasure is buried under the old oak", "s1")
    await fork(server, "s1", id="f1")
    before, _ = await server.chat("on", "f1")
    await call(server, "DELETE", "/api/sessions/s1?erase=true", 200)
    behind, _ = await server.chat("and on", "f1")
    assert (await shown(server, behind["id"]))[1] == upstream.bodies[-1]
    await call(server, "GET", f"/api/turns/{before['id']}/prompt", 410)
    await server.chat("anew", "s1")
    await call(server, "DELETE", "/api/sessions/s1?erase=true", 200)
    assert (await shown(server, behind["id"]))[1] == upstream.bodies[-2]


def erase(data: Path, stream: str) -> None:
    """Put digests where the content of the stream's events was."""
    with contextlib.closing(sqlite3.connect(data / LOG_FILE)) as db:
        db.execute("DROP TRIGGER events_are_never_updated")
        for position, content in db.execute("SELECT position, data FROM events WHERE stream = ?", (stream,)).fetchall():
            db.execute("UPDATE events SET data = ? WHERE position = ?", (chain.digest(content), position))
        db.commit()
