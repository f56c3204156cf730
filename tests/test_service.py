"""The turns as a service, without HTTP: what no sequence of turns, forks, failures and restarts can break."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.models.model import Answer, Choice, Chunk, ModelInfo, ModelUnreachable, Prompt, Way
from api.turns import cache
from api.turns.compress import Compression
from api.turns.lineages import Lineages
from api.turns.refusals import LineageBusy, ShuttingDown
from api.turns.request import Names, TurnRequest
from api.turns.rotation import Rotations
from api.turns.service import Turns
from eventstore.events import TurnCancelled, lineage_stream
from eventstore.log import Recorded
from eventstore.sqlite import SqliteLog
from projections.rebuild import rebuild
from projections.runner import VIEWS_FILE, Runner
from projections.snapshot import Snapshot
from projections.views import VIEWS
from tests.support.facts import assistant, session_started, started, texts, user


class ScriptedModel:
    """Answers with the number of messages it sees, fails when told to, and keeps what it was sent."""

    def __init__(self) -> None:
        self.prompts: list[list[str]] = []
        self.fails = False
        self.gate = asyncio.Event()
        self.gate.set()
        self._news = asyncio.Condition()

    async def asked(self, times: int) -> None:
        """Return once the model has been asked so many times."""
        async with self._news:
            await self._news.wait_for(lambda: len(self.prompts) >= times)

    async def _note(self, prompt: Prompt) -> None:
        async with self._news:
            self.prompts.append(texts(prompt.messages))
            self._news.notify_all()

    async def complete(self, prompt: Prompt) -> Answer:
        await self._note(prompt)
        await self.gate.wait()
        if self.fails:
            raise ModelUnreachable("no")
        return Answer(message=assistant(f"a{len(prompt.messages)}"), finish_reason="stop", model=prompt.model)

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Chunk, None]:
        await self._note(prompt)
        yield Chunk([Choice(0, {"role": "assistant", "content": "a"})])
        await self.gate.wait()
        yield Chunk([Choice(0, {}, "stop")])

    def way(self, model: str) -> Way:
        return Way(model=model)

    async def models(self) -> list[ModelInfo]:
        return []


def turns_on(
    lineages: Lineages,
    model: ScriptedModel,
    rotations: Rotations | None = None,
    *,
    turn_max_s: float = 60,
    lock_wait_s: float = 5,
) -> Turns:
    """The turns of one server."""
    rotations = rotations or Rotations(lineages, model, Compression(), {})
    return Turns(lineages, model, rotations, turn_max_s=turn_max_s, lock_wait_s=lock_wait_s)


class Service:
    """A log, its views and the turns on them; `restart` leaves nothing in memory."""

    def __init__(self, data: Path, *, summarises: bool = True) -> None:
        self.data = data
        self.model = ScriptedModel()
        self._summariser = self.model if summarises else None

    async def start(self) -> None:
        self.log = await SqliteLog.open(self.data, synchronous="OFF")
        self.views = await Runner.start(self.log, self.data / VIEWS_FILE, VIEWS)
        self.lineages = Lineages(self.log, self.views, lock_wait_s=5)
        self.rotations = Rotations(self.lineages, self._summariser, Compression(), {})
        self.turns = turns_on(self.lineages, self.model, self.rotations)
        await self.turns.cancel_left_open()

    async def stop(self) -> None:
        await self.turns.stop(0)
        await self.views.stop()
        await self.log.close()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def turn(self, text: str, **names: str) -> tuple[str, str]:
        """One turn: the effective session id and the response's id."""
        async with self.turns.turn(request(text, **names)) as turn:
            done = await turn.answer()
        return turn.session_id, f"resp_{done.turn_id}"


def request(text: str, **names: str) -> TurnRequest:
    fields: dict[str, Any] = {"tenant": "acme", "api": "responses", "model": "m"}
    return TurnRequest(names=Names(**names), items=(user(text),), opening=(user(text),), **fields)


@contextlib.asynccontextmanager
async def running(data: Path, *, summarises: bool = True) -> AsyncIterator[Service]:
    service = Service(data, summarises=summarises)
    await service.start()
    try:
        yield service
    finally:
        await service.stop()


STEPS = st.one_of(
    st.tuples(st.just("slug"), st.integers(0, 2)),
    st.tuples(st.just("session"), st.integers(0, 2)),
    st.tuples(st.just("previous"), st.integers(0, 30)),
    st.tuples(st.just("fail"), st.integers(0, 2)),
    st.tuples(st.just("delete"), st.integers(0, 30)),
    st.tuples(st.just("restart"), st.just(0)),
    st.tuples(st.just("forget views"), st.just(0)),
)


