"""The log out of reach: refuse, or answer without history and record it later.

The log is taken away as other processes take it away: its table is renamed in the file, or the disk is full.
"""

import asyncio
import contextlib
import resource
import sqlite3
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog

from api.models.model import Answer
from api.turns import decide_late, degraded, history
from api.turns.decide_late import Late
from api.turns.history import Scope
from api.turns.refusals import TurnInProgress
from api.turns.request import Names
from eventstore.events import ConversationAdvanced
from eventstore.sqlite import LOG_FILE
from projections.pieces import Pieces
from tests.support.facts import assistant, completed, session_started, started, user
from tests.support.server import Process, Server, serving
from tests.support.spec import given
from tests.support.upstream import Reply, Upstream, says
from tests.test_decide import begin

UNAVAILABLE = "unavailable"
both_ways = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
both_apis = pytest.mark.parametrize("api", ["chat", "responses"])
empty = partial(serving, history_on_failure="empty")


@contextlib.contextmanager
def out_of_reach(data: Path) -> Iterator[None]:
    """The server finds no events in its log."""
    rename(data, "events", "away")
    try:
        yield
    finally:
        rename(data, "away", "events")


def rename(data: Path, table: str, to: str, file: str = LOG_FILE) -> None:
    with contextlib.closing(sqlite3.connect(data / file)) as other:
        other.execute(f"ALTER TABLE {table} RENAME TO {to}")
        other.commit()


class Told:
    """What a client is told."""

    def __init__(self, response: aiohttp.ClientResponse, body: str) -> None:
        self.status = response.status
        self.session_id = response.headers.get("X-Hermes-Session-Id", "")
        self.history = response.headers.get("X-Turnlog-History", "")
        self.body = body


async def ask(server: Server, text: str, session_id: str = "", *, api: str = "chat", **body: Any) -> Told:
    """One turn, with plain HTTP."""
    headers = {"X-Hermes-Session-Id": session_id} if session_id else {}
    asked = {"input": text} if api == "responses" else {"messages": [{"role": "user", "content": text}]}
    path = "/v1/responses" if api == "responses" else "/v1/chat/completions"
    async with server.http.post(path, json={"model": "m"} | asked | body, headers=headers) as response:
        return Told(response, await response.text())


def sent(upstream: Upstream) -> list[str]:
    return [message["content"] for message in upstream.messages[-1]]


async def views_are_back(server: Server) -> None:
    async with asyncio.timeout(20):
        while True:
            async with server.http.get("/api/sessions") as response:
                if response.status == 200:
                    return


async def contents(server: Server, session_id: str) -> list[str]:
    return [message["content"] for message in await server.messages(session_id)]


def answering(body: dict[str, Any]) -> Reply:
    return says(f"re: {body['messages'][-1]['content']}")


@pytest.fixture
def upstream(upstream: Upstream) -> Upstream:
    upstream.script = answering
    return upstream


@contextlib.asynccontextmanager
async def cold(data: Path, upstream: Upstream, mode: str = "empty") -> AsyncIterator[Server]:
    """A server that has just been started on a log that holds a session, and has nothing of it in memory."""
    async with serving(data, upstream=upstream.url) as server:
        await ask(server, "one", "s1")
    async with serving(data, upstream=upstream.url, history_on_failure=mode) as server:
        yield server


@both_apis
@both_ways
async def test_fail_is_503_and_the_model_is_not_asked(data: Path, upstream: Upstream, api: str, stream: bool) -> None:
    async with cold(data, upstream, "fail") as server:
        with out_of_reach(data):
            for session_id in ("s1", "new", ""):
                told = await ask(server, "two", session_id, api=api, stream=stream)
                assert told.status == 503
                assert "log_unavailable" in told.body
        assert len(upstream.requests) == 1
        assert (await ask(server, "two", "s1", api=api, stream=stream)).status == 200
        assert sent(upstream) == ["one", "re: one", "two"]


