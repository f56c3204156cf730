"""A view that has changed is rebuilt alone: the others are left as they are, and a crash leaves all as it was."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from eventstore.events import ItemRemoved, SessionDeleted
from eventstore.log import Recorded
from eventstore.sqlite import SqliteLog
from projections.rebuild import rebuild
from projections.runner import VIEWS_FILE, Runner
from projections.snapshot import Snapshot
from projections.view import Statement, View
from projections.views import VIEWS
from tests.support.facts import completed, session_started, started

NAMES = [view.name for view in VIEWS]


async def lives(data: Path) -> None:
    """Three sessions; one is deleted, one has lost an item."""
    log = await SqliteLog.open(data)
    runner = await Runner.start(log, data / VIEWS_FILE, VIEWS)
    for session in ("s1", "s2", "s3"):
        turns = [
            event
            for n in range(3)
            for event in (started(f"{session}{n}", f"word{n}", api="responses"), completed(f"{session}{n}"))
        ]
        await log.append(f"lineage/acme/{session}", 0, (session_started(session, title=f"title {session}"), *turns))
    await runner.level()
    await log.append("lineage/acme/s2", 7, (SessionDeleted(),))
    await log.append("lineage/acme/s3", 7, (ItemRemoved(turn_id="s31", item_id="x"),))
    await runner.stop()
    await log.close()


def watched(views: Sequence[View], called: set[str], **changed: int) -> tuple[View, ...]:
    """The views, some of another version; notes whose `apply` is called."""

    def noting(view: View) -> View:
        def apply(recorded: Recorded) -> Iterable[Statement]:
            called.add(view.name)
            return view.apply(recorded)

        return view._replace(apply=apply, version=view.version + changed.get(view.name, 0))

    return tuple(map(noting, views))


async def start(data: Path, views: Sequence[View]) -> list[int]:
    """Open the views and close them; the positions that a rebuild has reached."""
    reached: list[int] = []
    log = await SqliteLog.open(data)
    try:
        runner = await Runner.start(log, data / VIEWS_FILE, views, progress=reached.append)
        await runner.stop()
    finally:
        await log.close()
    return reached


def tables(data: Path) -> dict[str, object]:
    """Every table's definition, where it lies in the file, and its rows."""
    with contextlib.closing(sqlite3.connect(data / VIEWS_FILE)) as database:
        found = database.execute("SELECT name, sql, rootpage FROM sqlite_master WHERE type = 'table'").fetchall()
        return {
            name: (sql, page, database.execute(f"SELECT * FROM {name}").fetchall())
            for name, sql, page in found
            if name not in ("checkpoint", "passages_fts")
        }


async def rebuilt(data: Path) -> list[object]:
    log = await SqliteLog.open_read_only(data)
    (await rebuild(log, data / "again.db", VIEWS)).close()
    await log.close()
    with contextlib.closing(Snapshot(data / "again.db", VIEWS)) as snapshot:
        return list(snapshot.rows())


async def test_only_a_view_of_another_version_is_rebuilt(data: Path) -> None:
    await lives(data)
    before = tables(data)
    called: set[str] = set()
    assert await start(data, watched(VIEWS, called, tips=1)) == [23]
    assert called == {"tips"}
    after = tables(data)
    assert {name: table for name, table in after.items() if name != "tips"} == {
        name: table for name, table in before.items() if name != "tips"
    }
    assert after["tips"][2] == before["tips"][2]  # type: ignore[index]
    called.clear()
    assert await start(data, watched(VIEWS, called, tips=1)) == []
    assert called == set()


@pytest.mark.parametrize("name", NAMES)
async def test_a_view_that_is_rebuilt_alone_is_what_it_is_among_the_others(data: Path, name: str) -> None:
    await lives(data)
    called: set[str] = set()
    await start(data, watched(VIEWS, called, **{name: 1}))
    assert called <= {name}
    called.clear()
    await start(data, watched(VIEWS, called, **{name: 1}))
    with contextlib.closing(Snapshot(data / VIEWS_FILE, watched(VIEWS, called, **{name: 1}))) as snapshot:
        assert list(snapshot.rows()) == await rebuilt(data)
    with contextlib.closing(sqlite3.connect(data / VIEWS_FILE)) as database:
        found = database.execute("SELECT rowid FROM passages_fts WHERE passages_fts MATCH 'word1'").fetchall()
    assert found == [(5,)]


async def test_views_come_and_go(data: Path) -> None:
    await lives(data)
    called: set[str] = set()
    await start(data, VIEWS[:-1])
    assert not [name for name in tables(data) if name.startswith("passage")]
    await start(data, watched(VIEWS, called))
    assert called == {"passages"}
    with contextlib.closing(Snapshot(data / VIEWS_FILE, VIEWS)) as snapshot:
        assert list(snapshot.rows()) == await rebuilt(data)


async def test_what_happened_since_is_taken_in_by_all(data: Path) -> None:
    await lives(data)
    log = await SqliteLog.open(data)
    await log.append("lineage/acme/s4", 0, (session_started("s4"),))
    await log.close()
    await start(data, watched(VIEWS, set(), sessions=1))
    with contextlib.closing(Snapshot(data / VIEWS_FILE, watched(VIEWS, set(), sessions=1))) as snapshot:
        assert list(snapshot.rows()) == await rebuilt(data)
        assert snapshot.position == 24


async def test_a_start_that_is_cut_short_leaves_the_views_as_they_were(data: Path) -> None:
    await lives(data)
    before = tables(data)

    def apply(_recorded: Recorded) -> Iterable[Statement]:
        raise asyncio.CancelledError

    changed = tuple(v._replace(apply=apply, version=99) if v.name == "tips" else v for v in VIEWS)
    with pytest.raises(asyncio.CancelledError):
        await start(data, changed)
    assert tables(data) == before
    called: set[str] = set()
    await start(data, watched(VIEWS, called))
    assert called == set()


@pytest.mark.parametrize("views", ["'0123456789abcdef'", "'{}'", "'[]'", "'{\"tips\": 3}'"])
async def test_a_file_that_says_of_no_view_what_it_holds_is_rebuilt_whole(data: Path, views: str) -> None:
    await lives(data)
    with contextlib.closing(sqlite3.connect(data / VIEWS_FILE, isolation_level=None)) as database:
        database.execute(f"UPDATE checkpoint SET views = {views}")
    called: set[str] = set()
    await start(data, watched(VIEWS, called))
    assert {"tips", "sessions", "passages"} <= called
    with contextlib.closing(Snapshot(data / VIEWS_FILE, VIEWS)) as snapshot:
        assert list(snapshot.rows()) == await rebuilt(data)
