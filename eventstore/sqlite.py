"""The embedded log: one SQLite file in WAL mode, one connection that writes, one that reads.

`SqliteLog.open` is the server's; `SqliteLog.open_read_only` is for tools beside it. Every row read is checked against
its neighbour's hash, so an altered byte is met as `LogDamaged` and never served as history.
"""

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Self, cast

import aiosqlite

from eventstore import chain, places, schema
from eventstore.chain import GENESIS, Row
from eventstore.events import Event
from eventstore.files import ensure_file, ensure_format, ensure_there, readable, uri
from eventstore.lock import exclusive
from eventstore.log import (
    BYTES_MAX,
    EVENTS_MAX,
    Erasure,
    Head,
    LogDamaged,
    LogUnavailable,
    Part,
    Recorded,
    Selected,
    VersionConflict,
)
from eventstore.moving.whole import discard
from eventstore.purge import Marker
from eventstore.rows import decoded, undamaged
from eventstore.writer import BATCH_ROWS_MAX, Writer

LOG_FILE = schema.LOG_FILE
LOCK_FILE = "lock"
READ_ROWS_MAX = 1_000
POLL_S = 0.1
_EMPTY = Head(0, GENESIS)


class SqliteLog:
    """An `EventLog` in `DIRECTORY/log.db`."""

    def __init__(
        self, directory: Path, reader: aiosqlite.Connection, resources: contextlib.AsyncExitStack, head: Head
    ) -> None:
        self._marker = Marker(directory)
        self._reader = reader
        self._resources = resources
        self._head = head
        self._writer: Writer | None = None
        self._news = asyncio.Event()

    @classmethod
    async def open(cls, directory: Path, *, synchronous: str = "FULL") -> Self:
        """Open the log in `directory` for writing, creating both where they lack.

        Raises `LogLocked` where another process has it, `LogDamaged` or `LogUnavailable` where it can not be read.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        async with contextlib.AsyncExitStack() as resources:
            resources.enter_context(exclusive(directory / LOCK_FILE))
            ensure_file(directory / LOG_FILE)
            discard(directory / LOG_FILE)  # of an import or a restore that was killed: nothing is to lie about unseen
            writing = await _connect(resources, directory / LOG_FILE, "rwc")
            with readable():
                await writing.executescript(schema.CREATE)
                await writing.execute(f"PRAGMA synchronous = {synchronous}")
                await writing.execute_fetchall(
                    "PRAGMA secure_delete = ON"
                )  # what is erased is overwritten where it stood
                reading = await _connect(resources, directory / LOG_FILE, "ro")
                head, last_us = await _find_head(reading)
            log = cls(directory, reading, resources.pop_all(), head)
            log._writer = Writer(writing, head, last_us, log._announce)
            return log
        raise AssertionError("unreachable: the stack does not swallow errors")

    @classmethod
    async def open_read_only(cls, directory: Path) -> Self:
        """Open the log in `directory` for reading, beside a server or without one."""
        path = directory / LOG_FILE
        ensure_there(path)
        async with contextlib.AsyncExitStack() as resources:
            resources.push_async_callback(_tidy, path, _has_beside(path))
            reading = await _connect(resources, path, "ro")
            with readable():
                head, _ = await _find_head(reading)
            return cls(directory, reading, resources.pop_all(), head)
        raise AssertionError("unreachable: the stack does not swallow errors")

    async def append(self, stream: str, expected_version: int, events: Sequence[Event]) -> tuple[Recorded, ...]:
        """See `EventLog.append`."""
        return await self._writing().append(stream, expected_version, events)

    def head(self) -> Head:
        """See `EventLog.head`. Of a log opened read-only: the newest position met so far."""
        return self._head if self._writer is None else self._writer.head

    async def hash_at(self, position: int) -> bytes | None:
        """See `EventLog.hash_at`."""
        if position == 0:
            return GENESIS
        rows = await self._fetch(schema.HASH_AT, (position,))
        return bytes(rows[0][0]) if rows else None

    async def read(self, stream: str, after_version: int = 0) -> list[Recorded]:
        """See `EventLog.read`."""
        recorded: list[Recorded] = []
        for expected, (*row, previous) in enumerate(
            await self._fetch(schema.READ_STREAM, (stream, after_version)), after_version + 1
        ):
            position, _, version, *_ = row
            if version != expected:
                raise LogDamaged(position, f"{stream} goes on at version {version}, expected {expected}")
            with undamaged():
                chain.check(cast("Row", row), position, previous or GENESIS)
            recorded += decoded([cast("Row", row)])
        return recorded

    async def at(self, positions: Sequence[int]) -> list[Recorded]:
        """See `EventLog.at`."""
        rows = await self._fetch(schema.READ_AT, (json.dumps(list(positions)),))
        for *row, previous in rows:
            with undamaged():
                chain.check(cast("Row", row), row[0], previous or GENESIS)
        return decoded([cast("Row", row) for *row, _ in rows])

    async def select(self, part: Part, limit: int = EVENTS_MAX, bytes_max: int = BYTES_MAX) -> Selected:
        """See `EventLog.select`."""
        newest = self.head().position if self._writer else (await self._fetch(schema.NEWEST, ()))[0][0] or 0
        found = await places.find(self._fetch, part, newest, min(limit, EVENTS_MAX), bytes_max)
        return Selected(await self.at(found.positions), found.looked_to, found.is_all)

    async def read_all(self, after_position: int = 0, *, check: bool = True) -> AsyncIterator[list[Recorded]]:
        """See `EventLog.read_all`. `check=False` leaves the hashes unchecked, for those who have just done it."""
        previous = await self.hash_at(after_position) if check else GENESIS
        if previous is None:
            return
        while rows := cast("list[Row]", await self._fetch(schema.READ_ALL, (after_position, READ_ROWS_MAX))):
            if check:
                with undamaged():
                    chain.check_all(rows, after_position, previous)
            yield decoded(rows)
            after_position, *_, previous = rows[-1]
            if self._writer is None:
                self._head = max(self._head, Head(after_position, previous))

    async def follow(self, after_position: int = 0, *, check: bool = False) -> AsyncIterator[list[Recorded]]:
        """See `EventLog.follow`. A log opened read-only is asked for news ten times a second."""
        while True:
            self._news.clear()
            recent = self._writer.recent.after(after_position) if self._writer else None
            if recent:
                yield recent
                after_position = recent[-1].position
            elif recent is None:
                # What follows live was hashed a moment ago; most of the past is checked by those who serve it.
                async for batch in self.read_all(after_position, check=check):
                    yield batch
                    after_position = batch[-1].position
            if self._writer is None:
                await asyncio.sleep(POLL_S)
            elif self.head().position <= after_position:
                await self._news.wait()

    async def erase(self, erasures: Sequence[Erasure], unchanged: Mapping[str, int]) -> tuple[Recorded, ...]:
        """See `EventLog.erase`."""
        writer, was_erasing = self._writing(), self.is_erasing
        self._marker.set()
        try:
            return await writer.erase(erasures, unchanged)
        except VersionConflict:
            if not was_erasing:
                self._marker.clear()
            raise

    @property
    def is_erasing(self) -> bool:
        """See `EventLog.is_erasing`."""
        return self._marker.is_set

    async def purge(self) -> None:
        """See `EventLog.purge`."""
        await self._writing().purge()

    def erasing_is_over(self) -> None:
        """See `EventLog.erasing_is_over`."""
        self._marker.clear()

    async def close(self) -> None:
        """See `EventLog.close`."""
        try:
            if self._writer is not None:
                await self._writer.close()
        finally:
            await self._resources.aclose()

    def _writing(self) -> Writer:
        if self._writer is None:
            raise LogUnavailable("the log is open for reading only")
        return self._writer

    def _announce(self) -> None:
        self._news.set()

    async def _fetch(self, sql: str, parameters: Iterable[object]) -> list[sqlite3.Row]:
        return await _rows(self._reader, sql, parameters)


async def _rows(connection: aiosqlite.Connection, sql: str, parameters: Iterable[object] = ()) -> list[sqlite3.Row]:
    with readable():
        try:
            return cast("list[sqlite3.Row]", await connection.execute_fetchall(sql, parameters))
        except sqlite3.OperationalError as error:
            if "decode" not in str(error):
                raise
        # A column that holds text where bytes were written. SQLite's error tells the content, and not the position.
        mistyped = list(await connection.execute_fetchall(schema.MISTYPED))
    raise LogDamaged(mistyped[0][0] if mistyped else 0, "the event was altered: it holds text where bytes were written")


async def _connect(resources: contextlib.AsyncExitStack, path: Path, mode: str) -> aiosqlite.Connection:
    # An open connection keeps its thread, and the process, alive: the stack closes it however opening ends.
    connection = aiosqlite.connect(
        uri(path, mode), uri=True, isolation_level=None, cached_statements=BATCH_ROWS_MAX + 16
    )
    with readable():
        # Where this fails, aiosqlite's thread would outlive the loop that it tells so.
        sqlite3.connect(uri(path, mode), uri=True).close()
        return await resources.enter_async_context(connection)


def _has_beside(path: Path) -> bool:
    return path.with_name(f"{path.name}-wal").exists()


async def _tidy(path: Path, had_beside: bool) -> None:
    """Remove what SQLite puts beside a file that is only read, unless it was there, or others have come to use it.

    SQLite itself does so as the last connection that could write is closed.
    """
    if had_beside or not _has_beside(path):
        return
    with contextlib.suppress(aiosqlite.DatabaseError, UnicodeDecodeError):  # whoever reads a damaged file says so
        async with aiosqlite.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True) as last:
            await last.execute_fetchall("SELECT count(*) FROM sqlite_master")


async def _find_head(connection: aiosqlite.Connection) -> tuple[Head, int]:
    ensure_format((await _rows(connection, "PRAGMA user_version"))[0][0])
    rows = await _rows(connection, schema.HEAD)
    return (Head(rows[0][0], rows[0][1]), rows[0][2]) if rows else (_EMPTY, 0)
