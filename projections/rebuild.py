"""Replay: the views, built anew from the whole log or from a part of it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

from eventstore.events import ItemRemoved, SessionDeleted
from eventstore.log import EventLog, Recorded
from eventstore.moving.whole import sync
from projections.store import ViewStore
from projections.succession import remove
from projections.view import Deletion, View

# How a batch gets into a file: a tool does nothing else meanwhile, a server has turns to take.
TakeIn: TypeAlias = Callable[[ViewStore, Sequence[Recorded], Sequence[Deletion]], Awaitable[None]]

SLICE_EVENTS = 50
REST_SHARE = 2.0  # of the time that a slice took: leaves two thirds of the event loop to the turns


def no_progress(_position: int) -> None:
    """For those who do not watch."""


def _to_the_end(_position: int, _recorded_us: int) -> bool:
    return False


async def at_once(store: ViewStore, batch: Sequence[Recorded], deletions: Sequence[Deletion]) -> None:
    """Take in a batch as fast as can be, in a thread."""
    await finished(partial(store.apply, batch, deletions))


async def in_slices(
    store: ViewStore, batch: Sequence[Recorded], deletions: Sequence[Deletion], rest_share: float = 0.0
) -> None:
    """Apply a batch in slices on the event loop, and commit it in a thread.

    Every statement lets go of the interpreter's lock and takes it back: uncontended that is nothing, against a busy
    event loop it is a switch of threads each. A slice is short enough for nobody to notice; only the commit waits for a
    disk. Rests after each slice, and after the commit, for so many times as long as that took.
    """
    now_s = asyncio.get_running_loop().time
    for begin in range(0, len(batch), SLICE_EVENTS):
        began_s = now_s()
        store.stage(batch[begin : begin + SLICE_EVENTS])
        await asyncio.sleep(rest_share * (now_s() - began_s))
    began_s = now_s()
    await finished(partial(store.commit, deletions))
    if rest_share:
        await asyncio.sleep(rest_share * (now_s() - began_s))


beside_turns: TakeIn = partial(in_slices, rest_share=REST_SHARE)


async def rebuild(
    log: EventLog,
    path: Path,
    views: Sequence[View],
    *,
    until: Callable[[int, int], bool] = _to_the_end,
    progress: Callable[[int], None] = no_progress,
) -> ViewStore:
    """Build the views anew in `path` from the whole log, and put them in place when they are whole.

    Stops before the first event for which `until(position, recorded_us)` is true. Calls `progress` with each position
    that is reached. Raises `LogError` where the log can not be read.
    """
    building = path.with_name(path.name + ".building")
    try:
        await build(log, building, views, until=until, progress=progress)
        remove(path)
        building.replace(path)
    except BaseException:
        remove(building)
        raise
    return ViewStore.open(path, views)


async def build(
    log: EventLog,
    path: Path,
    views: Sequence[View],
    *,
    until: Callable[[int, int], bool] = _to_the_end,
    progress: Callable[[int], None] = no_progress,
    take_in: TakeIn = at_once,
) -> None:
    """The same into a file of its own: whole on the disk as this returns, and of no use before."""
    store = ViewStore.create(path, views)
    try:
        async for batch in log.read_all():
            wanted = [recorded for recorded in batch if not until(recorded.position, recorded.recorded_us)]
            if wanted:
                await take_in(store, wanted, await deletions_in(log, wanted))
                progress(wanted[-1].position)
            if len(wanted) < len(batch):
                break
    finally:
        store.close()
    await finished(partial(sync, path))


async def catch_up(log: EventLog, store: ViewStore, take_in: TakeIn) -> None:
    """Bring the views in a file level with the log's head as it is met; raises `LogError`."""
    async for batch in log.read_all(store.head.position):
        await take_in(store, batch, await deletions_in(log, batch))


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
