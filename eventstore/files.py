"""The log's file, opened as it is: for the embedded log, and for tools that move a log as a whole."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from eventstore import schema
from eventstore.log import LogDamaged, LogUnavailable

MISNAMED = "SQLite finds it malformed, and names it in bytes that are no text"


def immutable(path: Path) -> str:
    """A file in a directory that can not be written, such as a backup's, is read as it lies there: SQLite would put its
    shared memory beside it. One with a write-ahead file needs that.
    """
    is_closed = not os.access(path.parent, os.W_OK) and not path.with_name(path.name + "-wal").exists()
    return "&immutable=1" if is_closed else ""


def ensure_there(path: Path) -> None:
    """Raise `LogUnavailable` unless the log's file is there, and a file: SQLite would wait for who writes a pipe."""
    if not path.exists():
        raise LogUnavailable(f"there is no log in {path.parent}: expected {path}")
    ensure_file(path)


def ensure_file(path: Path) -> None:
    """Raise `LogUnavailable` where something else than a file is in the log's place."""
    if path.exists() and not path.is_file():
        raise LogUnavailable(f"{path} can not be read: it is not a file")


def uri(path: Path, mode: str) -> str:
    """How SQLite is told to open the file: `ro`, `rw`, or `rwc` to make it where it lacks."""
    return f"{path.absolute().as_uri()}?mode={mode}{immutable(path) if mode == 'ro' else ''}"


def ensure_format(found: int) -> None:
    """Raise `LogUnavailable` unless this turnlog reads that format."""
    if found != schema.FORMAT:
        raise LogUnavailable(f"the log has format {found}; this turnlog reads format {schema.FORMAT}")


@contextlib.contextmanager
def readable() -> Iterator[None]:
    """What SQLite says of reading, as the log's errors."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise LogUnavailable(f"the log can not be read: {error}") from error
    except sqlite3.DatabaseError as error:
        raise LogDamaged(0, f"SQLite says: {error}") from error
    except UnicodeDecodeError:  # SQLite names what it finds damaged, by a name that is no text any more
        raise LogDamaged(0, MISNAMED) from None


@contextlib.contextmanager
def writable(path: Path) -> Iterator[None]:
    """What SQLite says of writing the file at `path`, as the log's errors."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise LogUnavailable(f"{path} can not be written: {error}") from error


@contextlib.contextmanager
def opened(path: Path, mode: str) -> Iterator[sqlite3.Connection]:
    """A connection to the file for the body, each statement a transaction of its own unless it begins one."""
    with readable():
        connection = sqlite3.connect(uri(path, mode), uri=True, isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()
