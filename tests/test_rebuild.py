"""Views that are rebuilt while they are served: nobody waits for them, fails by them, or sees less than before."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from eventstore.sqlite import SqliteLog
from projections.rebuild import rebuild
from projections.runner import VIEWS_FILE, Runner, ViewsUnavailable
from projections.snapshot import Snapshot
from projections.store import ViewsUnusable
from projections.succession import building_of, next_of, put_in_place
from projections.views import VIEWS
from tests.support.facts import completed, session_started, started

FIND = "SELECT tip_id FROM tips WHERE session_id = ?"


@contextlib.asynccontextmanager
async def running(data: Path) -> AsyncIterator[tuple[SqliteLog, Runner]]:
    log = await SqliteLog.open(data)
    runner = await Runner.start(log, data / VIEWS_FILE, VIEWS)
    try:
        yield log, runner
    finally:
        await runner.stop()
        await log.close()


async def say(log: SqliteLog, session: str, turns: int = 1) -> None:
    await log.append(f"lineage/acme/{session}", 0, (session_started(session),))
    for number in range(turns):
        turn = (started(f"{session}-{number}"), completed(f"{session}-{number}"))
        await log.append(f"lineage/acme/{session}", 2 * number + 1, turn)


async def begun(data: Path) -> None:
    """Return once a rebuild is under way."""
    while not building_of(data / VIEWS_FILE, "rebuilt").exists():  # noqa: ASYNC110 (a file has no event)
        await asyncio.sleep(0)


def rows_of(path: Path) -> list[tuple[str, tuple[object, ...]]]:
    with contextlib.closing(Snapshot(path, VIEWS)) as snapshot:
        return list(snapshot.rows())


def files(data: Path) -> set[str]:
    return {path.name for path in data.glob("views*")}


async def test_a_client_reads_its_own_writes_through_any_number_of_rebuilds(data: Path) -> None:
    async with running(data) as (log, runner):
        done = asyncio.Event()

        async def client(number: int) -> int:
            said = 0
            while not done.is_set() or said < 5:
                session = f"s{number}-{said}"
                await say(log, session)
                assert await runner.fetch(FIND, (session,)) == [(session,)]
                assert await runner.search("SELECT count(*) FROM passages WHERE lineage > 0", ())
                said += 1
            return said

        async def rebuilds() -> None:
            for _ in range(4):
                before = (data / VIEWS_FILE).stat().st_ino
                await runner.rebuild()
                assert (data / VIEWS_FILE).stat().st_ino != before
            done.set()

        *said, _ = await asyncio.gather(*(client(number) for number in range(2)), rebuilds())
        assert await runner.fetch("SELECT count(*) FROM tips", ()) == [(sum(filter(None, said)),)]
    assert files(data) == {VIEWS_FILE}
    log = await SqliteLog.open_read_only(data)
    (await rebuild(log, data / "again.db", VIEWS)).close()
    await log.close()
    assert rows_of(data / "again.db") == rows_of(data / VIEWS_FILE)


async def test_those_who_ask_for_a_rebuild_while_one_is_made_share_the_next(data: Path) -> None:
    async with running(data) as (log, runner):
        await say(log, "s1", 300)
        inodes = set[int]()

        async def note() -> None:
            while True:
                inodes.add((data / VIEWS_FILE).stat().st_ino)
                await asyncio.sleep(0)

        noting = asyncio.create_task(note())
        first = asyncio.create_task(runner.rebuild())
        await begun(data)
        await asyncio.gather(first, *(runner.rebuild() for _ in range(9)))
        noting.cancel()
        assert len(inodes | {(data / VIEWS_FILE).stat().st_ino}) <= 3


async def test_a_stop_in_the_middle_of_a_rebuild_leaves_the_views_that_were_served(data: Path) -> None:
    async with running(data) as (log, runner):
        await say(log, "s1", 300)
        await runner.level()
        asked = asyncio.create_task(runner.rebuild())
        await begun(data)
    with pytest.raises(ViewsUnavailable, match="stopping"):
        await asked
    assert files(data) == {VIEWS_FILE}


async def test_a_search_that_has_begun_ends_on_the_views_it_began_on(data: Path) -> None:
    async with running(data) as (log, runner):
        await say(log, "s1", 100)
        await runner.level()
        many = "SELECT count(*) FROM passages a, passages b, passages c"
        searches = [asyncio.create_task(runner.search(many, ())) for _ in range(3)]
        await asyncio.sleep(0)
        await runner.rebuild()
        assert await asyncio.gather(*searches) == [[(1_000_000,)]] * 3


async def test_a_rebuild_that_can_not_be_written_leaves_the_views_as_they_are(data: Path) -> None:
    async with running(data) as (log, runner):
        await say(log, "s1")
        building_of(data / VIEWS_FILE, "rebuilt").mkdir()
        with pytest.raises((ViewsUnusable, OSError)):
            await runner.rebuild()
        await say(log, "s2")
        assert await runner.fetch(FIND, ("s2",)) == [("s2",)]
        building_of(data / VIEWS_FILE, "rebuilt").rmdir()
        await runner.rebuild()
        await say(log, "s3")
        assert await runner.fetch(FIND, ("s3",)) == [("s3",)]


async def test_whole_views_that_wait_at_a_start_are_used_and_others_are_removed(data: Path) -> None:
    async with running(data) as (log, _):
        await say(log, "s1")
    next_of(data / VIEWS_FILE).write_bytes(b"garbage" * 1_000)
    building_of(data / VIEWS_FILE, "123").write_bytes(b"half")
    async with running(data) as (log, runner):
        assert await runner.fetch(FIND, ("s1",)) == [("s1",)]
        (await rebuild(log, data / "made.db", VIEWS)).close()
    assert files(data) == {VIEWS_FILE}
    (data / "made.db").replace(next_of(data / VIEWS_FILE))
    inode = next_of(data / VIEWS_FILE).stat().st_ino
    async with running(data) as (_, runner):
        assert await runner.fetch(FIND, ("s1",)) == [("s1",)]
        assert (data / VIEWS_FILE).stat().st_ino == inode


class Killed(BaseException):
    """As far as the process came."""


async def test_a_crash_at_any_step_of_the_switch_leaves_whole_views_or_none(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(data) as (log, _):
        await say(log, "s1", 20)
    expected = rows_of(data / VIEWS_FILE)
    for steps in range(6):
        log = await SqliteLog.open_read_only(data)
        (await rebuild(log, data / "made.db", VIEWS)).close()
        await log.close()
        (data / "views.db-wal").write_bytes(b"of the old file" * 100)
        left = steps

        def step(of: str, *arguments: Any, real: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed(of)
            return real(*arguments, **options)

        with monkeypatch.context() as patched, contextlib.suppress(Killed):
            for name in ("unlink", "replace"):
                patched.setattr(Path, name, counted(step, getattr(Path, name)))
            put_in_place(data / "made.db", data / VIEWS_FILE)
        if steps < 2:
            (data / "views.db-wal").unlink()  # it was never of the file that is still there
        async with running(data) as (_, runner):
            assert await runner.fetch(FIND, ("s1",)) == [("s1",)]
        assert files(data) == {VIEWS_FILE}
        assert rows_of(data / VIEWS_FILE) == expected


def counted(step: Callable[..., Any], real: Any) -> Any:
    """`real` as a method that counts as a step."""
    return lambda *arguments, **options: step(real.__name__, *arguments, real=real, **options)
