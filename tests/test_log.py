"""The log on real files: what `append` promises, what damage looks like, and who may write."""

import asyncio
import multiprocessing
import sqlite3
from pathlib import Path

import msgspec
import pytest
from freezegun import freeze_time
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventstore import chain, writer
from eventstore.chain import GENESIS
from eventstore.events import ConversationCreated, Event
from eventstore.log import (
    LogDamaged,
    LogLocked,
    LogOverloaded,
    LogUnavailable,
    LogUnreadable,
    Recorded,
    VersionConflict,
)
from eventstore.plain import connect
from eventstore.sqlite import SqliteLog
from tests.support.facts import STREAM, completed, session_started, started


async def everything(log: SqliteLog) -> list[Recorded]:
    return [recorded async for batch in log.read_all() for recorded in batch]


def claim(name: str) -> Event:
    return ConversationCreated(name=name, session_id=name)


async def test_what_is_appended_is_read_back_in_order(log: SqliteLog) -> None:
    first = await log.append(STREAM, 0, (session_started(), started("t1")))
    second = await log.append(STREAM, 2, (completed("t1"),))
    assert [recorded.version for recorded in (*first, *second)] == [1, 2, 3]
    assert await log.read(STREAM) == [*first, *second] == await everything(log)
    assert await log.read(STREAM, after_version=2) == list(second)
    assert log.head() == (3, second[0].hash)


async def test_events_are_read_at_their_positions_in_the_logs_order(log: SqliteLog) -> None:
    recorded = [(await log.append(f"conversation/t/{name}", 0, (claim(name),)))[0] for name in "abcd"]
    assert await log.at([4, 2, 99]) == [recorded[1], recorded[3]]
    assert await log.at([1]) == recorded[:1]
    assert await log.at([]) == []


async def test_positions_are_global_and_without_gaps(log: SqliteLog) -> None:
    await asyncio.gather(*(log.append(f"lineage/acme/s{n}", 0, (session_started(f"s{n}"),)) for n in range(300)))
    assert [recorded.position for recorded in await everything(log)] == list(range(1, 301))


@pytest.mark.parametrize("expected", [0, 1, 3])
async def test_a_wrong_expected_version_changes_nothing(log: SqliteLog, expected: int) -> None:
    await log.append(STREAM, 0, (session_started(), started("t1")))
    with pytest.raises(VersionConflict) as refused:
        await log.append(STREAM, expected, (completed("t1"), claim("x")))
    assert (refused.value.expected, refused.value.actual) == (expected, 2)
    assert len(await everything(log)) == 2


@pytest.mark.parametrize("expected", [0, 1, 3])
async def test_versions_are_known_after_a_restart(data: Path, expected: int) -> None:
    log = await SqliteLog.open(data)
    await log.append(STREAM, 0, (session_started(), started("t1")))
    await log.close()
    log = await SqliteLog.open(data)
    with pytest.raises(VersionConflict):
        await log.append(STREAM, expected, (completed("t1"),))
    assert (await log.append(STREAM, 2, (completed("t1"),)))[0].position == 3
    await log.close()


async def test_of_many_that_claim_one_name_one_wins_and_the_others_batch_mates_are_unharmed(log: SqliteLog) -> None:
    claims = [log.append("conversation/acme/x", 0, (claim("x"),)) for _ in range(50)]
    others = [log.append(f"conversation/acme/y{n}", 0, (claim(f"y{n}"),)) for n in range(50)]
    results = await asyncio.gather(*claims, *others, return_exceptions=True)
    assert sum(isinstance(result, VersionConflict) for result in results[:50]) == 49
    assert not [result for result in results[50:] if isinstance(result, Exception)]


async def test_a_claim_of_a_name_taken_before_the_restart_harms_nobody_in_its_batch(data: Path) -> None:
    log = await SqliteLog.open(data)
    await log.append("conversation/acme/x", 0, (claim("x"),))
    await log.close()
    log = await SqliteLog.open(data)
    results = await asyncio.gather(
        log.append("conversation/acme/x", 0, (claim("x"),)),
        log.append("conversation/acme/y", 0, (claim("y"),)),
        return_exceptions=True,
    )
    assert isinstance(results[0], VersionConflict)
    assert not isinstance(results[1], BaseException)
    await log.close()


