"""The one task that writes: it drains a queue and commits whatever has gathered as one transaction.

Theory of operation. Callers put an append in the queue and wait. While one commit is on its way to the disk the next
batch gathers, so no timer is needed: a lone append is committed at once, sixty-four of them share one commit. A batch
is one INSERT statement, which SQLite makes atomic by itself, so there is no begin and no rollback that another
coroutine could get between.

Versions are checked in memory against the heads of recently written streams. A stream that is not in memory and is
expected not to exist is inserted on trust: the unique index (stream, version) refuses the whole batch if the
trust was misplaced, and the batch is then staged again with versions read from the table.

What is rarer than an append, and no single statement, is work that the same task does between two batches.
"""

import asyncio
import contextlib
import os
import sqlite3
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import aiosqlite

from eventstore import chain, purge, schema
from eventstore.events import Event
from eventstore.log import Erasure, Head, LogError, LogOverloaded, LogUnavailable, Recorded, VersionConflict
from eventstore.recent import Recent
from eventstore.waiting import Append, Work

BATCH_ROWS_MAX = 256
QUEUE_ROWS_MAX = 4_096
WAITERS_MAX = 4_096
WAIT_S = 5.0
HEADS_MAX = 16_384


class _Staged(NamedTuple):
    """A batch, ready to be written: the head it leads to, its rows' values, and who is in it and who is not."""

    head: Head
    values: list[object]
    accepted: list[Append]
    refused: list[tuple[Append, VersionConflict]]


