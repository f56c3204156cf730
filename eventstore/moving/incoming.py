"""A log's rows on their way in: all of them or none, each checked before it is taken.

Theory of operation. A new log is written beside its place and put there once it is whole and on the disk; a log that is
there already takes what follows it in one transaction. So a kill, a full disk or a bad row leave what was there before.
What is written beside needs no journal: nobody will ever see half of it.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from eventstore import chain, schema
from eventstore.chain import BrokenChain, Row
from eventstore.events import Event, encode, type_name
from eventstore.files import ensure_format, opened, readable, writable
from eventstore.lock import exclusive
from eventstore.log import Head, LogError, LogUnavailable
from eventstore.moving.outgoing import BATCH_BYTES_MAX, BATCH_ROWS_MAX, START
from eventstore.moving.whole import beside, in_place_of
from eventstore.purge import Marker
from eventstore.sqlite import LOCK_FILE, LOG_FILE

STREAMS_MAX = 16_384  # whose versions are remembered
CACHE_KIB = 65_536


class Unfit(LogError):
    """A row that can not be what comes next in the log."""


class Incoming:
    """A log that takes rows. `head` is the newest one taken, `recorded_us` when that was recorded."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path
        with readable():
            newest = connection.execute(schema.HEAD).fetchone()
        self.head = Head(newest[0], newest[1]) if newest else START
        self.recorded_us: int = newest[2] if newest else 0
        self._versions: dict[str, int] = {}
        self._rows: list[Row] = []
        self._bytes = 0

    def add(self, row: Row) -> None:
        """Take the row behind the newest one; raises `Unfit` unless it follows from that, and `LogUnavailable`."""
        position, stream, version, _, recorded_us, data, hash_ = row
        if position != self.head.position + 1:
            raise Unfit(f"position {position}, expected {self.head.position + 1}")
        try:
            chain.check(row, position, self.head.hash)
        except BrokenChain as error:
            raise Unfit(error.reason) from None
        known = self._versions.get(stream)
        expected = (self._version_of(stream) if known is None else known) + 1
        if version != expected:
            raise Unfit(f"version {version} of {stream}, expected {expected}")
        self._versions[stream] = version
        self.head, self.recorded_us = Head(position, hash_), recorded_us
        self._rows.append(row)
        self._bytes += len(data)
        if len(self._rows) >= BATCH_ROWS_MAX or self._bytes >= BATCH_BYTES_MAX:
            self.write()

    def record(self, at_us: int, stream: str, event: Event) -> None:
        """Record what happened elsewhere and earlier, at its own time unless something later is recorded already."""
        known = self._versions.get(stream)
        version = (self._version_of(stream) if known is None else known) + 1
        position, recorded_us, kind = self.head.position + 1, max(at_us, self.recorded_us), type_name(event)
        data = os.urandom(chain.SALT_BYTES) + encode(event)
        hash_ = chain.link(self.head.hash, position, stream, version, kind, recorded_us, data)
        self.add((position, stream, version, kind, recorded_us, data, hash_))

    def write(self) -> None:
        """Hand to SQLite what has gathered."""
        with writable(self._path):
            self._connection.executemany(schema.insert(1), self._rows)
        self._rows.clear()
        self._bytes = 0
        if len(self._versions) > STREAMS_MAX:
            self._versions.clear()

    def erase(self, ranges: Iterable[tuple[int, int]]) -> int:
        """Replace what rows in these ranges of positions hold by its digest, as facts that were taken in say of them;
        how many held anything still. The next start writes the file anew without it, and the views.
        """
        self.write()
        count = 0
        with writable(self._path):
            self._connection.execute(schema.ALLOW_UPDATES)
            for first, last in ranges:
                positions = [found for (found,) in self._connection.execute(schema.HELD_BETWEEN, (first, last))]
                for position in positions:
                    ((data,),) = self._connection.execute(schema.DATA_OF, (position,)).fetchall()
                    self._connection.execute(schema.REPLACE_DATA, (chain.digest(data), position))
                count += len(positions)
            self._connection.execute(schema.NEVER_UPDATED)
        if count:
            Marker(self._path.parent).set()
        return count

    def keep(self, files: Iterable[tuple[str, Iterable[bytes]]]) -> None:
        """Put small files beside the log, each by its name and in pieces."""
        with writable(self._path):
            self._connection.execute(schema.CREATE_FILES)
            for name, pieces in files:
                rows = ((name, part, piece) for part, piece in enumerate(pieces))
                self._connection.executemany(schema.INSERT_FILE, rows)

    def _version_of(self, stream: str) -> int:
        """Of a stream that is not remembered all rows have been written: it was forgotten as they were."""
        with readable():
            version: int | None = self._connection.execute(schema.VERSION_OF, (stream,)).fetchone()[0]
        return version or 0


@contextlib.contextmanager
def taking_in(directory: Path) -> Iterator[Incoming]:
    """The log in `directory`, new or not, for the body to add to: it has all that was added, durably, once the body is
    left, and nothing where that fails.

    Raises `LogLocked` where another process has the log, `LogUnavailable`, `LogDamaged`.
    """
    with owned(directory):
        path = directory / LOG_FILE
        if path.exists():
            with _continued(path) as incoming:
                yield incoming
        else:
            ensure_vacant(directory)
            with in_place_of(path) as partial, written(partial) as incoming:
                yield incoming


@contextlib.contextmanager
def owned(directory: Path) -> Iterator[None]:
    """Hold the data directory, made where it lacks; raises `LogLocked`, `LogUnavailable`."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise LogUnavailable(f"can not make the data directory {directory}: {error.strerror}") from error
    with exclusive(directory / LOCK_FILE):
        yield


def ensure_vacant(directory: Path) -> None:
    """Raise `LogUnavailable` where something lies about that SQLite would take for a new log's."""
    if stray := [str(path) for path in beside(directory / LOG_FILE) if path.exists()]:
        raise LogUnavailable(f"{' and '.join(stray)} belong to a log that is not there: move them away, or it back")


@contextlib.contextmanager
def written(path: Path, journal: str = "WAL") -> Iterator[Incoming]:
    """A new log in the empty file at `path`, closed and whole once the body is left, but not on the disk yet."""
    with opened(path, "rw") as connection:
        with writable(path):
            connection.executescript(schema.CREATE)
        with _filled(connection, path, ("journal_mode = OFF", "synchronous = OFF"), "BEGIN") as incoming:
            yield incoming
        with writable(path):
            connection.execute(f"PRAGMA journal_mode = {journal}")


@contextlib.contextmanager
def _continued(path: Path) -> Iterator[Incoming]:
    with opened(path, "rw") as connection:
        with readable():
            ensure_format(connection.execute("PRAGMA user_version").fetchone()[0])
        with _filled(connection, path, ("journal_mode = WAL", "synchronous = FULL"), "BEGIN IMMEDIATE") as incoming:
            yield incoming
        with writable(path):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


@contextlib.contextmanager
def _filled(connection: sqlite3.Connection, path: Path, pragmas: Iterable[str], begin: str) -> Iterator[Incoming]:
    """What the body takes in, all of it in one transaction."""
    with writable(path):
        for pragma in (*pragmas, f"cache_size = -{CACHE_KIB}"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute(begin)
    incoming = Incoming(connection, path)
    yield incoming
    incoming.write()
    with writable(path):
        connection.execute("COMMIT")