async def test_a_cancelled_caller_learns_what_became_of_its_append_and_is_cancelled_at_the_next_await(
    log: SqliteLog,
) -> None:
    learnt: list[int] = []

    async def caller() -> None:
        recorded = await log.append(STREAM, 0, (session_started(),))
        learnt.append(recorded[0].position)
        await asyncio.Event().wait()

    task = asyncio.create_task(caller())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert learnt == [1]
    assert len(await everything(log)) == 1


async def test_a_caller_cancelled_in_the_moment_of_its_commit_learns_of_it_too(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert log._writer is not None
    acknowledge = log._writer._acknowledge
    learnt: list[int] = []

    async def caller() -> None:
        recorded = await log.append(STREAM, 0, (session_started(),))
        learnt.append(recorded[0].position)
        await asyncio.Event().wait()

    task = asyncio.create_task(caller())

    def cancel_and_acknowledge(staged: writer._Staged) -> None:
        task.cancel()
        task.cancel()
        acknowledge(staged)

    monkeypatch.setattr(log._writer, "_acknowledge", cancel_and_acknowledge)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    assert learnt == [1]


async def test_a_full_queue_makes_appends_wait_and_past_a_limit_refuses_them(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "QUEUE_ROWS_MAX", 4)
    monkeypatch.setattr(writer, "WAITERS_MAX", 2)
    appends = [log.append(f"conversation/acme/{n}", 0, (claim(str(n)),)) for n in range(8)]
    results = await asyncio.gather(*appends, return_exceptions=True)
    assert [type(result) for result in results] == [tuple] * 6 + [LogOverloaded] * 2


async def test_a_disk_that_does_not_keep_up_is_said_after_a_while(
    log: SqliteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "QUEUE_ROWS_MAX", 0)
    monkeypatch.setattr(writer, "WAIT_S", 0.01)
    with pytest.raises(LogOverloaded, match="has not kept up"):
        await log.append(STREAM, 0, (session_started(),))


async def test_a_disk_that_refuses_fails_the_append_and_the_next_one_works(log: SqliteLog, data: Path) -> None:
    await log.append(STREAM, 0, (session_started(),))
    other = sqlite3.connect(data / "log.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert log._writer is not None
    await log._writer._connection.execute("PRAGMA busy_timeout = 1")
    with pytest.raises(LogUnavailable, match="locked"):
        await log.append(STREAM, 1, (started("t1"),))
    other.execute("ROLLBACK")
    other.close()
    assert (await log.append(STREAM, 1, (started("t1"),)))[0].position == 2


async def test_text_that_can_not_be_stored_fails_its_caller_alone(log: SqliteLog) -> None:
    with pytest.raises(UnicodeEncodeError):
        await log.append("lineage/acme/\ud800", 0, (session_started(),))
    assert (await log.append(STREAM, 0, (session_started(),)))[0].position == 1


async def test_a_closed_log_says_so(data: Path) -> None:
    log = await SqliteLog.open(data)
    await log.close()
    with pytest.raises(LogUnavailable, match="closed"):
        await log.append(STREAM, 0, (session_started(),))


async def test_the_clock_going_back_never_puts_an_event_before_its_predecessor(log: SqliteLog) -> None:
    with freeze_time("2026-01-02", real_asyncio=True):
        await log.append(STREAM, 0, (session_started(),))
    with freeze_time("2026-01-01", real_asyncio=True):
        await log.append(STREAM, 1, (started("t1"),))
    first, second = await everything(log)
    assert second.recorded_us == first.recorded_us == 1_767_312_000_000_000


@pytest.mark.parametrize("sql", ["UPDATE events SET stream = 'x'", "DELETE FROM events WHERE position = 1"])
async def test_facts_can_not_be_changed_through_sql(log: SqliteLog, data: Path, sql: str) -> None:
    await log.append(STREAM, 0, (session_started(),))
    with sqlite3.connect(data / "log.db") as other, pytest.raises(sqlite3.IntegrityError, match="events are facts"):
        other.execute(sql)
    other.close()


async def test_a_reader_beside_the_server_sees_what_was_acknowledged(log: SqliteLog, data: Path) -> None:
    await log.append(STREAM, 0, (session_started(),))
    reader = await SqliteLog.open_read_only(data)
    assert len(await everything(reader)) == 1
    with pytest.raises(LogUnavailable, match="reading only"):
        await reader.append(STREAM, 1, (started("t1"),))
    await reader.close()


async def test_there_is_nothing_to_read_where_there_is_no_log(tmp_path: Path) -> None:
    with pytest.raises(LogUnavailable, match="there is no log in"):
        await SqliteLog.open_read_only(tmp_path)


async def test_a_follower_gets_the_past_and_then_the_news(log: SqliteLog) -> None:
    await log.append(STREAM, 0, (session_started(),))
    seen: asyncio.Queue[int] = asyncio.Queue()

    async def follow() -> None:
        async for batch in log.follow():
            for recorded in batch:
                seen.put_nowait(recorded.position)

    task = asyncio.create_task(follow())
    assert await seen.get() == 1
    await log.append(STREAM, 1, (started("t1"),))
    assert await seen.get() == 2
    task.cancel()


def _try_to_open(data: Path, answer: "multiprocessing.Queue[str]") -> None:
    async def attempt() -> None:
        try:
            log = await SqliteLog.open(data)
        except LogLocked as error:
            answer.put(str(error))
        else:
            await log.close()
            answer.put("opened")

    asyncio.run(attempt())


async def test_another_process_is_told_who_holds_the_log(data: Path) -> None:
    log = await SqliteLog.open(data)
    context = multiprocessing.get_context("spawn")
    answer: multiprocessing.Queue[str] = context.Queue()
    for said in (f"process {multiprocessing.current_process().pid} on", "opened"):
        other = context.Process(target=_try_to_open, args=(data, answer))
        other.start()
        assert said in await asyncio.to_thread(answer.get, timeout=30)
        await asyncio.to_thread(other.join)
        if said != "opened":
            await log.close()


async def _small_log(data: Path) -> None:
    log = await SqliteLog.open(data)
    await log.append(STREAM, 0, (session_started(), started("t1")))
    await log.append(STREAM, 2, (completed("t1"),))
    await log.append("conversation/acme/x", 0, (claim("x"),))
    await log.close()


async def _read_whole(data: Path) -> None:
    log = await SqliteLog.open_read_only(data)
    try:
        await everything(log)
    finally:
        await log.close()


def _tamper(data: Path, *statements: str) -> None:
    """What somebody with the `sqlite3` shell and no scruples could do."""
    with sqlite3.connect(data / "log.db") as database:
        database.execute("DROP TRIGGER events_are_never_updated")
        database.execute("DROP TRIGGER events_are_never_deleted")
        for statement in statements:
            database.execute(statement)
    database.close()


@pytest.mark.parametrize("position", [1, 2, 3, 4])
@pytest.mark.parametrize(
    "change",
    [
        "data = CAST(substr(data, 1, 20) || x'00' || substr(data, 22) AS BLOB)",
        "hash = zeroblob(32)",
        "recorded_us = recorded_us + 1",
        "type = 'TurnFailed'",
        "stream = 'lineage/acme/other', version = 1",
        "version = version + 7",
        "data = NULLIF('text', '')",
        "data = CAST(data AS TEXT)",
        "hash = CAST(hash AS TEXT)",
    ],
)
async def test_an_altered_row_is_named_by_its_position(data: Path, position: int, change: str) -> None:
    await _small_log(data)
    _tamper(data, f"UPDATE events SET {change} WHERE position = {position}")
    with pytest.raises(LogDamaged) as damaged:
        await _read_whole(data)
    assert damaged.value.position == position


@pytest.mark.parametrize("position", [1, 2, 3])
async def test_a_missing_row_is_named_by_its_position(data: Path, position: int) -> None:
    await _small_log(data)
    _tamper(data, f"DELETE FROM events WHERE position = {position}")
    log = await SqliteLog.open_read_only(data)
    with pytest.raises(LogDamaged, match="missing") as damaged:
        await everything(log)
    await log.close()
    assert damaged.value.position == position


async def test_a_stream_is_not_read_over_a_gap_or_an_altered_row(data: Path) -> None:
    await _small_log(data)
    _tamper(data, "DELETE FROM events WHERE position = 2")
    log = await SqliteLog.open_read_only(data)
    with pytest.raises(LogDamaged) as damaged:
        await log.read(STREAM)
    await log.close()
    assert damaged.value.position == 3


async def test_an_event_of_a_newer_turnlog_is_never_skipped(data: Path) -> None:
    log = await SqliteLog.open(data)
    await log.append(STREAM, 0, (session_started(),))
    assert log._writer is not None
    data_ = bytes(16) + msgspec.msgpack.encode({"type": "SessionStarted:2", "mood": "new"})
    link = chain.link(log.head().hash, 2, STREAM, 2, "SessionStarted:2", 5, data_)
    await log._writer._connection.execute(
        "INSERT INTO events VALUES (2, ?, 2, 'SessionStarted:2', 5, ?, ?)", (STREAM, data_, link)
    )
    with pytest.raises(LogUnreadable, match="position 2 can not be read: SessionStarted in version 2") as unreadable:
        await log.read(STREAM)
    assert unreadable.value.position == 2
    await log.close()


async def test_a_log_whose_tables_are_named_in_garbage_is_damaged(data: Path) -> None:
    """SQLite quotes what it stumbles over, and that is no text."""
    await _small_log(data)
    content = (data / "log.db").read_bytes()
    damaged = content.replace(b"tableevents", b"table\x80vents").replace(b"CREATE TABLE events", b"CREATE TABLE eve,ts")
    (data / "log.db").write_bytes(damaged)
    for opened in (SqliteLog.open, SqliteLog.open_read_only):
        with pytest.raises(LogDamaged):
            await opened(data)
    with pytest.raises(LogDamaged):
        connect(data)


async def test_a_file_that_is_no_log_is_refused(data: Path) -> None:
    data.mkdir()
    (data / "log.db").write_bytes(b"this is not a database" * 100)
    with pytest.raises(LogDamaged, match="not a database"):
        await SqliteLog.open(data)


async def test_a_log_of_another_format_is_refused(data: Path) -> None:
    await _small_log(data)
    with sqlite3.connect(data / "log.db") as database:
        database.execute("PRAGMA user_version = 9")
    database.close()
    with pytest.raises(LogUnavailable, match="format 9; this turnlog reads format 1"):
        await SqliteLog.open_read_only(data)


async def test_the_hash_before_the_first_event_is_zero(log: SqliteLog) -> None:
    assert await log.hash_at(0) == GENESIS
    assert await log.hash_at(1) is None
    (only,) = await log.append(STREAM, 0, (session_started(),))
    assert await log.hash_at(1) == only.hash


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4), st.booleans()), max_size=30))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_mix_of_right_and_wrong_appends_leaves_contiguous_versions_and_a_valid_chain(
    tmp_path_factory: pytest.TempPathFactory, appends: list[tuple[int, int, bool]]
) -> None:
    async def run() -> None:
        directory = tmp_path_factory.mktemp("log")
        log = await SqliteLog.open(directory)
        versions = dict.fromkeys(range(4), 0)
        pending = []
        for number, count, is_right in appends:
            expected = versions[number] + (0 if is_right else 1)
            versions[number] += count if is_right else 0
            events = tuple(session_started(str(n)) for n in range(count))
            pending.append(log.append(f"lineage/acme/{number}", expected, events))
        results = await asyncio.gather(*pending, return_exceptions=True)
        assert [isinstance(result, tuple) for result in results] == [is_right for _, _, is_right in appends]
        for number, version in versions.items():
            found = await log.read(f"lineage/acme/{number}")
            assert [recorded.version for recorded in found] == list(range(1, version + 1))
        assert len(await everything(log)) == sum(versions.values())
        await log.close()

    asyncio.run(run())
