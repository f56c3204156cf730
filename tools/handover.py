"""Views that are rebuilt in a process of their own, and handed over to the server that runs on the same data."""

import asyncio
import contextlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import click

from eventstore.lock import exclusive
from eventstore.log import EventLog, LogLocked
from eventstore.sqlite import LOCK_FILE
from projections.rebuild import build, finished, rebuild
from projections.runner import VIEWS_FILE
from projections.store import ViewsUnusable
from projections.succession import building_of, next_of, put_in_place, remove, sweep
from projections.views import VIEWS
from tools.progress import bar

LOOK_S = 0.2
CLAIM_S = 30.0  # for the server to find them
SWITCH_S = 600.0  # for the server to take in what happened since, and to switch over


async def rebuild_live(log: EventLog, data: Path) -> str:
    """Rebuild the views that are served, or will be, from the log; tells what came of it.

    Raises `LogError`, `ViewsUnusable`, `OSError` and `click.ClickException`.
    """
    with _without_server(data) as is_alone:
        if not is_alone:
            return await _rebuild_beside(log, data)
        sweep(data / VIEWS_FILE)
        with bar("replaying", lambda: log.head().position) as progress:
            store = await rebuild(log, data / VIEWS_FILE, VIEWS, progress=progress)
        store.close()
        return f"replayed the log up to position {store.head.position}"


async def _rebuild_beside(log: EventLog, data: Path) -> str:
    path = data / VIEWS_FILE
    building = building_of(path, str(os.getpid()))
    try:
        with bar("replaying", lambda: log.head().position) as progress:
            await build(log, building, VIEWS, progress=progress)
        with building.open("rb") as kept_open:  # so that no other file gets its number
            inode = os.fstat(kept_open.fileno()).st_ino
            building.replace(next_of(path))
            who = await _switched_over(path)
            if path.stat().st_ino != inode:
                raise click.ClickException(
                    "the running server has not switched over: it has rebuilt its views itself meanwhile, "
                    "or another replay's were later; if it could not use these, its log says why"
                )
    except FileNotFoundError:
        raise ViewsUnusable(
            "the running server has rebuilt its views itself meanwhile, and removed these: nothing is left to do"
        ) from None
    finally:
        remove(building)
    return f"replayed the log up to position {log.head().position}; {who}"


async def _switched_over(path: Path) -> str:
    """Return once the views that wait are no longer there."""
    whole, taken = next_of(path), building_of(path, "taken")
    click.echo("waiting for the running server to switch over", err=True)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(CLAIM_S):
            while whole.exists():
                if await _put_in_place_without_server(path):
                    return "the server has stopped meanwhile, and its views are replaced"
                await asyncio.sleep(LOOK_S)
    if _withdrawn(whole):
        raise click.ClickException(
            f"the process that holds {path.parent / LOCK_FILE} has not taken the rebuilt views within {CLAIM_S:g} s: "
            "is it a server of this version of turnlog? They are removed again"
        )
    try:
        async with asyncio.timeout(SWITCH_S):
            while whole.exists() or taken.exists():
                if await _put_in_place_without_server(path):
                    return "the server has stopped meanwhile, and its views are replaced"
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        raise click.ClickException(f"the running server has not switched over within {SWITCH_S:g} s") from None
    return "the running server has switched over"


async def _put_in_place_without_server(path: Path) -> bool:
    """Whether there is no server any more, which leaves it to us."""
    with _without_server(path.parent) as is_alone:
        if not is_alone:
            return False
        if next_of(path).exists():
            await finished(partial(put_in_place, next_of(path), path))
            return True
        if building_of(path, "taken").exists():
            raise click.ClickException("the server has died while it took over the rebuilt views: run this again")
        return False


@contextlib.contextmanager
def _without_server(data: Path) -> Iterator[bool]:
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(exclusive(data / LOCK_FILE))
        except LogLocked:
            yield False
        else:
            yield True


def _withdrawn(whole: Path) -> bool:
    try:
        whole.unlink()
    except FileNotFoundError:
        return False
    return True