@both_apis
@both_ways
async def test_empty_answers_without_history_says_so_and_records_it_later(
    data: Path, upstream: Upstream, api: str, stream: bool
) -> None:
    async with cold(data, upstream) as server:
        with out_of_reach(data):
            for text in ("two", "three"):
                told = await ask(server, text, "s1", api=api, stream=stream)
                assert (told.status, told.session_id, told.history) == (200, "s1", UNAVAILABLE)
                assert text in told.body
                assert sent(upstream) == [text]
        told = await ask(server, "four", "s1", api=api, stream=stream)
        assert (told.status, told.session_id, told.history) == (200, "s1", "")
        assert sent(upstream) == ["one", "re: one", "two", "re: two", "three", "re: three", "four"]
        assert await contents(server, "s1") == [*sent(upstream), "re: four"]


async def test_a_model_that_only_the_session_could_name_is_the_servers(data: Path, upstream: Upstream) -> None:
    async with cold(data, upstream) as server:
        with out_of_reach(data):
            assert (await ask(server, "two", "s1", model=None)).status == 200
        assert upstream.requests[-1]["model"] == "m"


async def test_of_a_body_with_history_a_named_session_is_sent_what_is_new_and_its_instructions(
    data: Path, upstream: Upstream
) -> None:
    texts = [("system", "Be brief."), ("user", "one"), ("assistant", "re: one"), ("user", "two")]
    body: dict[str, Any] = {"messages": [{"role": role, "content": text} for role, text in texts]}
    async with cold(data, upstream) as server:
        with out_of_reach(data):
            assert (await ask(server, "", "s1", **body)).status == 200
            assert sent(upstream) == ["Be brief.", "two"]
            assert (await ask(server, "", **body)).status == 200
            assert sent(upstream) == ["Be brief.", "one", "re: one", "two"]
        await ask(server, "three", "s1")
        assert sent(upstream) == ["one", "re: one", "two", "re: two", "three"]


@both_ways
async def test_a_turn_that_names_nothing_is_recorded_under_the_id_it_was_told(
    data: Path, upstream: Upstream, stream: bool
) -> None:
    async with cold(data, upstream) as server:
        with out_of_reach(data):
            told = await ask(server, "hello", stream=stream)
            assert told.history == UNAVAILABLE
        assert (await ask(server, "more", told.session_id)).session_id == told.session_id
        assert await contents(server, told.session_id) == ["hello", "re: hello", "more", "re: more"]


async def test_a_warm_session_too_is_answered_without_history_while_nothing_can_be_written(
    data: Path, upstream: Upstream
) -> None:
    async with empty(data, upstream=upstream.url) as server:
        await ask(server, "one", "s1")
        with out_of_reach(data):
            assert (await ask(server, "two", "s1")).history == UNAVAILABLE
            assert sent(upstream) == ["two"]
        await ask(server, "three", "s1")
        assert sent(upstream) == ["one", "re: one", "two", "re: two", "three"]


async def test_names_are_resolved_once_they_can_be(data: Path, upstream: Upstream) -> None:
    async with empty(data, upstream=upstream.url) as server:
        first = await server.openai.responses.create(model="m", input="one", extra_body={"conversation": "known"})
        session_id = (await ask(server, "one b", api="responses", conversation="known")).session_id
    async with empty(data, upstream=upstream.url) as server:
        with out_of_reach(data):
            known = await ask(server, "two", api="responses", conversation="known")
            new = await ask(server, "hello", api="responses", conversation="new")
            forked = await ask(server, "other", api="responses", previous_response_id=first.id)
            for told in (known, new, forked):
                assert (told.status, told.session_id, told.history) == (200, "", UNAVAILABLE)
        again = await ask(server, "three", api="responses", conversation="known")
        assert again.session_id == session_id
        assert sent(upstream) == ["one", "re: one", "one b", "re: one b", "two", "re: two", "three"]
        await ask(server, "more", api="responses", conversation="new")
        assert sent(upstream) == ["hello", "re: hello", "more"]
        forks = [row for row in (await server.get("/api/sessions"))["data"] if row["parent_session_id"] == session_id]
        assert await contents(server, forks[0]["id"]) == ["one", "re: one", "other", "re: other"]


