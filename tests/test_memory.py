"""Memory: what was said elsewhere under the same key reaches the model; nothing crosses keys, tenants or switches."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.models.model import Answer, Choice, Chunk, ModelInfo, Prompt, Way
from api.turns import memory as memories
from api.turns import said_before
from api.turns.compress import Compression
from api.turns.lineages import Lineages
from api.turns.memory import (
    HEADING,
    PASSAGE_CHARACTERS_MAX,
    PASSAGES_MAX,
    Memory,
    MemoryUnavailable,
    Passage,
    Question,
    asked_in,
    passage_of,
    recollection,
)
from api.turns.open_turn import OpenTurn
from api.turns.request import Names, TurnRequest
from api.turns.rotation import Rotations
from api.turns.said_before import SaidBefore, heaviest, saying, weighed
from api.turns.service import Turns
from eventstore.events import Recalled, SessionDeleted, TurnStarted, lineage_stream
from eventstore.log import LogUnavailable
from eventstore.sqlite import SqliteLog
from projections.runner import VIEWS_FILE, Runner
from projections.session import Session
from projections.turn import Turn
from projections.views import VIEWS
from tests.support.facts import assistant, completed, started, user
from tests.support.server import Server, serving
from tests.support.upstream import Upstream, refuses, says

APIS: dict[str, tuple[str, str]] = {
    "chat": ("/v1/chat/completions", "messages"),
    "responses": ("/v1/responses", "input"),
}
both_apis = pytest.mark.parametrize("api", APIS)
streamed_or_not = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


async def say(
    server: Server, text: str, session_id: str, key: str = "k", api: str = "chat", stream: bool = False, **headers: str
) -> dict[str, str]:
    """One turn under a session key; the headers of the answer."""
    path, field = APIS[api]
    body = {"model": "m", "stream": stream, field: [{"role": "user", "content": text}]}
    given_headers = {"X-Hermes-Session-Id": session_id, "X-Hermes-Session-Key": key, **headers}
    sent = {name.replace("_", "-"): value for name, value in given_headers.items() if value}
    async with server.http.post(path, json=body, headers=sent) as response:
        assert response.status == 200, await response.text()
        await response.read()
        return {name.lower(): value for name, value in response.headers.items()}


def context(upstream: Upstream) -> list[str]:
    """What the model was told of other conversations in its last request: one line a passage, without the date."""
    systems = [m["content"] for m in upstream.messages[-1] if m["role"] == "system"]
    (told,) = [content for content in systems if content.startswith(HEADING)] or [""]
    return [line.split(", ", 1)[1] for line in told.splitlines()[1:]]


async def recalled_in(data: Path) -> list[tuple[Recalled, ...]]:
    """What each turn's fact says it was given."""
    log = await SqliteLog.open_read_only(data)
    turns = [r.event.recalled async for batch in log.read_all() for r in batch if isinstance(r.event, TurnStarted)]
    await log.close()
    return turns


@both_apis
@streamed_or_not
async def test_what_was_said_in_another_session_is_given_to_the_model(
    server: Server, upstream: Upstream, data: Path, api: str, stream: bool
) -> None:
    first = await say(server, "My dog is called Rex", "s1", api=api, stream=stream)
    assert "x-turnlog-recalled" not in first
    second = await say(server, "What is my dog called?", "s2", api=api, stream=stream)
    assert context(upstream) == ["user: My dog is called Rex"]
    assert upstream.messages[-1][-1] == {"role": "user", "content": "What is my dog called?"}
    assert second["x-turnlog-recalled"] == "1"
    assert second["x-hermes-session-key"] == "k"
    nothing, given_ = await recalled_in(data)
    assert nothing == ()
    turn_id = (await server.messages("s1"))[0]["turn_id"]
    assert given_ == (Recalled(root_id="s1", turn_id=turn_id, message=0, first=0, length=20),)


async def test_the_context_stands_behind_the_instructions_and_before_the_history(
    server: Server, upstream: Upstream
) -> None:
    await say(server, "My dog is called Rex", "s1")
    await say(server, "hello", "s2")
    body = {
        "model": "m",
        "messages": [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "My dog?"}],
    }
    headers = {"X-Hermes-Session-Id": "s2", "X-Hermes-Session-Key": "k"}
    async with server.http.post("/v1/chat/completions", json=body, headers=headers) as response:
        assert response.status == 200
    sent = [(m["role"], m["content"].split(".")[0]) for m in upstream.messages[-1]]
    heading = HEADING.split(".", maxsplit=1)[0]
    assert sent == [
        ("system", "Be brief"), ("system", heading), ("user", "hello"), ("assistant", "1: hello"), ("user", "My dog?")
    ]  # fmt: skip
    await say(server, "unlike anything", "s2")
    assert context(upstream) == [], "it was this one turn's"


