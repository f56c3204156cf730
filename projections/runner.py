"""Keeps the views level with the log, and lets a query see everything that was acknowledged before it.

Theory of operation. One task follows the log and applies what it finds in batches. Between batches it rests for
`REST_S`, so that under load many turns share one transaction; but as soon as somebody waits it goes on at once. A
query notes the log's head as it comes, waits until the views have reached that, and then reads: so a client reads its
own writes, and what a query does not find does not exist.

Views are disposable: where the file turns out to be damaged, whoever finds out says so, and the one task rebuilds it
from the log and goes on; queries wait meanwhile. Only a log that is damaged stops the views for good.

Other views can take their place while they are served (`successors.py`). The one task stops following for a moment,
takes in what they lack, gives them the name, and lets queries have them from one step to the next. Queries that have
begun read the old file to their end, though it has no name any more.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

import structlog

from eventstore.log import EventLog, LogDamaged, LogError, LogUnavailable, LogUnreadable
from projections.outdated import renew_outdated
from projections.readers import LOOKUPS, SEARCHES, Readers, read
from projections.rebuild import catch_up, deletions_in, finished, in_slices, no_progress, rebuild
from projections.store import ViewStore, ViewsUnusable
from projections.succession import put_in_place
from projections.successors import Successor, Successors, checked
from projections.view import View

VIEWS_FILE = "views.db"
REST_S = 0.05
WAIT_S = 30.0
STOP_S = 5.0
RETRY_S = 1.0

_log = structlog.get_logger()


class ViewsUnavailable(Exception):
    """The views can not be brought level with the log now."""


class Runner:
    """The views of a running server."""

    def __init__(self, log: EventLog, path: Path, views: Sequence[View]) -> None:
        self._log = log
        self._path = path
        self._views = views
        self._store: ViewStore | None = None
        self._readers: Readers | None = None
        self._task: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._spoiled: ViewsUnusable | None = None
        self._failure: LogError | None = None
        self._stopping = False
        self._successors = Successors(log, path, views, self._switch_to)
        self._successor: Successor | None = None
        self._retiring: set[asyncio.Task[None]] = set()  # readers of a file without a name
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
            await runner._successors.take_up()
            try:
                await renew_outdated(log, path, views, progress)
                await runner._use(await checked(log, path, views))
            except ViewsUnusable as error:
                await runner._renew(error, progress)
            runner._task = asyncio.create_task(runner._run(), name="views")
            await runner.level(wait_s=None)
            runner._successors.look_out()
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
        return await self._fetch(sql, parameters, None, LOOKUPS)

    async def search(self, sql: str, parameters: Sequence[object], position: int | None = None) -> list[Any]:
        """The same for what may take its time, and need not wait for more of the log than up to `position`."""
        return await self._fetch(sql, parameters, position, SEARCHES)

    async def _fetch(self, sql: str, parameters: Sequence[object], position: int | None, which: int) -> list[Any]:
        await self.level(position)
        readers = self._readers
        try:
            return await self._read(which, sql, parameters)
        except ViewsUnusable as error:
            if readers is self._readers:
                self._report(error)
            await self._until(lambda: self._readers not in (None, readers), WAIT_S)
            await self.level(position)
            return await self._read(which, sql, parameters)

    async def _read(self, which: int, sql: str, parameters: Sequence[object]) -> list[Any]:
        if self._readers is None:
            raise ViewsUnavailable("the views are being rebuilt: try again in a moment")
        return await read(self._readers[which], sql, parameters)

    async def rebuild(self) -> None:
        """Make the views anew from the log as it is from now on, and switch over to them without a gap.

        Raises `LogError`, `OSError`, `ViewsUnusable`, `ViewsUnavailable`: the views are then served as before.
        """
        if not await self._successors.rebuild():
            raise ViewsUnavailable("the server is stopping")

    async def stop(self) -> None:
        """Take in what is left, so that the next start finds the views level with the log, and let go of the file."""
        await self._successors.stop()
        if self._task:
            with contextlib.suppress(ViewsUnavailable, ViewsUnusable, LogError):
                await self.level(wait_s=STOP_S)
            self._stopping = True
            self._task.cancel()
            await asyncio.wait([self._task])
        await self._release()
        if self._retiring:
            await asyncio.wait(self._retiring)

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
        self._interrupt()

    def _interrupt(self) -> None:
        if self._following:
            self._following.cancel()

    async def _run(self) -> None:
        while True:
            try:
                if self._spoiled:
                    await self._renew(self._spoiled, no_progress)
                if self._successor:
                    await self._succeeded()
                self._following = asyncio.create_task(self._follow(), name="following the log")
                await self._following
            except asyncio.CancelledError:
                if self._stopping or (self._spoiled is None and self._successor is None):
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
            await in_slices(store, batch, await deletions_in(self._log, batch))
            await self._tell(None)
            await self._rest()

    async def _unfollow(self) -> None:
        following, self._following = self._following, None
        if following and not following.done():
            following.cancel()
            await asyncio.wait([following])

    async def _switch_to(self, store: ViewStore, path: Path) -> None:
        """Have the task let these views take the place of the live ones; raises what keeps it from that."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._successor = Successor(store, path, done)
        self._interrupt()
        try:
            await asyncio.wait([done, *([self._task] if self._task else [])], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._successor = None
        if not done.done():
            self._raise_failure()
            raise ViewsUnavailable("the views are not followed any more")
        done.result()

    async def _succeeded(self) -> None:
        successor, self._successor = self._successor, None
        assert successor is not None  # noqa: S101 (asked by the caller)
        try:
            if self._store:
                self._store.abandon()
            await catch_up(self._log, successor.store, in_slices)
            await finished(successor.store.close)
            await finished(partial(put_in_place, successor.path, self._path))
        except (LogError, ViewsUnusable, OSError) as error:
            successor.done.set_exception(error)
            return
        readers, store = self._readers, self._store
        try:
            await self._use(ViewStore.open(self._path, self._views))
        except ViewsUnusable as error:
            successor.done.set_exception(error)
            raise
        finally:
            if store:
                store.close()
            if readers:
                self._retire(readers)
        await self._tell(None)
        successor.done.set_result(None)

    def _retire(self, readers: Readers) -> None:
        task = asyncio.create_task(readers.close(), name="the last queries of the old views")
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)

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
        """Serve these views, and from one step to the next where others are served."""
        try:
            readers = await Readers.open(self._path)
        except BaseException:
            store.close()
            raise
        self._store, self._readers = store, readers

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
