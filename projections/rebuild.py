"""Replay: the views, built anew from the whole log or from a part of it."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from eventstore.events import ItemRemoved, SessionDeleted
from eventstore.log import EventLog, Recorded
from projections.store import ViewStore
from projections.view import Deletion, View


def no_progress(_position: int) -> None:
    """For those who do not watch."""


async def rebuild(
    log: EventLog,
    path: Path,
    views: Sequence[View],
    *,
    until: Callable[[int, int], bool] = lambda _position, _recorded_us: False,
    progress: Callable[[int], None] = no_progress,
) -> ViewStore:
    """Build the views anew in `path` from the whole log, and put them in place when they are whole.

    Stops before the first event for which `until(position, recorded_us)` is true. Calls `progress` with each position
    that is reached. Raises `LogError` where the log can not be read.
    """
    building = path.with_name(path.name + ".building")
    store = ViewStore.create(building, views)
    try:
        async for batch in log.read_all():
            wanted = [recorded for recorded in batch if not until(recorded.position, recorded.recorded_us)]
            if wanted:
                await finished(partial(store.apply, wanted, await deletions_in(log, wanted)))
                progress(wanted[-1].position)
            if len(wanted) < len(batch):
                break
    finally:
        store.close()
    for stale in (path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        stale.unlink(missing_ok=True)
    building.replace(path)
    return ViewStore.open(path, views)


async def deletions_in(log: EventLog, batch: Sequence[Recorded]) -> list[Deletion]:
    """What was deleted by the events, each with its stream's past; raises `LogError`."""
    found: list[Deletion] = []
    pasts: dict[str, list[Recorded]] = {}
    for recorded in batch:
        if isinstance(recorded.event, SessionDeleted | ItemRemoved):
            if recorded.stream not in pasts:
                pasts[recorded.stream] = await log.read(recorded.stream)
            found.append(Deletion(recorded, pasts[recorded.stream][: recorded.version - 1]))
    return found


async def finished(work: Callable[[], None]) -> None:
    """Do blocking work in a thread, and be done with it even where the caller is cancelled meanwhile."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