class Expected:
    """What a client would say happened: the transcript under each name and each response."""

    def __init__(self) -> None:
        self.transcripts: dict[str, list[str]] = {}  # by session id
        self.slugs: dict[str, str] = {}
        self.responses: dict[str, tuple[str, int]] = {}  # session id, length of its transcript then
        self.order: list[str] = []


async def _step(service: Service, expected: Expected, kind: str, number: int, text: str) -> None:
    if kind == "restart":
        await service.restart()
    elif kind == "forget views":
        await service.stop()
        (service.data / VIEWS_FILE).unlink()
        await service.start()
    elif kind == "delete" and expected.order:
        response_id = expected.order.pop(number % len(expected.order))
        await service.turns.delete_response("acme", response_id)
        del expected.responses[response_id]
    elif kind == "fail":
        service.model.fails = True
        with pytest.raises(ModelUnreachable):
            await service.turn(text, session_id=f"s{number}")
        service.model.fails = False
        expected.transcripts.setdefault(f"s{number}", [])
    elif kind in ("slug", "session"):
        names = {"conversation": f"c{number}"} if kind == "slug" else {"session_id": f"s{number}"}
        session_id, response_id = await service.turn(text, **names)
        known = expected.slugs.setdefault(f"c{number}", session_id) if kind == "slug" else f"s{number}"
        assert session_id == known
        _said(service, expected, session_id, response_id, expected.transcripts.get(session_id, []), text)
    elif kind == "previous" and expected.order:
        previous = expected.order[number % len(expected.order)]
        parent, length = expected.responses[previous]
        session_id, response_id = await service.turn(text, previous_response_id=previous)
        before = expected.transcripts[parent]
        assert (session_id == parent) == (length == len(before)), "a fork, exactly where it is not the newest"
        _said(service, expected, session_id, response_id, before[:length], text)


def _said(
    service: Service, expected: Expected, session_id: str, response_id: str, before: list[str], text: str
) -> None:
    assert service.model.prompts[-1] == [*before, text]
    expected.transcripts[session_id] = [*before, text, f"a{len(before) + 1}"]
    expected.responses[response_id] = (session_id, len(before) + 2)
    expected.order.append(response_id)