async def test_a_response_that_was_made_without_history_can_be_got_and_continued_later(
    data: Path, upstream: Upstream
) -> None:
    async with cold(data, upstream) as server:
        with out_of_reach(data):
            response = await server.openai.responses.create(model="m", input="two")
        again = await server.openai.responses.create(model="m", input="three", previous_response_id=response.id)
        assert sent(upstream) == ["two", "re: two", "three"]
        assert (await server.openai.responses.retrieve(response.id)).output_text == "re: two"
        assert again.previous_response_id == response.id


async def test_a_turn_that_its_names_refuse_later_is_told_to_the_operator_whole(data: Path, upstream: Upstream) -> None:
    async with cold(data, upstream) as server:
        rename(data, "responses", "gone", "views.db")
        with out_of_reach(data):
            told = await ask(server, "lost words", api="responses", previous_response_id="resp_never_made")
            assert told.status == 200
        with structlog.testing.capture_logs() as logs:
            await views_are_back(server)
            await ask(server, "two", "s1")
    refused = next(entry for entry in logs if entry["event"].endswith("was refused"))
    assert refused["log_level"] == "error"
    assert refused["previous_response_id"] == "resp_never_made"
    assert "lost words" in refused["items"][0]
    assert "re: lost words" in refused["output"][0]
    assert "not found" in refused["reason"]


async def test_an_unstored_turn_is_answered_and_never_recorded(data: Path, upstream: Upstream) -> None:
    async with cold(data, upstream) as server:
        with out_of_reach(data):
            told = await ask(server, "two", "s1", store=False)
            assert (told.status, told.session_id, told.history) == (200, "", UNAVAILABLE)
        await ask(server, "three", "s1")
        assert sent(upstream) == ["one", "re: one", "three"]


async def test_a_turn_that_the_model_fails_leaves_nothing(data: Path, upstream: Upstream) -> None:
    async with cold(data, upstream) as server:
        with out_of_reach(data):
            upstream.script = lambda _: Reply(status=500, body={})
            told = await ask(server, "two", "s1")
            assert told.status == 502
        upstream.script = answering
        await ask(server, "three", "s1")
        assert sent(upstream) == ["one", "re: one", "three"]


async def test_nothing_new_is_refused_as_the_log_can_not_tell(data: Path, upstream: Upstream) -> None:
    texts = [("user", "one"), ("assistant", "re: one")]
    body: dict[str, Any] = {"messages": [{"role": role, "content": text} for role, text in texts]}
    async with cold(data, upstream) as server:
        with out_of_reach(data):
            assert (await ask(server, "", "s1", **body)).status == 503


@pytest.mark.parametrize(("name", "limit"), [("WAITING_MAX", 1), ("WAITING_MAX_BYTES", 100)])
async def test_no_more_turns_wait_than_there_is_room_for(
    data: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, name: str, limit: int
) -> None:
    monkeypatch.setattr(degraded, name, limit)
    async with cold(data, upstream) as server:
        with out_of_reach(data):
            assert (await ask(server, "two", "s1")).status == 200
            assert (await ask(server, "three", "s1")).status == 503
        assert (await ask(server, "four", "s1")).status == 200
        assert sent(upstream) == ["one", "re: one", "two", "re: two", "four"]


