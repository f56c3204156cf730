"""Views that are to take the place of those that a server serves: made by itself, or by a tool beside it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias

import structlog

from eventstore.log import EventLog, LogError
from projections.rebuild import beside_turns, build, catch_up, finished
from projections.store import ViewStore, ViewsUnusable
from projections.succession import building_of, next_of, put_in_place, remove, sweep
from projections.view import View

LOOK_S = 0.5  # between looks for views that a tool has made
NEAR_EVENTS = 500  # what is left to be taken in while nobody follows
ROUNDS_MAX = 20  # of coming near

Switch: TypeAlias = Callable[[ViewStore, Path], Awaitable[None]]

_log = structlog.get_logger()


class Successor(NamedTuple):
    """Views that are to take the place of the live ones, and who waits for that."""

    store: ViewStore
    path: Path
    done: asyncio.Future[None]


class Successors:
    """What makes them, finds them, and brings them near the log's head before `switch` is called with them."""

    def __init__(self, log: EventLog, path: Path, views: Sequence[View], switch: Switch) -> None:
        self._log = log
        self._path = path
        self._views = views
        self._switch = switch
        self._one_at_a_time = asyncio.Lock()
        self._to_come: asyncio.Task[None] | None = None  # the rebuild that has not begun yet
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def take_up(self) -> None:
        """Put what a tool has made in place before anything is served; remove the rest that others have left behind."""
        whole = next_of(self._path)
        sweep(self._path, keep=whole)
        if not whole.exists():
            return
        try:
            store = await checked(self._log, whole, self._views)
            await finished(store.close)
            await finished(partial(put_in_place, whole, self._path))
        except (LogError, ViewsUnusable, OSError) as error:
            _log.warning("can not use the rebuilt views", reason=str(error))
            remove(whole)

    def look_out(self) -> None:
        """Take over whatever a tool puts beside the views from now on."""
        self._go(self._look_out(), "views made by a tool")

    async def rebuild(self) -> bool:
        """Make the views anew from the log as it is from now on, and switch over; False where there is no time left.

        Who asks while one is made waits for another, which all share who ask by then.
        """
        if self._stopping:
            return False
        if self._to_come is None:
            self._to_come = self._go(self._rebuild(), "rebuilding the views")
        task = self._to_come
        await asyncio.wait([task])
        if task.cancelled():
            return False
        task.result()
        return True

    async def stop(self) -> None:
        """Leave off; what is half made is removed."""
        self._stopping = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    def _go(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _rebuild(self) -> None:
        async with self._one_at_a_time:
            self._to_come = None
            # Whatever tools have made until now may hold what is no longer in the log.
            sweep(self._path)
            building = building_of(self._path, "rebuilt")
            try:
                await build(self._log, building, self._views, take_in=beside_turns)
                await self._hand_over(building)
            finally:
                remove(building)
            _log.info("the views were rebuilt")

    async def _look_out(self) -> None:
        whole, taken = next_of(self._path), building_of(self._path, "taken")
        while True:
            await asyncio.sleep(LOOK_S)
            if not whole.exists():
                continue
            async with self._one_at_a_time:
                try:
                    whole.replace(taken)
                    await self._hand_over(taken)
                except (LogError, ViewsUnusable, OSError) as error:
                    _log.warning("can not switch over to the rebuilt views", reason=str(error))
                else:
                    _log.info("switched over to views that a tool has rebuilt")
                finally:
                    remove(taken)

    async def _hand_over(self, path: Path) -> None:
        """Bring the views in the file near the log's head, and have them served."""
        store = await checked(self._log, path, self._views)
        try:
            for _ in range(ROUNDS_MAX):
                if self._log.head().position - store.head.position <= NEAR_EVENTS:
                    break
                await catch_up(self._log, store, beside_turns)
            await self._switch(store, path)
        finally:
            store.close()


async def checked(log: EventLog, path: Path, views: Sequence[View]) -> ViewStore:
    """The views in the file; raises `ViewsUnusable` where they are others, or not of this log."""
    store = ViewStore.open(path, views)
    try:
        is_of_this_log = await log.hash_at(store.head.position) == store.head.hash
    except BaseException:
        store.close()
        raise
    if not is_of_this_log:
        store.close()
        raise ViewsUnusable("views.db was built from another log")
    return store
