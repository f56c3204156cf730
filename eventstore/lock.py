"""One writer per data directory: an exclusive lock on a file that says who holds it."""

import contextlib
import fcntl
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import msgspec

from eventstore.log import LogLocked, LogUnavailable


class Holder(msgspec.Struct, frozen=True):
    """The process that writes to the log."""

    pid: int
    host: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file at `path` for the body; raises `LogLocked` naming the holder where it is taken, and
    `LogUnavailable` where there can be none.

    The kernel drops the lock with the process, however that ends, so a crash never leaves a stale one.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LogUnavailable(f"{path} can not be opened for writing: {error.strerror}") from error
    with os.fdopen(descriptor, "r+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LogLocked(
                f"{path.parent} is in use by {_holder(file.read())}: stop that, or use another data directory"
            ) from None
        file.truncate(0)
        file.write(msgspec.json.encode(Holder(os.getpid(), socket.gethostname())))
        file.flush()
        yield
        file.truncate(0)


def _holder(content: bytes) -> str:
    try:
        return str(msgspec.json.decode(content, type=Holder))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return "another process"