class Writer:
    """Group commit on one connection. `committed` is called after each commit, on the event loop."""

    def __init__(
        self, connection: aiosqlite.Connection, head: Head, last_us: int, committed: Callable[[], None]
    ) -> None:
        self.head = head
        self.recent = Recent()
        self._connection = connection
        self._committed = committed
        self._last_us = last_us
        self._versions: dict[str, int] = {}
        self._queue: deque[Append] = deque()
        self._queued_rows = 0
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._works: deque[Work] = deque()
        self._wake = asyncio.Event()
        self._closing = False
        self._statements = [schema.insert(rows) for rows in range(BATCH_ROWS_MAX + 1)]
        self._task = asyncio.create_task(self._run(), name="log writer")

    async def append(self, stream: str, expected_version: int, events: Sequence[Event]) -> tuple[Recorded, ...]:
        """See `EventLog.append`."""
        if not 0 < len(events) <= BATCH_ROWS_MAX:
            raise ValueError(f"an append takes 1 to {BATCH_ROWS_MAX} events, got {len(events)}")
        if self._queued_rows + len(events) > QUEUE_ROWS_MAX:
            await self._wait_for_room(len(events))
        if self._closing:
            raise LogUnavailable("the log is closed")
        append = Append(stream, expected_version, events)
        self._queue.append(append)
        self._queued_rows += len(events)
        self._wake.set()
        return await append.settled()

    async def erase(self, erasures: Sequence[Erasure], unchanged: Mapping[str, int]) -> tuple[Recorded, ...]:
        """See `EventLog.erase`."""
        appends = [Append(stream, version, (fact,)) for stream, version, fact in erasures]
        ranges = [range_ for _, _, fact in erasures for range_ in fact.ranges]
        await self._between(lambda: self._erase(appends, ranges, unchanged))
        return tuple(recorded for append in appends for recorded in append.recorded)

    async def purge(self) -> None:
        """See `EventLog.purge`."""
        await self._between(lambda: purge.rewrite(self._connection))
        await purge.until_empty(lambda: self._between(lambda: purge.checkpoint(self._connection)))

    async def close(self) -> None:
        """Commit what is queued, then stop."""
        self._closing = True
        self._wake.set()
        await self._task

    async def _wait_for_room(self, rows: int) -> None:
        if len(self._waiters) >= WAITERS_MAX:
            raise LogOverloaded("too many appends are waiting for the disk")
        try:
            async with asyncio.timeout(WAIT_S):
                while self._queued_rows + rows > QUEUE_ROWS_MAX:
                    waiter = asyncio.get_running_loop().create_future()
                    self._waiters.append(waiter)
                    await waiter
        except TimeoutError:
            raise LogOverloaded(f"the disk has not kept up for {WAIT_S:g} s") from None

    async def _between(self, do: Callable[[], Awaitable[None]]) -> None:
        """Have the task do something between two batches, whatever becomes of the caller; raises what that raises."""
        if self._closing:
            raise LogUnavailable("the log is closed")
        work = Work(do, asyncio.get_running_loop().create_future())
        self._works.append(work)
        self._wake.set()
        await asyncio.shield(work.done)

    async def _do(self, work: Work) -> None:
        try:
            await work.do()
        except LogError as error:
            work.fail(error)
        except sqlite3.Error as error:
            await self._start_over()
            work.fail(LogUnavailable(f"the disk did not take it: {error}"))
        else:
            if not work.done.done():
                work.done.set_result(None)

    async def _erase(
        self, appends: list[Append], ranges: Sequence[tuple[int, int]], unchanged: Mapping[str, int]
    ) -> None:
        streams = [*unchanged, *(append.stream for append in appends)]
        for begin in range(0, len(streams), BATCH_ROWS_MAX):
            await self._learn_versions(set(streams[begin : begin + BATCH_ROWS_MAX]) - self._versions.keys())
        for stream, version in unchanged.items():
            if self._versions[stream] != version:
                raise VersionConflict(stream, version, self._versions[stream])
        staged = self._stage(appends)
        if staged.refused:
            raise staged.refused[0][1]
        rows = len(staged.values) // 7
        inserts = [
            (
                self._statements[min(BATCH_ROWS_MAX, rows - begin)],
                staged.values[7 * begin : 7 * (begin + BATCH_ROWS_MAX)],
            )
            for begin in range(0, rows, BATCH_ROWS_MAX)
        ]
        await purge.replace(self._connection, inserts, ranges)
        self.recent = Recent()
        self._acknowledge(staged)

    async def _run(self) -> None:
        batch: list[Append] = []
        try:
            while self._queue or self._works or not self._closing:
                if self._works:
                    await self._do(self._works.popleft())
                    continue
                if not self._queue:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                batch = self._take()
                try:
                    await self._commit(batch)
                except sqlite3.Error as error:
                    _fail(batch, LogUnavailable(f"the disk did not take the events: {error}"))
                    await self._start_over()
        finally:
            # However the task ends, nobody waits for it in vain.
            self._closing = True
            _fail([*batch, *self._queue], LogUnavailable("the log is closed"))
            for work in self._works:
                work.fail(LogUnavailable("the log is closed"))

    async def _start_over(self) -> None:
        """After a failed commit: believe nothing but the table."""
        self._versions.clear()
        self.recent = Recent()
        with contextlib.suppress(sqlite3.Error):
            for row in await self._connection.execute_fetchall(schema.HEAD):
                self.head = Head(row[0], row[1])

    def _take(self) -> list[Append]:
        batch: list[Append] = []
        rows = 0
        while self._queue and rows + len(self._queue[0].events) <= BATCH_ROWS_MAX:
            append = self._queue.popleft()
            rows += len(append.events)
            batch.append(append)
        self._queued_rows -= rows
        for _ in range(min(rows, len(self._waiters))):
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
        return batch

    async def _commit(self, batch: list[Append]) -> None:
        await self._learn_versions({a.stream for a in batch if a.expected_version} - self._versions.keys())
        try:
            staged = await self._insert(batch)
        except sqlite3.IntegrityError:
            # A stream that was expected to be new exists: read all the versions and stage once more.
            self._versions.clear()
            await self._learn_versions({append.stream for append in batch})
            staged = await self._insert(batch)
        self._acknowledge(staged)

    async def _learn_versions(self, streams: set[str]) -> None:
        if not streams:
            return
        names = list(streams)
        found = await self._connection.execute_fetchall(schema.versions(len(names)), names)
        self._versions.update(dict.fromkeys(names, 0))
        self._versions.update((row[0], row[1]) for row in found)

    async def _insert(self, batch: list[Append]) -> _Staged:
        staged = self._stage(batch)
        if staged.accepted:
            await self._connection.execute(self._statements[len(staged.values) // 7], staged.values)
        return staged

    def _stage(self, batch: list[Append]) -> _Staged:
        """Give every event its position, version, time and hash; turn away the appends with a wrong version."""
        position, previous = self.head
        now_us = self._last_us = max(time.time_ns() // 1_000, self._last_us)
        salts = os.urandom(chain.SALT_BYTES * sum(len(append.events) for append in batch))
        values: list[object] = []
        accepted: list[Append] = []
        refused: list[tuple[Append, VersionConflict]] = []
        versions: dict[str, int] = {}
        for append in batch:
            stream = append.stream
            version = versions.get(stream)
            if version is None:
                version = self._versions.get(stream, 0)
            if version != append.expected_version:
                refused.append((append, VersionConflict(stream, append.expected_version, version)))
                continue
            append.recorded.clear()
            for event, (kind, content) in zip(append.events, append.encoded, strict=True):
                salt, salts = salts[: chain.SALT_BYTES], salts[chain.SALT_BYTES :]
                position += 1
                version += 1
                data = salt + content
                previous = chain.link(previous, position, stream, version, kind, now_us, data)
                values += (position, stream, version, kind, now_us, data, previous)
                append.recorded.append(Recorded(position, stream, version, now_us, event, previous))
            versions[stream] = version
            accepted.append(append)
        return _Staged(Head(position, previous), values, accepted, refused)

    def _acknowledge(self, staged: _Staged) -> None:
        self.head = staged.head
        for append in staged.accepted:
            self._versions.pop(append.stream, None)  # the newest is last: the oldest is dropped first
            self._versions[append.stream] = append.recorded[-1].version
            append.settle(tuple(append.recorded))
            for recorded, (_, content) in zip(append.recorded, append.encoded, strict=True):
                self.recent.add(recorded, len(content))
        # Only now: whoever is told that another was first must find the other's events when it reads.
        for append, conflict in staged.refused:
            append.settle(conflict)
        while len(self._versions) > HEADS_MAX:
            del self._versions[next(iter(self._versions))]
        if staged.accepted:
            self._committed()


def _fail(appends: Iterable[Append], error: LogError) -> None:
    for append in appends:
        append.settle(error)
