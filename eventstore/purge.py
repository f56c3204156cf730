"""Erasing: what rows held is replaced by its digests, and the log's file is written anew without it.

Theory of operation. A replaced row leaves what it held in places that no query reaches: in free pages, in free parts of
pages, in older copies of pages in the write-ahead file. VACUUM writes every page anew, and a checkpoint that truncates
leaves nothing in the write-ahead file; that has to wait for whoever still reads the old pages. A marker in the data
directory tells, across a crash, that all this is not over.
"""

import asyncio
import contextlib
import json
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain as chained
from itertools import islice
from pathlib import Path
from typing import TypeAlias

import aiosqlite

from eventstore import chain, schema
from eventstore.log import LogUnavailable, NotPurged
from eventstore.moving.whole import sync

MARKER_FILE = "erasing"
ROWS_MAX = 500
WAIT_S = 10.0  # for readers of the old file
POLL_S = 0.1
BUSY_MS = 100  # in which appends wait for a reader, at each try

Insert: TypeAlias = tuple[str, Sequence[object]]


class Marker:
    """The file that says that an erasure has begun, and may not be over."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / MARKER_FILE

    @property
    def is_set(self) -> bool:
        """Whether it is there."""
        return self._path.exists()

    def set(self) -> None:
        """Put it there, durably; raises `LogUnavailable`."""
        try:
            with self._path.open("w") as file:
                file.write("What was erased may still be in this directory: the next start of turnlog sees to it.\n")
                file.flush()
                os.fsync(file.fileno())
            sync(self._path.parent)
        except OSError as error:
            raise LogUnavailable(f"{self._path} can not be written: {error.strerror or error}") from error

    def clear(self) -> None:
        """Take it away."""
        with contextlib.suppress(OSError):  # it is found again by the next start, which does no more than is needless
            self._path.unlink(missing_ok=True)
            sync(self._path.parent)


async def replace(
    connection: aiosqlite.Connection, inserts: Sequence[Insert], ranges: Sequence[tuple[int, int]]
) -> None:
    """Add rows, and replace the data of those in the ranges by its digest: one transaction on a connection that nobody
    else uses. The trigger that forbids it is away in this transaction alone, so that no other SQL ever can.
    """
    await connection.execute("BEGIN IMMEDIATE")
    try:
        for sql, values in inserts:
            await connection.execute(sql, values)
        await connection.execute(schema.ALLOW_UPDATES)
        positions = chained.from_iterable(range(first, last + 1) for first, last in ranges)
        while batch := list(islice(positions, ROWS_MAX)):
            rows = await connection.execute_fetchall(schema.DATA_AT, (json.dumps(batch),))
            digests = [(chain.digest(data), position) for position, data in rows if not chain.is_erased(data)]
            await connection.executemany(schema.REPLACE_DATA, digests)
        await connection.execute(schema.NEVER_UPDATED)
        await connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            await connection.execute("ROLLBACK")
        raise


async def rewrite(connection: aiosqlite.Connection) -> None:
    """Write the whole file anew; raises `NotPurged` where there is no room for that.

    No statement of the connection may be under way: whatever returns rows on it is to be fetched to its end.
    """
    try:
        await connection.execute("VACUUM")
    except aiosqlite.OperationalError as error:
        raise NotPurged(f"{_NOT_YET}: the log's file can not be written anew: {error}") from error


async def checkpoint(connection: aiosqlite.Connection) -> None:
    """Empty the write-ahead file into the log's; raises `NotPurged` where somebody still reads it."""
    await connection.execute_fetchall(f"PRAGMA busy_timeout = {BUSY_MS}")
    try:
        ((is_busy, *_),) = await connection.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        await connection.execute_fetchall("PRAGMA busy_timeout = 5000")
    if is_busy:
        raise NotPurged(f"{_NOT_YET}: somebody has been reading the log for {WAIT_S:g} s")


async def until_empty(try_it: Callable[[], Awaitable[None]]) -> None:
    """Try until nobody reads the write-ahead file, for `WAIT_S` at most; raises `NotPurged`."""
    give_up = time.monotonic() + WAIT_S
    while True:
        try:
            return await try_it()
        except NotPurged:
            if time.monotonic() > give_up:
                raise
        await asyncio.sleep(POLL_S)


_NOT_YET = "erased in the log, but not yet from its file, which the next erasure or start will see to"