async def test_nothing_is_recalled_from_the_session_itself_or_what_it_was_forked_from(
    server: Server, upstream: Upstream
) -> None:
    await say(server, "the parrot sings", "s1", api="responses")
    await say(server, "another parrot", "s1", api="responses")
    assert context(upstream) == []
    first = (await server.messages("s1"))[0]["turn_id"]
    previous = f"resp_{first}"
    for text in ("parrot?", "and the parrot?"):
        body = {"model": "m", "input": text, "previous_response_id": previous}
        headers = {"X-Hermes-Session-Key": "k"}
        async with server.http.post("/v1/responses", json=body, headers=headers) as response:
            answer = await response.json()
            previous = answer["id"]
        assert context(upstream) == []
    await say(server, "which parrot", "s2")
    assert len(context(upstream)) == 4


async def test_nothing_crosses_keys_and_without_a_key_there_is_no_memory(server: Server, upstream: Upstream) -> None:
    await say(server, "treasure one", "s1", "k1")
    await say(server, "treasure two", "s2", "")
    for session_id, key in (("s3", "k2"), ("s4", ""), ("s5", "K1")):
        headers = await say(server, "treasure?", session_id, key)
        assert context(upstream) == []
        assert "x-turnlog-recalled" not in headers
    await say(server, "treasure?", "s6", "k1")
    assert context(upstream) == ["user: treasure one"]


async def test_what_was_acknowledged_a_moment_ago_is_recalled(server: Server, upstream: Upstream) -> None:
    for number in range(20):
        await say(server, f"word{number}", f"a{number}")
        await say(server, f"and word{number}?", f"b{number}")
        assert context(upstream) == [f"user: word{number}"]


