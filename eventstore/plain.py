"""The log read with plain SQLite: blocking, for those that read all of it, beside whoever writes it."""

import contextlib
import sqlite3
from pathlib import Path

from eventstore import schema
from eventstore.files import ensure_format, ensure_there, readable, uri

CACHE_KIB = 16_384


def connect(directory: Path, cache_kib: int = CACHE_KIB) -> sqlite3.Connection:
    """The log in `directory`. Raises `LogUnavailable` where there is none that this turnlog reads, `LogDamaged`."""
    path = directory / schema.LOG_FILE
    ensure_there(path)
    with contextlib.ExitStack() as on_failure, readable():
        database = sqlite3.connect(uri(path, "ro"), uri=True, isolation_level=None, check_same_thread=False)
        on_failure.callback(database.close)
        database.execute(f"PRAGMA cache_size = {-cache_kib}")
        ensure_format(database.execute("PRAGMA user_version").fetchone()[0])
        on_failure.pop_all()
        return database
    raise AssertionError("unreachable: the stack does not swallow errors")
