"""Views from facts to rows: pure, replayable, and never the truth."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from freezegun import freeze_time
from hypothesis import HealthCheck, settings
from hypothesis import given as given_any
from hypothesis import strategies as st
from msgspec.structs import astuple, replace

from eventstore import recent, sqlite
from eventstore.events import (
    ConversationAdvanced,
    ConversationCreated,
    ConversationDeleted,
    ConversationUpdated,
    Event,
    ForkPoint,
    Identity,
    ItemsAdded,
    ResponseEvicted,
    SessionDeleted,
    TurnCancelled,
    TurnFailed,
)
from eventstore.log import LogUnavailable, Recorded
from eventstore.sqlite import SqliteLog
from projections import runner as runner_module
from projections.idempotency import KEPT_US
from projections.rebuild import rebuild
from projections.runner import VIEWS_FILE, Runner
from projections.sessions import SessionRow, preview
from projections.snapshot import Snapshot
from projections.store import ViewStore, ViewsUnusable
from projections.views import VIEWS
from tests.support.facts import STREAM, T0_US, assistant, completed, recorded, session_started, started

USAGE = b'{"prompt_tokens":10,"completion_tokens":4,"total_tokens":14,"prompt_tokens_details":{"cached_tokens":3}}'
SLUG_STREAM = "conversation/acme/slug"


class Rows:
    """given(events).then_rows(view, *rows): events of any streams, applied to all views at once."""

    def __init__(self, path: Path, events: Sequence[Recorded]) -> None:
        store = ViewStore.create(path, VIEWS)
        if events:
            store.apply(events)
        store.close()
        snapshot = Snapshot(path, VIEWS)
        self._rows = list(snapshot.rows())
        snapshot.close()

    def then_rows(self, view: str, *rows: tuple[object, ...]) -> None:
        assert [row for name, row in self._rows if name == view] == list(rows)

    def column(self, view: str, number: int) -> list[object]:
        return [row[number] for name, row in self._rows if name == view]


def given(path: Path, *events: Event, stream: str = STREAM) -> Rows:
    return Rows(path / "views.db", recorded(events, stream))


def session_row(**fields: Any) -> tuple[object, ...]:
    row = SessionRow(
        tenant="acme",
        root_id="s1",
        generation=1,
        superseded=0,
        session_id="s1",
        parent_session_id=None,
        forked_root_id=None,
        source="",
        session_key="",
        user_id="",
        title="",
        model="m",
        preview="hello",
        started_us=T0_US + 1_000_000,
        active_us=T0_US + 3_000_000,
        ended_us=None,
        end_reason="",
        turns=1,
        messages=2,
        tool_calls=0,
        input_tokens=0,
        output_tokens=0,
        cached_tokens=0,
        reasoning_tokens=0,
        has_instructions=0,
        open_turn=None,
        root_started_us=T0_US + 1_000_000,
        root_parent_id=None,
        earlier_input=0,
        earlier_output=0,
        earlier_cached=0,
        earlier_reasoning=0,
        metadata="{}",
    )
    return astuple(replace(row, **fields))


def test_a_completed_turn_is_counted_with_its_usage(tmp_path: Path) -> None:
    rows = given(tmp_path, session_started(), started("t1"), completed("t1", usage=USAGE))
    rows.then_rows("sessions", session_row(input_tokens=10, output_tokens=4, cached_tokens=3))


def test_an_open_turn_is_noted_and_an_ended_one_is_not(tmp_path: Path) -> None:
    failed = TurnFailed(turn_id="t1", code="x", message="y", status=0)
    cancelled = TurnCancelled(turn_id="t1", reason="crash", output=(assistant("half"),))
    cases: list[tuple[tuple[Event, ...], tuple[object, ...]]] = [
        ((), session_row(active_us=T0_US + 2_000_000, turns=0, messages=1, open_turn="t1")),
        ((failed,), session_row(turns=0, messages=1)),
        ((cancelled,), session_row(turns=0, messages=2)),
    ]
    for number, (endings, expected) in enumerate(cases):
        path = tmp_path / str(number)
        path.mkdir()
        given(path, session_started(), started("t1"), *endings).then_rows("sessions", expected)


def test_a_fork_names_its_parent_and_every_session_finds_its_lineage(tmp_path: Path) -> None:
    fork = session_started(
        forked_from=ForkPoint(session_id="s0", root_id="s0", turn_id="t0"), identity=Identity(user_id="ada")
    )
    rows = given(tmp_path, fork)
    rows.then_rows("tips", ("acme", "s1", "s1", "s1"))
    assert rows.column("sessions", 5) == ["s0"]
    assert rows.column("sessions", 9) == ["ada"]


def test_a_conversation_leads_to_its_session_and_knows_its_newest_response(tmp_path: Path) -> None:
    events = recorded([ConversationCreated(name="slug", session_id="s1")], SLUG_STREAM)
    advanced = ConversationAdvanced(conversation="slug", session_id="s1", turn_id="t1")
    events += recorded([session_started(), started("t1"), completed("t1"), advanced], first_position=2)
    created_us, advanced_us = T0_US + 1_000_000, T0_US + 4_000_000
    Rows(tmp_path / "v.db", events).then_rows(
        "conversations", ("acme", "slug", "s1", "t1", created_us, advanced_us, 1, "{}")
    )


def test_a_conversation_is_moved_by_its_own_lineage_alone(tmp_path: Path) -> None:
    advanced = ConversationAdvanced(conversation="slug", session_id="s1", turn_id="t1")
    events = recorded([ConversationCreated(name="slug", session_id="s2")], SLUG_STREAM)
    events += recorded([session_started(), started("t1"), completed("t1"), advanced], first_position=2)
    assert Rows(tmp_path / "v.db", events).column("conversations", 3) == [None]


def test_a_conversation_that_was_deleted_has_no_row_and_its_notes_are_the_newest(tmp_path: Path) -> None:
    created = ConversationCreated(name="slug", session_id="s1", metadata=b'{"a":"b"}')
    updated = ConversationUpdated(metadata=b'{"c":"d"}')
    at_us = [T0_US + second * 1_000_000 for second in range(5)]
    lives: list[tuple[list[Event], list[tuple[object, ...]]]] = [
        ([created], [("acme", "slug", "s1", None, at_us[1], at_us[1], 1, '{"a":"b"}')]),
        ([created, updated], [("acme", "slug", "s1", None, at_us[1], at_us[2], 1, '{"c":"d"}')]),
        ([created, updated, ConversationDeleted()], []),
        (
            [created, ConversationDeleted(), replace(created, session_id="s2", metadata=b"")],
            [("acme", "slug", "s2", None, at_us[3], at_us[3], 3, "{}")],
        ),
    ]
    for number, (events, expected) in enumerate(lives):
        Rows(tmp_path / f"{number}.db", recorded(events, SLUG_STREAM)).then_rows("conversations", *expected)


def test_added_items_are_counted_and_begin_the_preview(tmp_path: Path) -> None:
    added = ItemsAdded(turn_id="t1", items=(b'{"type":"reasoning"}', b'{"role":"user","content":"hello"}'))
    expected = session_row(turns=0, model="", active_us=T0_US + 2_000_000)
    given(tmp_path, session_started(), added).then_rows("sessions", expected)


def test_only_responses_are_addressable_and_an_evicted_one_is_not(tmp_path: Path) -> None:
    evicted = ResponseEvicted(turn_id="t2", reason="deleted")
    turns = [event for n in (1, 2) for event in (started(f"t{n}", api="responses"), completed(f"t{n}"))]
    rows = given(tmp_path, session_started(), *turns, started("t3"), completed("t3"), evicted)
    rows.then_rows("responses", ("t1", "acme", "s1", T0_US + 2_000_000))


def test_a_response_is_used_as_it_is_made_and_as_a_turn_goes_on_from_it(tmp_path: Path) -> None:
    turns = [event for n in (1, 2) for event in (started(f"t{n}", api="responses"), completed(f"t{n}"))]
    rows = given(tmp_path, session_started(), *turns, started("t3", previous_response_id="resp_t1"))
    rows.then_rows("responses", ("t1", "acme", "s1", T0_US + 6_000_000), ("t2", "acme", "s1", T0_US + 4_000_000))


def keyed(turn_id: str, key: str = "k", scope: str = "chat session:s1") -> tuple[Event, Event]:
    digest = turn_id.encode()
    return (
        started(turn_id, idempotency_key=key, idempotency_scope=scope, body_digest=digest),
        completed(turn_id),
    )


def test_an_idempotency_key_finds_the_newest_turn_of_its_scope(tmp_path: Path) -> None:
    elsewhere = keyed("t3", scope="responses")
    rows = given(tmp_path, session_started(), *keyed("t1"), *keyed("t2"), *elsewhere)
    rows.then_rows(
        "idempotency_keys",
        ("acme", "chat session:s1", "k", "s1", "t2", b"t2", T0_US + 4_000_000),
        ("acme", "responses", "k", "s1", "t3", b"t3", T0_US + 6_000_000),
    )


def test_a_key_without_a_scope_was_never_honoured_and_is_not_found(tmp_path: Path) -> None:
    given(tmp_path, session_started(), *keyed("t1", scope="")).then_rows("idempotency_keys")


def test_the_keys_of_a_deleted_session_are_free_again(tmp_path: Path) -> None:
    given(tmp_path, session_started(), *keyed("t1"), SessionDeleted()).then_rows("idempotency_keys")


def test_keys_older_than_a_day_go_a_few_at_a_time_as_new_ones_come(tmp_path: Path) -> None:
    def at(event: Event, us: int) -> Recorded:
        return Recorded(us + 1, STREAM, us + 1, us, event, b"")

    old = [at(keyed(f"t{n}", f"k{n}")[0], n) for n in range(9)]
    new = [at(keyed(f"n{n}", f"new {n}")[0], KEPT_US + 7 + n) for n in range(3)]
    for count, left in ((0, 9), (1, 5), (2, 1), (3, 0)):
        path = tmp_path / str(count)
        path.mkdir()
        rows = Rows(path / "v.db", [*old, *new[:count]])
        assert rows.column("idempotency_keys", 2) == [f"k{n}" for n in range(9 - left, 9)] + [
            f"new {n}" for n in range(count)
        ]


@pytest.mark.parametrize(
    ("said", "shown"),
    [("hello", "hello"), ("a\n  b", "a b"), ("x" * 60, "x" * 60), ("x" * 61, "x" * 60 + "..."), ("", "")],
)
def test_a_preview_is_one_short_line(said: str, shown: str) -> None:
    assert preview(started("t1", said).items) == shown


async def _log_with_turns(data: Path) -> SqliteLog:
    log = await SqliteLog.open(data)
    for session in ("s1", "s2"):
        stream = f"lineage/acme/{session}"
        await log.append(stream, 0, (session_started(session), started(f"{session}-1"), completed(f"{session}-1")))
    await log.append(SLUG_STREAM, 0, (ConversationCreated(name="slug", session_id="s1"),))
    return log


def _all_rows(path: Path) -> list[tuple[str, tuple[object, ...]]]:
    snapshot = Snapshot(path, VIEWS)
    rows = list(snapshot.rows())
    snapshot.close()
    return rows


@pytest.mark.parametrize("now", ["1999-12-31T23:59:59", "2026-11-20", "2099-01-01T00:00:00"])
async def test_the_same_log_replays_to_the_same_rows_whatever_the_clock_says(data: Path, now: str) -> None:
    with freeze_time("2026-06-01T12:00:00", real_asyncio=True):
        log = await _log_with_turns(data)
    (await rebuild(log, data / "then.db", VIEWS)).close()
    with freeze_time(now, real_asyncio=True):
        (await rebuild(log, data / "now.db", VIEWS)).close()
    await log.close()
    assert _all_rows(data / "now.db") == _all_rows(data / "then.db")
    assert 1_780_315_200_000_000 in [row[13] for name, row in _all_rows(data / "now.db") if name == "sessions"]


async def test_replaying_gives_what_following_gave(data: Path) -> None:
    log = await _log_with_turns(data)
    runner = await Runner.start(log, data / VIEWS_FILE, VIEWS)
    for version in range(3, 43, 2):
        turn_id = f"s1-{version}"
        await log.append("lineage/acme/s1", version, (started(turn_id, api="responses"), completed(turn_id)))
        await runner.level()
    await runner.stop()
    (await rebuild(log, data / "rebuilt.db", VIEWS)).close()
    await log.close()
    assert _all_rows(data / "rebuilt.db") == _all_rows(data / VIEWS_FILE)


async def test_a_query_sees_everything_that_was_acknowledged_before_it(data: Path) -> None:
    log = await _log_with_turns(data)
    runner = await Runner.start(log, data / VIEWS_FILE, VIEWS)
    for number in range(50):
        await log.append(f"lineage/acme/x{number}", 0, (session_started(f"x{number}"),))
        rows = await runner.fetch("SELECT 1 FROM tips WHERE session_id = ?", (f"x{number}",))
        assert rows == [(1,)]
    await runner.stop()
    await log.close()


async def test_views_as_of_a_position_hold_nothing_later(data: Path) -> None:
    log = await _log_with_turns(data)
    store = await rebuild(log, data / "then.db", VIEWS, until=lambda position, _recorded_us: position > 3)
    assert store.head.position == 3
    store.close()
    await log.close()
    assert [row[1] for name, row in _all_rows(data / "then.db") if name == "sessions"] == ["s1"]


async def _spoil(path: Path, how: str) -> None:
    if how == "gone":
        path.unlink()
    elif how == "garbage":
        path.write_bytes(b"garbage" * 1_000)
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:4_096])
    else:
        with sqlite3.connect(path) as database:
            database.execute(f"UPDATE checkpoint SET {how}")
        database.close()


@pytest.mark.parametrize("how", ["gone", "garbage", "empty", "truncated", "views = 'older'", "hash = zeroblob(32)"])
async def test_unusable_views_are_rebuilt_and_it_is_said(
    data: Path, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log = await _log_with_turns(data)
    runner = await Runner.start(log, data / VIEWS_FILE, VIEWS)
    await runner.stop()
    expected = _all_rows(data / VIEWS_FILE)
    await _spoil(data / VIEWS_FILE, how)
    capsys.readouterr()
    runner = await Runner.start(log, data / VIEWS_FILE, VIEWS)
    assert await runner.fetch("SELECT count(*) FROM sessions", ()) == [(2,)]
    await runner.stop()
    await log.close()
    assert "rebuilding the views" in "".join(capsys.readouterr())
    assert _all_rows(data / VIEWS_FILE) == expected


async def test_views_that_turn_out_to_be_damaged_are_rebuilt_under_the_query_that_found_out(data: Path) -> None:
    log = await _log_with_turns(data)
    runner = await Runner.start(log, data / VIEWS_FILE, VIEWS)
    with sqlite3.connect(data / VIEWS_FILE) as other:
        other.execute("DROP TABLE tips")
    other.close()
    assert await runner.fetch("SELECT count(*) FROM tips", ()) == [(2,)]
    await log.append("lineage/acme/s3", 0, (session_started("s3"),))
    assert await runner.fetch("SELECT count(*) FROM tips", ()) == [(3,)]
    await runner.stop()
    await log.close()


async def test_views_that_can_not_take_an_event_are_rebuilt_for_the_next_query(data: Path) -> None:
    log = await _log_with_turns(data)
    runner = await Runner.start(log, data / VIEWS_FILE, VIEWS)
    with sqlite3.connect(data / VIEWS_FILE) as other:
        other.execute("DROP TABLE tips")
    other.close()
    await log.append("lineage/acme/s3", 0, (session_started("s3"),))
    found = await asyncio.gather(*(runner.fetch("SELECT count(*) FROM sessions", ()) for _ in range(5)))
    assert found == [[(3,)]] * 5
    await runner.stop()
    await log.close()


@given_any(st.lists(st.integers(1, 9), max_size=6))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_however_the_events_are_cut_into_batches_the_rows_are_the_same(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    events = recorded(
        [session_started(), *(e for n in range(6) for e in (started(f"t{n}", api="responses"), completed(f"t{n}")))]
    )
    directory = tmp_path_factory.mktemp("views")
    store = ViewStore.create(directory / "cut.db", VIEWS)
    rest = list(events)
    for cut in [*cuts, len(rest)]:
        if batch := rest[:cut]:
            store.apply(batch)
        rest = rest[cut:]
    store.close()
    Rows(directory / "whole.db", events)
    assert _all_rows(directory / "cut.db") == _all_rows(directory / "whole.db")


async def test_a_runner_that_is_stopped_in_the_middle_leaves_usable_views(data: Path) -> None:
    log = await _log_with_turns(data)
    runner = await Runner.start(log, data / VIEWS_FILE, VIEWS)
    appending = asyncio.gather(*(log.append(f"lineage/acme/y{n}", 0, (session_started(f"y{n}"),)) for n in range(200)))
    await runner.stop()
    await appending
    runner = await Runner.start(log, data / VIEWS_FILE, VIEWS)
    assert await runner.fetch("SELECT count(*) FROM sessions", ()) == [(202,)]
    await runner.stop()
    await log.close()


async def test_views_do_not_rest_while_somebody_waits_however_far_they_are_behind(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "REST_S", 1_000)
    monkeypatch.setattr(sqlite, "READ_ROWS_MAX", 10)
    monkeypatch.setattr(recent, "BYTES_MAX", 1)
    log = await _log_with_turns(data)
    runner = await Runner.start(log, data / VIEWS_FILE, VIEWS)
    for number in range(3):
        names = [f"z{number}-{n}" for n in range(100)]
        await asyncio.gather(*(log.append(f"lineage/acme/{name}", 0, (session_started(name),)) for name in names))
        async with asyncio.timeout(10):
            rows = await runner.fetch("SELECT count(*) FROM sessions", ())
        assert rows == [(2 + 100 * (number + 1),)]
    await runner.stop()
    await log.close()


async def test_a_query_that_is_cancelled_while_the_views_are_rebuilt_leaves_them_to_the_others(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await _log_with_turns(data)
    runner = await Runner.start(log, data / VIEWS_FILE, VIEWS)
    with sqlite3.connect(data / VIEWS_FILE) as other:
        other.execute("DROP TABLE tips")
    other.close()
    report, reported = runner._report, asyncio.Event()

    def report_and_tell(error: ViewsUnusable) -> None:
        report(error)
        reported.set()

    monkeypatch.setattr(runner, "_report", report_and_tell)
    hurried = asyncio.create_task(runner.fetch("SELECT count(*) FROM tips", ()))
    await reported.wait()
    hurried.cancel()
    async with asyncio.timeout(10):
        found = await asyncio.gather(*(runner.fetch("SELECT count(*) FROM tips", ()) for _ in range(3)))
    assert found == [[(2,)]] * 3
    await runner.stop()
    await log.close()


async def test_a_log_that_can_not_be_read_for_a_moment_stops_the_views_for_a_moment(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "RETRY_S", 0.01)
    log = await _log_with_turns(data)
    runner = await Runner.start(log, data / VIEWS_FILE, VIEWS)
    read_all, failures = log.read_all, iter([True, False])

    async def unreliable(after_position: int = 0, *, check: bool = True) -> AsyncIterator[list[Recorded]]:
        if next(failures, False):
            raise LogUnavailable("for a moment")
        async for batch in read_all(after_position, check=check):
            yield batch

    monkeypatch.setattr(log, "read_all", unreliable)
    monkeypatch.setattr(recent.Recent, "after", lambda _self, _position: None)
    await log.append("lineage/acme/s3", 0, (session_started("s3"),))
    with contextlib.suppress(LogUnavailable):
        await runner.level()
    async with asyncio.timeout(10):
        async with runner._moved:
            await runner._moved.wait_for(lambda: not runner._failure)
        assert await runner.fetch("SELECT count(*) FROM sessions", ()) == [(3,)]
    await runner.stop()
    await log.close()
