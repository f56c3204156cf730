"""`turnlog replay`: rebuild the views from the log, up to any moment, and compare them with the live ones."""

import asyncio
import contextlib
import tempfile
from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path

import click

from api.wire.moment import Moment
from eventstore.lock import exclusive
from eventstore.log import LogError, LogLocked
from eventstore.sqlite import LOCK_FILE, SqliteLog
from projections.rebuild import rebuild
from projections.runner import VIEWS_FILE
from projections.store import Snapshot, ViewsUnusable
from projections.views import VIEWS
from tools.moments import MOMENT
from tools.options import data_option
from tools.progress import bar

DIFFERENCES_SHOWN = 20

Until = Callable[[int, int], bool]


def _never(_position: int, _recorded_us: int) -> bool:
    return False


@click.command()
@data_option
@click.option("--until", type=MOMENT, default=None, help="Stop after this position or time; needs --into.")
@click.option(
    "--into",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="Build into this file and leave the live views alone; works beside a running server.",
)
@click.option(
    "--verify", is_flag=True, help="Compare a rebuild with the live views, row for row; exit 1 if they differ."
)
def replay(data: Path, until: Moment | None, into: Path | None, verify: bool) -> None:
    """Rebuild the views from the log."""
    if until and not into:
        raise click.UsageError("--until needs --into FILE: the live views are always of now")
    if verify and into:
        raise click.UsageError("--verify compares with the live views: leave --into out")
    try:
        if verify:
            asyncio.run(_verify(data))
        else:
            asyncio.run(_rebuild(data, into, until.is_after if until else _never))
    except (LogError, ViewsUnusable, OSError) as error:
        raise click.ClickException(str(error)) from error


async def _rebuild(data: Path, into: Path | None, until: Until) -> None:
    async with contextlib.AsyncExitStack() as stack:
        log = await SqliteLog.open_read_only(data)
        stack.push_async_callback(log.close)
        if into is None:
            try:
                stack.enter_context(exclusive(data / LOCK_FILE))
            except LogLocked as error:
                raise click.ClickException(f"{error}: stop it first, or use --into FILE or --verify") from error
        progress = stack.enter_context(bar("replaying", lambda: log.head().position))
        store = await rebuild(log, into or data / VIEWS_FILE, VIEWS, until=until, progress=progress)
        position = store.head.position
        store.close()
    click.echo(f"replayed the log up to position {position}")


async def _verify(data: Path) -> None:
    with (
        contextlib.closing(Snapshot(data / VIEWS_FILE, VIEWS)) as live,
        tempfile.TemporaryDirectory(dir=data) as beside,
    ):
        path = Path(beside) / VIEWS_FILE
        await _rebuild(data, path, lambda position, _recorded_us: position > live.position)
        with contextlib.closing(Snapshot(path, VIEWS)) as rebuilt:
            if rebuilt.position != live.position:
                raise ViewsUnusable(f"the views are at position {live.position}, the log ends at {rebuilt.position}")
            rows, only_live, only_rebuilt = _compare(live, rebuilt)
    for row in only_live[:DIFFERENCES_SHOWN]:
        click.echo(f"only in the live views: {row}")
    for row in only_rebuilt[:DIFFERENCES_SHOWN]:
        click.echo(f"only in the rebuilt views: {row}")
    if only_live or only_rebuilt:
        raise click.ClickException(
            f"{len(only_live)} live and {len(only_rebuilt)} rebuilt rows have no twin, of {rows}: "
            "stop the server and run 'turnlog replay'"
        )
    click.echo(f"{rows} rows, live and rebuilt, are equal as of position {live.position}")


def _compare(live: Snapshot, rebuilt: Snapshot) -> tuple[int, list[object], list[object]]:
    """How many rows there are, and those of each side that the other lacks."""
    rows = 0
    unmatched: tuple[set[object], set[object]] = (set(), set())
    for ours, theirs in zip_longest(live.rows(), rebuilt.rows()):
        rows += 1
        if ours != theirs:
            # A row that only one side has shifts the other: what is unmatched now may find its twin later.
            for side, (row, others) in enumerate(((ours, unmatched[1]), (theirs, unmatched[0]))):
                if row is not None and row in others:
                    others.discard(row)
                elif row is not None:
                    unmatched[side].add(row)
    return rows, sorted(unmatched[0], key=repr), sorted(unmatched[1], key=repr)
