"""Files that are there as a whole or not at all, whatever becomes of the process that writes them."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from eventstore.log import LogLocked

SUFFIX = ".partial"
_BESIDE = ("-wal", "-shm", "-journal")  # what SQLite keeps beside a database


@contextlib.contextmanager
def in_place_of(path: Path) -> Iterator[Path]:
    """A new file beside `path` for the body to write, mode 0600: once it is whole and durable it becomes `path`.

    Where the body fails it is removed. What a kill leaves behind, the next try writes over. Raises `OSError`, and
    `LogLocked` where another process writes it.
    """
    partial = path.with_name(path.name + SUFFIX)
    with _held(partial):
        try:
            yield partial
            sync(partial)
            partial.replace(path)
            sync(path.parent)
        except BaseException:
            discard(path)
            raise


def discard(path: Path) -> None:
    """Remove what a kill has left of a file that was to become `path`; for whoever knows that nobody writes it now."""
    partial = path.with_name(path.name + SUFFIX)
    for leftover in (partial, *beside(partial)):
        leftover.unlink(missing_ok=True)


def beside(database: Path) -> list[Path]:
    """Where SQLite keeps what belongs to a database and is not in its file."""
    return [database.with_name(database.name + suffix) for suffix in _BESIDE]


def sync(path: Path) -> None:
    """Return once what was written to the file, or which files are in the directory, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _held(partial: Path) -> Iterator[None]:
    """Hold the file, empty, for the body: two that write the same one would make a mixture of both."""
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LogLocked(f"{partial} is being written by another process: wait for that") from None
        if not partial.exists() or not os.path.samestat(os.fstat(descriptor), partial.stat()):
            raise LogLocked(f"{partial} was put in place by another process this very moment: try again")
        for leftover in beside(partial):
            leftover.unlink(missing_ok=True)
        os.ftruncate(descriptor, 0)
        yield
    finally:
        os.close(descriptor)
