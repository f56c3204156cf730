"""Keeps the views level with the log, and lets a query see everything that was acknowledged before it.

Theory of operation. One task follows the log and applies what it finds in batches. Between batches it rests for
`REST_S`, so that under load many turns share one transaction; but as soon as somebody waits it goes on at once. A
query notes the log's head as it comes, waits until the views have reached that, and then reads: so a client reads its
own writes, and what a query does not find does not exist.

Views are disposable: where the file turns out to be damaged, whoever finds out says so, and the one task rebuilds it
from the log and goes on; queries wait meanwhile. Only a log that is damaged stops the views for good.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Self

import aiosqlite
import structlog

from eventstore.log import EventLog, LogDamaged, LogError, LogUnavailable, LogUnreadable, Recorded
from projections.rebuild import deletions_in, finished, no_progress, rebuild
from projections.store import ViewStore, ViewsUnusable
from projections.view import Deletion, View

VIEWS_FILE = "views.db"
REST_S = 0.05
SLICE_EVENTS = 50
WAIT_S = 30.0
STOP_S = 5.0
RETRY_S = 1.0

_log = structlog.get_logger()


class ViewsUnavailable(Exception):
    """The views can not be brought level with the log now."""


class _Readers(NamedTuple):
    """One that looks up names, in no time, and one that searches, so that no look-up waits behind a search."""

    lookups: aiosqlite.Connection
    searches: aiosqlite.Connection

    async def close(self) -> None:
        await self.lookups.close()
        await self.searches.close()


class Runner:
    """The views of a running server."""

    def __init__(self, log: EventLog, path: Path, views: Sequence[View]) -> None:
        self._log = log
        self._path = path
        self._views = views
        self._store: ViewStore | None = None
        self._readers: _Readers | None = None
        self._task: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._spoiled: ViewsUnusable | None = None
        self._failure: LogError | None = None
        self._stopping = False
        self._target = 0  # the furthest position that anybody has waited for
        self._wanted = asyncio.Event()
        self._moved = asyncio.Condition()

    @classmethod
    async def start(
        cls, log: EventLog, path: Path, views: Sequence[View], *, progress: Callable[[int], None] = no_progress
    ) -> Self:
        """Open the views, rebuild them where they can not be used, bring them level with the log, and follow it."""
        runner = cls(log, path, views)
        try:
            try:
                await runner._use(await _open(log, path, views))
            except ViewsUnusable as error:
                await runner._renew(error, progress)
            runner._task = asyncio.create_task(runner._run(), name="views")
            await runner.level(wait_s=None)
        except BaseException:
            await runner.stop()
            raise
        return runner

    async def level(self, position: int | None = None, *, wait_s: float | None = WAIT_S) -> None:
        """Return once the views have got to that position of the log, or to its head; raises `ViewsUnavailable`."""
        target = self._log.head().position if position is None else position
        if self._position < target or self._readers is None:
            self._target = max(self._target, target)
            self._wanted.set()
            await self._until(lambda: self._position >= target and self._readers is not None, wait_s)
        self._raise_failure()

    async def fetch(self, sql: str, parameters: Sequence[object]) -> list[Any]:
        """The rows that `sql` finds, once the views are level with the log."""
        return await self._fetch(sql, parameters, None, lambda readers: readers.lookups)

    async def search(self, sql: str, parameters: Sequence[object], position: int | None = None) -> list[Any]:
        """The same for what may take its time, and need not wait for more of the log than up to `position`."""
        return await self._fetch(sql, parameters, position, lambda readers: readers.searches)

    async def _fetch(
        self,
        sql: str,
        parameters: Sequence[object],
        position: int | None,
        chosen: Callable[[_Readers], aiosqlite.Connection],
    ) -> list[Any]:
        await self.level(position)
        readers = self._readers
        try:
            return await _read(readers and chosen(readers), sql, parameters)
        except ViewsUnusable as error:
            if readers is self._readers:
                self._report(error)
            await self._until(lambda: self._readers not in (None, readers), WAIT_S)
            await self.level(position)
            return await _read(self._readers and chosen(self._readers), sql, parameters)

    async def rebuild(self) -> None:
        """Build the views anew from the log, into a new file; raises `LogError`, `ViewsUnavailable`."""
        async with asyncio.timeout(None), self._moved:
            await self._moved.wait_for(lambda: self._failure or self._readers is not None)
        before = self._readers
        self._report(ViewsUnusable("something was erased"))
        await self._until(lambda: self._readers not in (None, before), None)

    async def stop(self) -> None:
        """Take in what is left, so that the next start finds the views level with the log, and let go of the file."""
        if self._task:
            with contextlib.suppress(ViewsUnavailable, ViewsUnusable, LogError):
                await self.level(wait_s=STOP_S)
            self._stopping = True
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._release()

    @property
    def _position(self) -> int:
        return self._store.head.position if self._store else -1

    async def _until(self, is_so: Callable[[], bool], wait_s: float | None) -> None:
        """Wait for something that the task brings about; raises `ViewsUnavailable`."""
        try:
            async with asyncio.timeout(wait_s), self._moved:
                await self._moved.wait_for(lambda: self._failure or is_so())
        except TimeoutError:
            behind = self._log.head().position - max(self._position, 0)
            raise ViewsUnavailable(f"the views are {behind} events behind the log") from None
        self._raise_failure()

    def _raise_failure(self) -> None:
        if self._failure:
            # One instance is raised to many: without its old traceback, which would keep every request it went through.
            raise self._failure.with_traceback(None)

    def _report(self, error: ViewsUnusable) -> None:
        """A query found the file damaged: have the task rebuild it."""
        self._spoiled = error
        if self._following:
            self._following.cancel()

    async def _run(self) -> None:
        while True:
            try:
                if self._spoiled:
                    await self._renew(self._spoiled, no_progress)
                self._following = asyncio.create_task(self._follow(), name="following the log")
                await self._following
            except asyncio.CancelledError:
                if self._stopping or self._spoiled is None:
                    raise
            except ViewsUnusable as error:
                self._spoiled = error
                await asyncio.sleep(RETRY_S if self._store is None else 0)
            except LogUnavailable as error:
                await self._fail(error)
                await asyncio.sleep(RETRY_S)
            except (LogDamaged, LogUnreadable) as error:
                # Without the log there are no views. Whoever asks for one is told why.
                await self._fail(error)
                return
            finally:
                await self._unfollow()

    async def _follow(self) -> None:
        store = self._store
        assert store is not None  # noqa: S101 (in use before anything is followed)
        await self._tell(None)
        async for batch in self._log.follow(store.head.position):
            await _take_in(store, batch, await deletions_in(self._log, batch))
            await self._tell(None)
            await self._rest()

    async def _unfollow(self) -> None:
        following, self._following = self._following, None
        if following and not following.done():
            following.cancel()
            await asyncio.wait([following])

    async def _fail(self, error: LogError) -> None:
        _log.error("the views stopped", reason=str(error))
        await self._tell(error)

    async def _tell(self, failure: LogError | None) -> None:
        self._failure = failure
        async with self._moved:
            self._moved.notify_all()

    async def _renew(self, reason: ViewsUnusable, progress: Callable[[int], None]) -> None:
        if self._log.head().position:  # a new installation has nothing to rebuild
            _log.warning("rebuilding the views", reason=str(reason))
        await self._release()
        await self._use(await rebuild(self._log, self._path, self._views, progress=progress))
        self._spoiled = None

    async def _use(self, store: ViewStore) -> None:
        self._store = store
        place = f"{self._path.absolute().as_uri()}?mode=ro"
        lookups = await aiosqlite.connect(place, uri=True)
        try:
            self._readers = _Readers(lookups, await aiosqlite.connect(place, uri=True))
        except BaseException:
            await lookups.close()
            raise

    async def _release(self) -> None:
        readers, store = self._readers, self._store
        self._readers = self._store = None
        if readers:
            await readers.close()
        if store:
            store.close()

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


async def _read(reader: aiosqlite.Connection | None, sql: str, parameters: Sequence[object]) -> list[Any]:
    if reader is None:
        raise ViewsUnavailable("the views are being rebuilt: try again in a moment")
    try:
        return list(await reader.execute_fetchall(sql, parameters))
    except (aiosqlite.DatabaseError, ValueError) as error:  # a ValueError: closed meanwhile, by a rebuild
        raise ViewsUnusable(f"views.db is damaged: {error}") from error


async def _take_in(store: ViewStore, batch: Sequence[Recorded], deletions: Sequence[Deletion]) -> None:
    """Apply a batch in slices on the event loop, and commit it in a thread.

    Every statement lets go of the interpreter's lock and takes it back: uncontended that is nothing, against a busy
    event loop it is a switch of threads each. A slice is short enough for nobody to notice; only the commit waits for a
    disk.
    """
    for begin in range(0, len(batch), SLICE_EVENTS):
        store.stage(batch[begin : begin + SLICE_EVENTS])
        await asyncio.sleep(0)
    await finished(partial(store.commit, deletions))
