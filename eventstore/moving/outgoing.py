"""A log's rows on their way out: as they are stored, in the log's order, each checked against the one before it."""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Self, cast

from eventstore import chain, schema
from eventstore.chain import GENESIS, Row
from eventstore.files import MISNAMED, ensure_format, ensure_there, opened, readable
from eventstore.log import Head, LogDamaged, LogUnavailable
from eventstore.rows import undamaged

BATCH_ROWS_MAX = 1_000
BATCH_BYTES_MAX = 8_000_000  # of content, unless a single event is larger
START = Head(0, GENESIS)


class Outgoing:
    """The rows of a log's file, read beside whoever writes it. `head` is the newest event as it was opened."""

    def __init__(self, connection: sqlite3.Connection, head: Head) -> None:
        self._connection = connection
        self.head = head

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path) -> Iterator[Self]:
        """Open the log's file for reading. What is recorded meanwhile is not met.

        Raises `LogUnavailable` or `LogDamaged`, now and as rows are read.
        """
        ensure_there(path)
        with opened(path, "ro") as connection:
            with readable():
                application = connection.execute("PRAGMA application_id").fetchone()[0]
                if application != schema.APPLICATION_ID:
                    raise LogUnavailable(f"{path} is no log: it is empty, or another program's database")
                ensure_format(connection.execute("PRAGMA user_version").fetchone()[0])
            yield cls(connection, _newest(connection))

    def hold(self) -> None:
        """Read everything as it is now, also what is erased meanwhile; holds up nobody who writes."""
        with readable():
            self._connection.execute("BEGIN")
            self.head = _newest(self._connection)

    def at(self, position: int) -> Head:
        """The event at that position, as what others follow; raises `LogUnavailable` where the log is shorter."""
        if position == 0:
            return START
        with readable():
            found = self._connection.execute(schema.HASH_AT, (position,)).fetchone()
        if found is None:
            raise LogUnavailable(f"there is no position {position}: the log ends at {self.head.position}")
        return Head(position, found[0])

    def last_until(self, recorded_us: int) -> int:
        """The position of the newest event that was recorded by then, in microseconds UTC since 1970; 0: of none."""
        with readable():
            later = self._connection.execute(schema.LATER_THAN, (0, recorded_us)).fetchone()
        return min(later[0] - 1, self.head.position) if later else self.head.position

    def rows(self, after: Head, until: int, *, check: bool = True) -> Iterator[list[Row]]:
        """The rows after an event up to the position `until`, in bounded batches. `check=False` leaves the hashes
        unchecked, for those who do it themselves.
        """
        while after.position < until:
            rows = self._batch(after.position, min(BATCH_ROWS_MAX, until - after.position))
            if not rows:
                raise LogDamaged(after.position + 1, "the event is missing, and all that followed it")
            if check:
                with undamaged():
                    chain.check_all(rows, *after)
            yield rows
            after = Head(rows[-1][0], rows[-1][-1])

    def of_stream(self, stream: str) -> Iterator[Row]:
        """The rows of one stream, each checked against its neighbour in the log."""
        for version, found in enumerate(self._each(schema.READ_STREAM, (stream, 0)), 1):
            row = cast("Row", found[:-1])
            with undamaged():
                chain.check(row, row[0], found[-1] or GENESIS)
            if row[2] != version:
                raise LogDamaged(row[0], f"{stream} goes on at version {row[2]}, expected {version}")
            yield row

    def of_type(self, type_: str) -> Iterator[Row]:
        """The rows of one type, unchecked: to find out where to read."""
        yield from cast("Iterator[Row]", self._each(schema.OF_TYPE, (type_,)))

    def kept(self) -> dict[str, bytes]:
        """The small files that a backup holds beside the log, by their names."""
        with readable():
            if not self._connection.execute(schema.HAS_FILES).fetchone():
                return {}
            pieces = self._connection.execute(schema.READ_FILES).fetchall()
        return {name: b"".join(piece for _, piece in parts) for name, parts in groupby(pieces, itemgetter(0))}

    def _each(self, sql: str, parameters: Sequence[object]) -> Iterator[tuple[Any, ...]]:
        with readable(), contextlib.closing(self._connection.execute(sql, parameters)) as cursor:
            yield from cursor

    def _batch(self, after: int, rows_max: int) -> list[Row]:
        rows: list[Row] = []
        bytes_left = BATCH_BYTES_MAX
        try:
            with contextlib.closing(self._connection.execute(schema.READ_ALL, (after, rows_max))) as cursor:
                for row in cursor:
                    rows.append(row)
                    bytes_left -= len(row[5]) if isinstance(row[5], bytes) else 0
                    if bytes_left <= 0:
                        break
        except sqlite3.OperationalError as error:
            if "decode" in str(error):  # the next row holds text that is none; SQLite's error tells the content
                raise LogDamaged(after + len(rows) + 1, "the event was altered: its text is not UTF-8") from None
            raise LogUnavailable(f"the log can not be read: {error}") from error
        except sqlite3.DatabaseError as error:
            raise LogDamaged(after + len(rows) + 1, f"SQLite says: {error}") from error
        except UnicodeDecodeError:
            raise LogDamaged(after + len(rows) + 1, MISNAMED) from None
        return rows


def _newest(connection: sqlite3.Connection) -> Head:
    with readable():
        found = connection.execute(schema.HEAD).fetchone()
    return Head(found[0], found[1]) if found else START
