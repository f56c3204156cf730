"""The log as a Merkle tree needs it: the hashes of many events at once, and single rows. Blocking; for a thread.

The hashes of a batch are read as one value of one row: every row that SQLite hands over is a switch of threads to a
busy event loop, and thousands of them would cost its turns.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Self, cast

from eventstore import schema
from eventstore.chain import DIGEST_BYTES, GENESIS, BrokenChain, Row, check
from eventstore.files import ensure_there
from eventstore.log import LogDamaged, LogUnavailable
from eventstore.sqlite import LOG_FILE

_HEX = DIGEST_BYTES * 2


class Hashes:
    """The log in a directory, read beside whoever writes it. From one thread at a time, which may be another each."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    def open(cls, directory: Path) -> Self:
        """Raises `LogUnavailable` where there is no log, or none that this turnlog reads; `LogDamaged`."""
        path = directory / LOG_FILE
        ensure_there(path)
        is_closed = not os.access(directory, os.W_OK) and not path.with_name(path.name + "-wal").exists()
        uri = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if is_closed else ''}"
        with contextlib.ExitStack() as on_failure:
            with _readable():
                connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
            on_failure.callback(connection.close)
            hashes = cls(connection)
            ((format_,),) = hashes._rows("PRAGMA user_version")
            if format_ != schema.FORMAT:
                raise LogUnavailable(f"the log has format {format_}; this turnlog reads format {schema.FORMAT}")
            on_failure.pop_all()
            return hashes
        raise AssertionError("unreachable: the stack does not swallow errors")

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def head(self) -> int:
        """The newest position; 0 of an empty log."""
        rows = self._rows(schema.HEAD)
        return int(rows[0][0]) if rows else 0

    def between(self, first: int, last: int) -> list[bytes]:
        """The hashes of the events at those positions and all between; fewer where the log ends before.

        Raises `LogDamaged` where an event is missing between others, or a hash is none.
        """
        ((found, lowest, highest, text),) = self._rows(schema.HASHES_BETWEEN, (first, last))
        if not found:
            return []
        if lowest != first or highest != first + found - 1 or len(text) != found * _HEX:
            raise self._damage(first, last)
        joined = bytes.fromhex(text)
        return [joined[at : at + DIGEST_BYTES] for at in range(0, len(joined), DIGEST_BYTES)]

    def row(self, position: int) -> tuple[Row, bytes] | None:
        """The event at `position` as it is stored, checked, and the hash before it; None where there is none.

        Raises `LogDamaged` where it was altered.
        """
        rows = self._rows(schema.READ_ROW, (position,))
        if not rows:
            return None
        *row, previous = rows[0]
        try:
            check(cast("Row", tuple(row)), position, previous or GENESIS)
        except BrokenChain as error:
            raise LogDamaged(error.position, error.reason) from error
        return cast("Row", tuple(row)), previous or GENESIS

    def _damage(self, first: int, last: int) -> LogDamaged:
        expected = first
        for position, hash_ in self._rows(schema.HASH_ROWS, (first, last)):
            if position != expected:
                return LogDamaged(expected, f"the event is missing; the next one is at position {position}")
            if not isinstance(hash_, bytes) or len(hash_) != DIGEST_BYTES:
                return LogDamaged(position, f"its hash is not one of {DIGEST_BYTES} bytes")
            expected += 1
        return LogDamaged(first, "events were changed while they were read")

    def _rows(self, sql: str, parameters: Sequence[object] = ()) -> list[sqlite3.Row]:
        with _readable():
            return self._connection.execute(sql, parameters).fetchall()


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if "decode" in str(error):  # SQLite's error tells the content
            raise LogDamaged(0, "an event was altered: it holds text where bytes were written") from None
        raise LogUnavailable(f"the log can not be read: {error}") from error
    except sqlite3.DatabaseError as error:
        raise LogDamaged(0, f"SQLite says: {error}") from error
    except UnicodeDecodeError as error:  # what SQLite says quotes the file
        raise LogDamaged(0, "SQLite says what is wrong with it, in words that are no text") from error