async def test_what_waits_is_recorded_without_anybody_asking(
    data: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(degraded, "REST_S", 0.01)
    async with cold(data, upstream) as server:
        with out_of_reach(data):
            await ask(server, "two", "s1")
        async with asyncio.timeout(10):
            while len(await contents(server, "s1")) < 4:
                await server.get("/health")
        assert await contents(server, "s1") == ["one", "re: one", "two", "re: two"]


async def test_what_waits_at_a_stop_is_recorded_then(data: Path, upstream: Upstream) -> None:
    async with cold(data, upstream) as server:
        with out_of_reach(data):
            await ask(server, "two", "s1")
    async with empty(data, upstream=upstream.url) as server:
        assert await contents(server, "s1") == ["one", "re: one", "two", "re: two"]


async def test_what_can_not_be_recorded_at_a_stop_is_told_whole(data: Path, upstream: Upstream) -> None:
    with structlog.testing.capture_logs() as logs:
        async with contextlib.AsyncExitStack() as away, cold(data, upstream) as server:
            away.enter_context(out_of_reach(data))
            await ask(server, "two", "s1")
    lost = next(entry for entry in logs if entry["event"].endswith("is lost"))
    assert lost["session_id"] == "s1"
    assert "two" in lost["items"][0]
    assert "re: two" in lost["output"][0]
    assert any(entry["event"] == "answering a turn without history" for entry in logs)


async def test_views_that_can_not_be_built_for_lack_of_the_log_are_out_of_reach_too(
    data: Path, upstream: Upstream
) -> None:
    async with cold(data, upstream) as server:
        rename(data, "tips", "gone", "views.db")
        with out_of_reach(data):
            told = await ask(server, "two", "s1")
            assert (told.status, told.history) == (200, UNAVAILABLE)
        await views_are_back(server)
        await ask(server, "three", "s1")
        assert sent(upstream) == ["one", "re: one", "two", "re: two", "three"]


async def test_a_damaged_log_is_not_merely_out_of_reach(data: Path, upstream: Upstream) -> None:
    async with cold(data, upstream) as server:
        with contextlib.closing(sqlite3.connect(data / LOG_FILE)) as other:
            for (name,) in other.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                other.execute(f"DROP TRIGGER {name}")
            other.execute("UPDATE events SET data = zeroblob(length(data)) WHERE position = 2")
            other.commit()
        told = await ask(server, "two", "s1")
        assert told.status == 503
        assert "log_damaged" in told.body
        assert len(upstream.requests) == 1


async def test_a_full_disk_costs_no_turn(data: Path, upstream: Upstream) -> None:
    flags = ("--upstream", upstream.url, "--history-on-failure", "empty")
    process = await Process.start(data, *flags)
    for number in range(30):  # so that the log outgrows everything else that the server writes
        await ask(process.server, f"q{number}", "s1")
    written = (data / f"{LOG_FILE}-wal").stat().st_size
    before = resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE, (written, resource.RLIM_INFINITY))
    told = await ask(process.server, "while it is full", "s1")
    assert (told.status, told.history) == (200, UNAVAILABLE)
    resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE, before)
    told = await ask(process.server, "afterwards", "s1")
    assert (told.status, told.history) == (200, "")
    assert sent(upstream)[-3:] == ["while it is full", "re: while it is full", "afterwards"]
    assert len(sent(upstream)) == 63
    assert await process.terminate() == 0
    assert "recorded a turn that was answered without history" in process.log


def late(turn_id: str, **request: Any) -> Any:
    command = begin(turn_id, **request).keywords["command"]  # type: ignore[attr-defined]
    answer = Late(
        command.request, turn_id, Answer(message=assistant("hi"), finish_reason="stop", model="m"), Pieces((2,))
    )
    return partial(decide_late.record, command=command, late=answer)


def test_a_late_turn_begins_and_completes_at_once() -> None:
    new = started("t9", "new", conversation="slug")
    digest = history.extended(
        history.beginning(Scope()), (user("hello"), assistant("hi"), user("new"), assistant("hi"))
    )
    first = completed(
        "t1", history_digest=history.extended(history.beginning(Scope()), (user("hello"), assistant("hi")))
    )
    given(session_started(), started("t1"), first).when(late("t9", names=Names(conversation="slug"))).then(
        new,
        completed("t9", history_digest=digest, delta_lengths=(2,)),
        ConversationAdvanced(conversation="slug", session_id="s1", turn_id="t9"),
    )


def test_a_late_turn_that_is_there_already_is_not_recorded_again() -> None:
    given(session_started(), started("t9"), completed("t9")).when(late("t9")).then()


def test_a_late_turn_waits_for_an_open_one() -> None:
    given(session_started(), started("t1")).when(late("t9")).then_refused(TurnInProgress)
