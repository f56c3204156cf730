"""Keeps the views level with the log, and lets a query see everything that was acknowledged before it.

Theory of operation. One task follows the log and applies what it finds in batches. Between batches it rests for
`REST_S`, so that under load many turns share one transaction; but as soon as somebody waits it goes on at once. A
query notes the log's head as it comes, waits until the views have reached that, and then reads: so a client reads its
own writes, and what a query does not find does not exist.

Views are disposable: where the file turns out to be damaged, it is rebuilt from the log and the task goes on.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import aiosqlite
import structlog

from eventstore.log import EventLog, LogError, Recorded
from projections.store import ViewStore, ViewsUnusable
from projections.view import View

VIEWS_FILE = "views.db"
REST_S = 0.05
SLICE_EVENTS = 50
WAIT_S = 30.0
STOP_S = 5.0

_log = structlog.get_logger()


class ViewsUnavailable(Exception):
    """The views can not be brought level with the log now."""


def _no_progress(_position: int) -> None:
    """For those who do not watch."""


async def rebuild(
    log: EventLog,
    path: Path,
    views: Sequence[View],
    *,
    until: Callable[[int, int], bool] = lambda _position, _recorded_us: False,
    progress: Callable[[int], None] = _no_progress,
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
                await asyncio.to_thread(store.apply, wanted)
                progress(wanted[-1].position)
            if len(wanted) < len(batch):
                break
    finally:
        store.close()
    for stale in (path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")):
        stale.unlink(missing_ok=True)
    building.replace(path)
    return ViewStore.open(path, views)


class Runner:
    """The views of a running server."""

    def __init__(self, log: EventLog, path: Path, views: Sequence[View]) -> None:
        self._log = log
        self._path = path
        self._views = views
        self._store: ViewStore | None = None
        self._reader: aiosqlite.Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._failure: LogError | ViewsUnusable | ViewsUnavailable | None = None
        self._target = 0  # the furthest position that anybody has waited for
        self._wanted = asyncio.Event()
        self._moved = asyncio.Condition()
        self._repair = asyncio.Lock()

    @classmethod
    async def start(
        cls, log: EventLog, path: Path, views: Sequence[View], *, progress: Callable[[int], None] = _no_progress
    ) -> Self:
        """Open the views, rebuild them where they can not be used, bring them level with the log, and follow it."""
        runner = cls(log, path, views)
        try:
            try:
                await runner._use(await _open(log, path, views))
                await runner.level(wait_s=None)
            except ViewsUnusable as error:
                await runner._renew(error, progress)
                await runner.level(wait_s=None)
        except BaseException:
            await runner.stop()
            raise
        return runner

    async def level(self, *, wait_s: float | None = WAIT_S) -> None:
        """Return once the views have taken in everything that the log holds now; raises `ViewsUnavailable`."""
        target = self._log.head().position
        if self._position < target:
            self._target = max(self._target, target)
            self._wanted.set()
            try:
                async with asyncio.timeout(wait_s), self._moved:
                    await self._moved.wait_for(lambda: self._failure or self._position >= target)
            except TimeoutError:
                raise ViewsUnavailable(f"the views are {target - self._position} events behind the log") from None
        if self._failure:
            raise self._failure

    async def fetch(self, sql: str, parameters: Sequence[object]) -> list[Any]:
        """The rows that `sql` finds, once the views are level with the log."""
        reader = self._reader
        try:
            return await self._read(sql, parameters)
        except ViewsUnusable as error:
            async with self._repair:
                if reader is self._reader:
                    await self._renew(error, _no_progress)
            return await self._read(sql, parameters)

    async def stop(self) -> None:
        """Take in what is left, so that the next start finds the views level with the log, and let go of the file."""
        if self._task:
            with contextlib.suppress(ViewsUnavailable, ViewsUnusable, LogError):
                await self.level(wait_s=STOP_S)
        await self._release()

    @property
    def _position(self) -> int:
        return self._store.head.position if self._store else -1

    async def _read(self, sql: str, parameters: Sequence[object]) -> list[Any]:
        await self.level()
        if self._reader is None:
            raise ViewsUnavailable("the views are being rebuilt: try again in a moment")
        try:
            return list(await self._reader.execute_fetchall(sql, parameters))
        except aiosqlite.DatabaseError as error:
            raise ViewsUnusable(f"views.db is damaged: {error}") from error

    async def _renew(self, reason: ViewsUnusable, progress: Callable[[int], None]) -> None:
        _log.warning("rebuilding the views", reason=str(reason))
        await self._release()
        await self._use(await rebuild(self._log, self._path, self._views, progress=progress))

    async def _use(self, store: ViewStore) -> None:
        self._failure = None
        self._store = store
        self._reader = await aiosqlite.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True)
        self._task = asyncio.create_task(self._run(store), name="views")

    async def _release(self) -> None:
        task, reader, store = self._task, self._reader, self._store
        self._task = self._reader = self._store = None
        if task:
            task.cancel()
            await asyncio.wait([task])
        if reader:
            await reader.close()
        if store:
            store.close()

    async def _run(self, store: ViewStore) -> None:
        try:
            async for batch in self._log.follow(store.head.position):
                await _take_in(store, batch)
                async with self._moved:
                    self._moved.notify_all()
                await self._rest()
        except (LogError, ViewsUnusable) as error:
            # Without the log there are no views, and without a file there is nothing to write to. Whoever asks is told,
            # and has the views rebuilt where that helps.
            await self._fail(error)
        except Exception as error:
            await self._fail(ViewsUnavailable(f"the views met what they can not show: {error}"))
            raise

    async def _fail(self, error: LogError | ViewsUnusable | ViewsUnavailable) -> None:
        _log.error("the views stopped", reason=str(error))
        self._failure = error
        async with self._moved:
            self._moved.notify_all()

    async def _rest(self) -> None:
        if self._position < self._target:
            return
        self._wanted.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REST_S):
                await self._wanted.wait()


async def _open(log: EventLog, path: Path, views: Sequence[View]) -> ViewStore:
    store = ViewStore.open(path, views)
    if await log.hash_at(store.head.position) != store.head.hash:
        store.close()
        raise ViewsUnusable("views.db was built from another log")
    return store


async def _take_in(store: ViewStore, batch: Sequence[Recorded]) -> None:
    """Apply a batch in slices on the event loop, and commit it in a thread.

    Every statement lets go of the interpreter's lock and takes it back: uncontended that is nothing, against a busy
    event loop it is a switch of threads each. A slice is short enough for nobody to notice; only the commit waits for a
    disk.
    """
    for begin in range(0, len(batch), SLICE_EVENTS):
        store.stage(batch[begin : begin + SLICE_EVENTS])
        await asyncio.sleep(0)
    task = asyncio.ensure_future(asyncio.to_thread(store.commit))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