async def test_a_turn_that_failed_is_not_recalled(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: refuses(400)
    headers = {"X-Hermes-Session-Id": "s1", "X-Hermes-Session-Key": "k"}
    body = {"model": "m", "messages": [{"role": "user", "content": "treasure"}]}
    async with server.http.post("/v1/chat/completions", json=body, headers=headers) as response:
        assert response.status == 400
    upstream.script = lambda _: says("ok")
    await say(server, "treasure?", "s2")
    assert context(upstream) == []


async def test_a_deleted_session_is_not_recalled(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        await say(server, "treasure", "s1")
    log = await SqliteLog.open(data)
    await log.append(lineage_stream("default", "s1"), 3, (SessionDeleted(),))
    await log.close()
    async with serving(data, upstream=upstream.url) as server:
        await say(server, "treasure?", "s2")
        assert context(upstream) == []


async def test_memory_is_off_where_the_request_or_the_server_says_so(
    server: Server, tmp_path: Path, upstream: Upstream
) -> None:
    await say(server, "treasure", "s1")
    await say(server, "treasure?", "s2", X_Turnlog_Memory="off")
    assert context(upstream) == []
    await say(server, "treasure??", "s3", X_Turnlog_Memory="on")
    assert "user: treasure" in context(upstream)
    async with serving(tmp_path / "other", upstream=upstream.url, memory=False) as forgetful:
        await say(forgetful, "treasure", "s1")
        await say(forgetful, "treasure?", "s2")
        assert context(upstream) == []
        assert (await forgetful.get("/v1/capabilities"))["features"]["session_memory"] is False


@both_apis
@pytest.mark.parametrize("value", ["maybe", "OFF", "0", "false"])
async def test_a_switch_that_is_neither_on_nor_off_is_refused(
    server: Server, upstream: Upstream, api: str, value: str
) -> None:
    path, field = APIS[api]
    body = {"model": "m", field: [{"role": "user", "content": "x"}]}
    async with server.http.post(path, json=body, headers={"X-Turnlog-Memory": value}) as response:
        assert response.status == 400
        assert (await response.json())["error"]["param"] == "X-Turnlog-Memory"
    assert upstream.requests == []


async def test_capabilities_advertise_search_and_memory(server: Server) -> None:
    answer = await server.get("/v1/capabilities")
    features = answer["features"]
    assert (features["session_search"], features["session_memory"]) == (True, True)
    assert features["memory_header"] == "X-Turnlog-Memory"
    assert answer["endpoints"]["session_search"] == {"method": "GET", "path": "/api/sessions/search"}


async def test_a_web_page_may_send_the_switch_and_read_what_was_recalled(data: Path) -> None:
    async with serving(data, cors_origins=("https://chat.example",)) as server:
        asked = {"origin": "https://chat.example", "access-control-request-method": "POST"}
        async with server.http.options("/v1/chat/completions", headers=asked) as response:
            assert "X-Turnlog-Memory" in response.headers["access-control-allow-headers"]
        async with server.http.get("/health", headers={"origin": "https://chat.example"}) as response:
            assert "X-Turnlog-Recalled" in response.headers["access-control-expose-headers"]


async def test_what_the_model_was_given_can_be_told_from_the_log_alone(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        long = "lorem " * 300 + "the treasure lies under the oak " + "ipsum " * 300
        await say(server, long, "s1", api="responses")
        await say(server, "treasure found", "s2")
        await say(server, "where is the treasure?", "s3")
    log = await SqliteLog.open_read_only(data)
    (start,) = [r.event for r in await log.read(lineage_stream("default", "s3")) if isinstance(r.event, TurnStarted)]
    passages: list[Passage] = []
    for where in start.recalled:
        stream = lineage_stream("default", where.root_id)
        turn = Session.fold(stream, await log.read(stream)).find(where.turn_id)
        assert turn is not None
        passages.append(passage_of(where, turn))
    await log.close()
    assert len(passages) == 2
    assert all(0 < len(passage.text) <= PASSAGE_CHARACTERS_MAX for passage in passages)
    assert any("the treasure lies under the oak" in passage.text for passage in passages)
    assert [msgspec.json.decode(message) for message in recollection(passages)] == upstream.messages[-1][:1]


def test_a_place_that_its_turn_does_not_have_is_an_empty_passage() -> None:
    turn = Turn(started("t1", "hello"), 1, completed("t1", "hi"), 2)
    cases = [(0, 1, 3, "ell"), (1, 0, 99, "hi"), (2, 0, 5, ""), (-1, 0, 5, ""), (0, 9, 5, "")]
    for message, first, length, text in cases:
        where = Recalled(root_id="s1", turn_id="t1", message=message, first=first, length=length)
        assert passage_of(where, turn).text == text
    assert recollection([]) == ()


def test_words_that_say_something_are_looked_up_and_the_rarer_ones_weigh_more() -> None:
    assert saying(["what", "is", "the", "name", "of", "my", "dog", "dog", "日本"]) == ["name", "dog", "日本"]
    holders = {"rare": [7], "common": [9, 8, 7], "nowhere": [], "everywhere": list(range(said_before.HOLDERS_MAX))}
    weights = weighed(holders)
    assert weights["rare"] > weights["common"]
    assert set(weights) == {"rare", "common"}
    assert heaviest(holders, weights) == [7, 9, 8]
    assert set(weighed({"everywhere": holders["everywhere"]})) == {"everywhere"}


def test_the_question_is_what_the_user_says_anew() -> None:
    fields: dict[str, Any] = {"tenant": "t", "api": "chat", "names": Names(), "model": "m"}
    opening = (user("old"), b'{"role":"assistant","content":"a"}', user("new"), user("newer"))
    assert asked_in(TurnRequest(items=opening[2:], opening=opening, **fields)) == "new\nnewer"
    assert asked_in(TurnRequest(items=(), opening=opening, **fields)) == "newer"
    assert asked_in(TurnRequest(items=(b'{"role":"tool","content":"x"}',), opening=(), **fields)) == ""
    item = b'{"type":"message","role":"user","content":[{"type":"input_text","text":"hey"}]}'
    assert asked_in(TurnRequest(items=(item,), opening=(item,), **(fields | {"api": "responses"}))) == "hey"


class Terse:
    """A model that says nothing worth remembering."""

    async def complete(self, prompt: Prompt) -> Answer:
        return Answer(message=assistant("fine"), finish_reason="stop", model=prompt.model)

    async def stream(self, _prompt: Prompt) -> AsyncGenerator[Chunk, None]:
        yield Chunk([Choice(0, {"role": "assistant", "content": "fine"}, "stop")])

    def way(self, model: str) -> Way:
        return Way(model=model)

    async def models(self) -> list[ModelInfo]:
        return []


class Service:
    """Turns on a real log, with the memory that is handed over, or the one that is built in."""

    def __init__(self, lineages: Lineages, memory: Memory) -> None:
        rotations = Rotations(lineages, None, Compression(), {})
        self.turns = Turns(lineages, Terse(), rotations, turn_max_s=60, memory=memory)

    async def say(self, text: str, session_id: str, key: str, tenant: str = "acme") -> list[str]:
        """One turn; what the model was told of other conversations."""
        items, names = (user(text),), Names(session_id=session_id)
        request = TurnRequest(
            tenant=tenant, api="chat", names=names, model="m", items=items, opening=items, session_key=key
        )
        async with self.turns.turn(request) as turn:
            assert isinstance(turn, OpenTurn)
            first = msgspec.json.decode(turn.prompt.messages[0])
            await turn.answer()
        told = first["content"] if first["role"] == "system" else ""
        return [line.split(": ", 1)[1] for line in told.splitlines()[1:]]


@contextlib.asynccontextmanager
async def service(data: Path, memory: Memory | None = None) -> AsyncIterator[Service]:
    log = await SqliteLog.open(data, synchronous="OFF")
    views = await Runner.start(log, data / VIEWS_FILE, VIEWS)
    lineages = Lineages(log, views, lock_wait_s=5)
    built_in = SaidBefore(log, views, lineages.spoken)
    running = Service(lineages, memory or built_in)
    try:
        yield running
    finally:
        await running.turns.stop(0)
        built_in.close()
        await views.stop()
        await log.close()


SAYINGS = st.lists(
    st.tuples(st.sampled_from(["acme", "bravo"]), st.sampled_from(["", "k1", "k2"]), st.integers(0, 2)), max_size=25
)


@given(SAYINGS)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_said_where_only_the_same_key_of_the_same_tenant_recalls_it(
    tmp_path_factory: pytest.TempPathFactory, sayings: list[tuple[str, str, int]]
) -> None:
    async def run() -> None:
        said: dict[tuple[str, str], list[tuple[int, str]]] = {}
        async with service(tmp_path_factory.mktemp("memory")) as running:
            for number, (tenant, key, session) in enumerate(sayings):
                text = f"treasure{number:02} parrot"
                told = await running.say(text, f"s{session}", key, tenant)
                there = said.setdefault((tenant, key), [])
                elsewhere = [other for where, other in there if where != session and key]
                assert [line for line in told if line.startswith("treasure")] == elsewhere[-PASSAGES_MAX:]
                there.append((session, text))

    asyncio.run(run())


class Broken:
    """A memory that does what it is told to."""

    def __init__(self, answer: Exception | Sequence[Passage] | None) -> None:
        self.answer = answer
        self.asked: list[Question] = []

    async def recall(self, question: Question) -> Sequence[Passage]:
        self.asked.append(question)
        if self.answer is None:
            await asyncio.Event().wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer or ()


async def test_a_turn_goes_on_without_a_memory_that_fails_or_is_too_slow(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memories, "RECALL_S", 0.01)
    for number, answer in enumerate([MemoryUnavailable("gone fishing"), None]):
        async with service(data, Broken(answer)) as running:
            assert await running.say("treasure", f"s{number}", "k") == []
        said = "".join(capsys.readouterr())
        assert "nothing recalled" in said
        assert ("gone fishing" in said) == (answer is not None)


async def test_a_memory_is_asked_for_what_a_key_says_and_told_what_to_leave_out(data: Path) -> None:
    memory = Broken(())
    async with service(data, memory) as running:
        await running.say("without a key", "s1", "")
        assert memory.asked == []
        await running.say("with one", "s1", "k")
        assert memory.asked == [Question(tenant="acme", session_key="k", text="with one", left_out=("s1",))]


async def test_a_memory_that_returns_too_much_is_cut_short(data: Path) -> None:
    where = Recalled(root_id="x", turn_id="t", message=0, first=0, length=1)
    passages = [Passage(where, "user", 0, text) for text in ("x" * 501, "", *"abcdefgh")]
    async with service(data, Broken(passages)) as running:
        assert await running.say("treasure", "s1", "k") == ["a", "b", "c", "d", "e"]


async def test_a_log_that_can_not_be_read_leaves_the_built_in_memory_without_an_answer(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with service(data) as running:
        await running.say("treasure", "s1", "k")

        async def unreadable(_log: SqliteLog, _positions: Sequence[int]) -> list[Any]:
            raise LogUnavailable("for a moment")

        monkeypatch.setattr(SqliteLog, "at", unreadable)
        assert await running.say("treasure?", "s2", "k") == []


async def test_the_same_question_gets_the_same_passages_no_text_twice_and_not_itself(data: Path) -> None:
    async with service(data) as running:
        for number, text in enumerate(["the parrot is green", "The  parrot is GREEN", "which colour has the parrot?"]):
            await running.say(text, f"s{number}", "k")
        first = await running.say("which colour has the parrot?", "x", "k")
        assert first == await running.say("which colour has the parrot?", "y", "k")
        assert sum("green" in line.casefold() and "which" not in line for line in first) == 1
        assert "which colour has the parrot?" not in first