@given(st.lists(STEPS, max_size=25))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_sequence_of_turns_forks_failures_deletions_and_restarts_loses_and_doubles_nothing(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    async def run() -> None:
        data = tmp_path_factory.mktemp("service")
        async with running(data) as service:
            expected = Expected()
            for index, (kind, number) in enumerate(steps):
                await _step(service, expected, kind, number, f"q{index}")
            await service.restart()
            for session_id, transcript in expected.transcripts.items():
                session = await service.lineages.reader.session("acme", session_id)
                assert texts(session.transcript) == transcript
            (await rebuild(service.log, data / "rebuilt.db", VIEWS)).close()
            await service.views.level()
            live, rebuilt = (Snapshot(data / name, VIEWS) for name in (VIEWS_FILE, "rebuilt.db"))
            assert list(live.rows()) == list(rebuilt.rows())
            live.close()
            rebuilt.close()

    asyncio.run(run())


async def test_sixteen_first_requests_for_one_new_slug_make_one_session(data: Path) -> None:
    async with running(data) as service:
        turns = await asyncio.gather(*(service.turn(f"q{n}", conversation="new") for n in range(16)))
        assert len({session_id for session_id, _ in turns}) == 1
        assert sorted(len(prompt) for prompt in service.model.prompts) == list(range(1, 32, 2))


async def test_two_services_on_one_log_take_turns_by_the_log_alone(data: Path) -> None:
    async with running(data) as service:
        other = turns_on(Lineages(service.log, service.views, lock_wait_s=5), service.model)
        service.model.gate.clear()
        first = asyncio.create_task(service.turn("one", session_id="s1"))
        await service.model.asked(1)

        async def second() -> None:
            async with other.turn(request("two", session_id="s1")) as turn:
                await turn.answer()

        waiting = asyncio.create_task(second())
        service.model.gate.set()
        await asyncio.gather(first, waiting)
        assert service.model.prompts[1] == ["one", "a1", "two"]


async def test_a_lease_that_has_run_out_is_taken_over_and_its_answer_comes_too_late(data: Path) -> None:
    async with running(data) as service:
        hurried = turns_on(Lineages(service.log, service.views, lock_wait_s=5), service.model, turn_max_s=-29.99)
        service.model.gate.clear()

        async def slow() -> None:
            async with hurried.turn(request("slow", session_id="s1")) as turn:
                await turn.answer()

        late = asyncio.create_task(slow())
        await service.model.asked(1)
        taking_over = asyncio.create_task(service.turn("next", session_id="s1"))
        await service.model.asked(2)
        service.model.gate.set()
        await taking_over
        with pytest.raises(Exception, match="its lease had run out"):
            await late
        events = [recorded.event for recorded in await service.log.read(lineage_stream("acme", "s1"))]
        assert [type(event).__name__ for event in events] == [
            *("SessionStarted", "TurnStarted", "TurnCancelled", "TurnStarted", "TurnCompleted")
        ]
        assert service.model.prompts[1] == ["next"]


async def test_turns_that_a_dead_process_left_open_are_cancelled_at_the_start(data: Path) -> None:
    log = await SqliteLog.open(data)
    await log.append(lineage_stream("acme", "s1"), 0, (session_started(), started("t1", "lost", owner="dead")))
    await log.close()
    async with running(data) as service:
        session = await service.lineages.reader.session("acme", "s1")
        assert session.turns[0].ended == TurnCancelled(turn_id="t1", reason="crash")
        await service.turn("again", session_id="s1")
        assert service.model.prompts == [["again"]]


async def test_a_stop_lets_turns_finish_and_cancels_what_is_left(data: Path) -> None:
    async with running(data) as service:
        service.model.gate.clear()
        left = asyncio.create_task(service.turn("left", session_id="s1"))
        await service.model.asked(1)
        stopping = asyncio.create_task(service.turns.stop(0.01))
        with pytest.raises(ShuttingDown):
            await left
        await stopping
        with pytest.raises(ShuttingDown):
            await service.turn("new", session_id="s2")
        session = await service.lineages.reader.session("acme", "s1")
        assert session.turns[0].ended == TurnCancelled(turn_id=session.turns[0].turn_id, reason="shutdown")


async def test_a_turn_waits_for_its_session_only_so_long(data: Path) -> None:
    async with running(data) as service:
        service.turns = turns_on(
            Lineages(service.log, service.views, lock_wait_s=0.05), service.model, lock_wait_s=0.05
        )
        service.model.gate.clear()
        first = asyncio.create_task(service.turn("one", session_id="s1"))
        await service.model.asked(1)
        with pytest.raises(LineageBusy):
            await service.turn("two", session_id="s1")
        service.model.gate.set()
        await first


async def test_a_client_that_hangs_up_leaves_what_was_said_so_far_and_frees_the_session(data: Path) -> None:
    async with running(data) as service:
        service.model.gate.clear()
        heard = asyncio.Event()

        async def listen() -> None:
            async with (
                service.turns.turn(request("one", session_id="s1")) as turn,
                contextlib.aclosing(turn.chunks()) as chunks,
            ):
                async for _ in chunks:
                    heard.set()

        listener = asyncio.create_task(listen())
        await heard.wait()
        listener.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listener
        session = await service.lineages.reader.session("acme", "s1")
        ended = session.turns[0].ended
        assert isinstance(ended, TurnCancelled)
        assert ended.reason == "disconnect"
        assert msgspec.json.decode(ended.output[0])["content"] == "a"
        service.model.gate.set()
        await service.turn("two", session_id="s1")
        assert service.model.prompts[-1] == ["two"]


async def test_a_session_pushed_out_of_memory_is_folded_again(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "WEIGHT_MAX_BYTES", 1)
    async with running(data) as service:
        for number in range(3):
            for session in ("s1", "s2"):
                await service.turn(f"{session}-{number}", session_id=session)
        assert service.model.prompts[-1] == ["s2-0", "a1", "s2-1", "a3", "s2-2"]
        assert len(service.lineages.sessions._kept) == 1


async def test_a_slow_read_does_not_put_an_older_session_over_a_newer_one(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(data) as service:
        await service.turn("one", session_id="s1")
        sessions, stream = service.lineages.sessions, lineage_stream("acme", "s1")
        newest = await sessions.get(stream)
        sessions._drop(stream)
        read = service.log.read

        async def overtaken(stream: str, after_version: int = 0) -> list[Recorded]:
            events = await read(stream, after_version)
            sessions.keep(newest)
            return events[:-1]

        monkeypatch.setattr(service.log, "read", overtaken)
        assert await sessions.get(stream) is newest
