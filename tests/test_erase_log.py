"""The log under an erasure: one transaction, the same chain, ordinary SQL still locked out, and a file written anew."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from eventstore import purge
from eventstore.events import Erased, SessionDeleted, SessionErased, lineage_stream
from eventstore.log import Erasure, LogDamaged, LogUnavailable, NotPurged, VersionConflict
from eventstore.sqlite import LOG_FILE, SqliteLog
from tests.support.api import call
from tests.support.facts import completed, session_started, started
from tests.support.server import serving
from tests.test_crash import recorded

ONE, TWO = (lineage_stream("acme", name) for name in ("one", "two"))
SAID = "Zqsaid " * 2_000  # overflows a page


@pytest_asyncio.fixture
async def log(data: Path) -> AsyncIterator[SqliteLog]:
    """A log in which two sessions take turns, of which one is deleted."""
    log = await SqliteLog.open(data)
    await log.append(ONE, 0, (session_started("one"), started("a", SAID)))
    await log.append(TWO, 0, (session_started("two"), started("b", "hello")))
    await log.append(ONE, 2, (completed("a", SAID), SessionDeleted()))
    yield log
    await log.close()


def erasure(*ranges: tuple[int, int], version: int = 4) -> list[Erasure]:
    return [Erasure(ONE, version, SessionErased(ranges=ranges, by="me", why="law"))]


def holds(data: Path) -> bool:
    return any(b"Zqsaid" in file.read_bytes() for file in data.iterdir() if file.is_file())


async def test_what_was_erased_is_read_as_erased_under_the_same_hashes(log: SqliteLog, data: Path) -> None:
    before = await recorded(data)
    (fact,) = await log.erase(erasure((1, 2), (5, 5)), {TWO: 2})
    after = await recorded(data)  # which checks the chain
    assert (fact.position, fact.version) == (7, 5)
    assert after[-1] == fact
    assert [entry.hash for entry in after[:-1]] == [entry.hash for entry in before]
    kinds = ("SessionStarted", "TurnStarted", "TurnCompleted")
    assert [entry.event for entry in await log.read(ONE)][:3] == [Erased(kind=kind) for kind in kinds]
    assert await log.read(TWO) == before[2:4]
    await log.purge()
    assert not holds(data)
    assert await recorded(data) == after


async def test_ordinary_sql_can_change_nothing_afterwards_either(log: SqliteLog, data: Path) -> None:
    await log.erase(erasure((1, 2)), {})
    await log.purge()
    with sqlite3.connect(data / LOG_FILE) as other:
        for sql in ("UPDATE events SET data = x'00'", "DELETE FROM events"):
            with pytest.raises(sqlite3.IntegrityError, match="events are facts"):
                other.execute(sql)
    other.close()


async def test_another_that_was_first_is_a_conflict_and_nothing_is_erased(log: SqliteLog, data: Path) -> None:
    before = await recorded(data)
    for wanted, unchanged in (
        (erasure((1, 2), version=3), {}),
        (erasure((1, 2)), {TWO: 1}),
        (erasure((1, 2)), {"queue/acme/x": 1}),
    ):
        with pytest.raises(VersionConflict):
            await log.erase(wanted, unchanged)
        assert not log.is_erasing
    assert await recorded(data) == before


async def test_many_lineages_and_many_ranges_are_one_erasure(data: Path) -> None:
    log = await SqliteLog.open(data)
    streams = [lineage_stream("acme", f"s{number}") for number in range(600)]
    for stream in streams:
        await log.append(stream, 0, (session_started(), SessionDeleted()))
    wanted = [
        Erasure(stream, 2, SessionErased(ranges=((2 * number + 1,) * 2,), by="me", why="law"))
        for number, stream in enumerate(streams)
    ]
    facts = await log.erase(wanted, dict.fromkeys(("queue/acme/x", "queue/acme/y"), 0))
    assert [fact.position for fact in facts] == list(range(1_201, 1_801))
    await log.append(streams[0], 3, (session_started(),))
    assert sum(isinstance(entry.event, Erased) for entry in await recorded(data)) == 600
    await log.close()


async def test_who_reads_the_old_file_is_waited_for_and_then_told_of_and_a_start_finishes_it(
    log: SqliteLog, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge, "WAIT_S", 0.0)
    reader = sqlite3.connect(f"file:{data / LOG_FILE}?mode=ro", uri=True, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM events").fetchone()
    await log.erase(erasure((1, 2), (5, 5)), {})
    with pytest.raises(NotPurged, match="reading the log"):
        await log.purge()
    assert holds(data)
    await log.append(TWO, 2, (completed("b"),))  # goes on all the same
    reader.execute("COMMIT")
    reader.close()
    await log.close()
    async with serving(data) as server:
        assert not holds(data)
        assert not (data / purge.MARKER_FILE).exists()
        await call(server, "DELETE", "/api/sessions/nobody?erase=true", 404)


async def test_an_erasure_that_is_not_purged_is_told_and_finished_by_the_next_one(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(data) as server:
        await server.chat("Zqsaid", "s1")
        reader = sqlite3.connect(f"file:{data / LOG_FILE}?mode=ro", uri=True, isolation_level=None)
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM events").fetchone()
        monkeypatch.setattr(purge, "WAIT_S", 0.0)
        error = await call(server, "POST", "/api/erasures", 503, json={"session": "s1", "why": "law"})
        assert error["code"] == "erasure_not_purged"
        assert "next erasure or start" in error["message"]
        await server.get("/api/sessions/s1", 404)
        reader.close()
        assert holds(data)
        await call(server, "POST", "/api/erasures", 404, json={"session": "s1", "why": "law"})
        assert not holds(data)
        assert not (data / purge.MARKER_FILE).exists()


async def test_what_was_altered_is_not_made_good_by_an_erasure(data: Path) -> None:
    async with serving(data) as server:
        await server.chat("hello", "s1")
        with sqlite3.connect(data / LOG_FILE) as other:
            other.execute("DROP TRIGGER events_are_never_updated")
            other.execute("UPDATE events SET data = zeroblob(60) WHERE position = 2")
        other.close()
        error = await call(server, "POST", "/api/erasures", 503, json={"session": "s1", "why": "law"})
        assert error["code"] == "log_damaged"
    with pytest.raises(LogDamaged, match="position 2"):
        await recorded(data)


async def test_a_log_that_is_open_for_reading_erases_nothing(log: SqliteLog, data: Path) -> None:
    reading = await SqliteLog.open_read_only(data)
    with pytest.raises(LogUnavailable, match="for reading only"):
        await reading.erase(erasure((1, 1)), {})
    with pytest.raises(LogUnavailable, match="for reading only"):
        await reading.purge()
    assert not reading.is_erasing
    await reading.close()
    await log.close()
    with pytest.raises(LogUnavailable, match="closed"):
        await log.purge()


async def test_what_a_killed_rebuild_or_comparison_has_left_behind_goes_too(data: Path) -> None:
    async with serving(data) as server:
        await server.chat("Zqsaid", "s1")
        left = [data / "views.db.building", data / "views.next.db", data / "tmpabc" / "views.db"]
        left[-1].parent.mkdir()
        for file in left:
            file.write_text("Zqsaid")
        ours = data / "tmpmine" / "notes"
        ours.parent.mkdir()
        ours.write_text("kept")
        await call(server, "POST", "/api/erasures", 200, json={"session": "s1", "why": "law"})
        assert not any(file.exists() for file in left)
        assert ours.read_text() == "kept"
