"""`turnlog replay`: rebuild the views from the log, up to any moment, and compare them with the live ones."""

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import click

from api.wire.moment import Moment
from eventstore.log import LogError
from eventstore.purge import MARKER_FILE
from eventstore.sqlite import SqliteLog
from projections.comparison import Comparison, compare, told
from projections.rebuild import build, rebuild
from projections.runner import VIEWS_FILE
from projections.snapshot import Snapshot
from projections.store import ViewsUnusable
from projections.succession import building_of, remove
from projections.views import VIEWS
from tools.handover import rebuild_live
from tools.moments import MOMENT
from tools.options import data_option
from tools.progress import bar

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
@click.option(
    "--view",
    "names",
    type=click.Choice([view.name for view in VIEWS]),
    multiple=True,
    help="Compare this view alone; repeatable; with --verify.",
)
def replay(data: Path, until: Moment | None, into: Path | None, verify: bool, names: tuple[str, ...]) -> None:
    """Rebuild the views from the log.

    Beside a running server too: it goes on serving, and switches over to the rebuilt views when they are whole.
    """
    if until and not into:
        raise click.UsageError("--until needs --into FILE: the live views are always of now")
    if verify and into:
        raise click.UsageError("--verify compares with the live views: leave --into out")
    if names and not verify:
        raise click.UsageError("--view is about --verify: views are rebuilt together")
    if into:
        _check_place(into, data)
    try:
        asyncio.run(_verify(data, names) if verify else _rebuild(data, into, until.is_after if until else _never))
    except (LogError, ViewsUnusable, OSError) as error:
        raise click.ClickException(str(error)) from error


def _check_place(into: Path, data: Path) -> None:
    if os.path.realpath(into.parent) == os.path.realpath(data) and into.name.startswith(VIEWS_FILE.removesuffix(".db")):
        raise click.UsageError(f"{into} is where a server keeps its own views: name another file, or leave --into out")
    if into.exists():
        raise click.UsageError(f"{into} exists: name a file that does not, nothing is overwritten")
    if not into.absolute().parent.is_dir():
        raise click.UsageError(f"there is no directory {into.absolute().parent} to make {into.name} in")


async def _rebuild(data: Path, into: Path | None, until: Until) -> None:
    async with contextlib.AsyncExitStack() as stack:
        log = await SqliteLog.open_read_only(data)
        stack.push_async_callback(log.close)
        if into is None:
            click.echo(await rebuild_live(log, data))
            return
        progress = stack.enter_context(bar("replaying", lambda: log.head().position))
        store = await rebuild(log, into, VIEWS, until=until, progress=progress)
        store.close()
    click.echo(f"replayed the log up to position {store.head.position}")


async def _verify(data: Path, names: tuple[str, ...]) -> None:
    path = building_of(data / VIEWS_FILE, f"verify-{os.getpid()}")
    served = (data / VIEWS_FILE).stat() if (data / VIEWS_FILE).exists() else None
    views = [view for view in VIEWS if view.name in names or not names]
    with contextlib.closing(Snapshot(data / VIEWS_FILE, VIEWS)) as live, contextlib.ExitStack() as stack:
        stack.callback(remove, path)
        await _rebuild_until(data, path, live.position)
        rebuilt = stack.enter_context(contextlib.closing(Snapshot(path, VIEWS)))
        if rebuilt.position != live.position:
            raise ViewsUnusable(f"the views are at position {live.position}, the log ends at {rebuilt.position}")
        compared = [compare(view, live, rebuilt) for view in views]
    if served and any(comparison.differing for comparison in compared):
        _ensure_settled(data, served)
    differing = [_tell(comparison) for comparison in compared]
    if any(differing):
        raise click.ClickException(
            f"{_differ(sum(differing))} as of position {live.position:,} (- as the live views have them, + as the "
            "log gives them): run 'turnlog replay'"
        )
    click.echo(f"live and rebuilt are equal as of position {live.position:,}")


def _ensure_settled(data: Path, served: os.stat_result) -> None:
    """Raise `ViewsUnusable` where the views were those of a moment ago: what the log has lost, they lose later."""
    if (data / MARKER_FILE).exists():
        raise ViewsUnusable("something is being erased: run this again once it is (where no server runs, start one)")
    if not os.path.samestat(served, (data / VIEWS_FILE).stat()):
        raise ViewsUnusable("the server has rebuilt its views meanwhile: run this again")


async def _rebuild_until(data: Path, path: Path, last: int) -> None:
    log = await SqliteLog.open_read_only(data)
    try:
        with bar("replaying", lambda: last) as progress:
            await build(log, path, VIEWS, until=lambda position, _recorded_us: position > last, progress=progress)
    except FileNotFoundError:
        raise ViewsUnusable("the server has rebuilt its views meanwhile: run this again") from None
    finally:
        await log.close()


def _tell(comparison: Comparison) -> int:
    """Say what a view is compared with its twin; the number of rows that differ."""
    view, rows, differing, shown = comparison
    if not differing:
        click.echo(f"{view}: {_rows(rows)} equal")
        return 0
    click.echo(f"{view}: {_differ(differing)} of {rows:,}:")
    for difference in shown:
        for line in told(difference):
            click.echo(f"  {line}")
    if differing > len(shown):
        click.echo(f"  and {differing - len(shown):,} more")
    return differing


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def _differ(count: int) -> str:
    return f"{_rows(count)} differ{'s' if count == 1 else ''}"
