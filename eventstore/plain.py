"""The log read with plain SQLite: blocking, for tools that read all of it, beside whoever writes it."""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from eventstore import schema
from eventstore.files import ensure_there
from eventstore.log import LogDamaged, LogUnavailable

CACHE_KIB = 16_384


def connect(directory: Path) -> sqlite3.Connection:
    """The log in `directory`. Raises `LogUnavailable` where there is none that this turnlog reads, `LogDamaged`."""
    path = directory / schema.LOG_FILE
    ensure_there(path)
    is_closed = not os.access(directory, os.W_OK) and not path.with_name(path.name + "-wal").exists()
    uri = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if is_closed else ''}"
    with contextlib.ExitStack() as on_failure, readable():
        database = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        on_failure.callback(database.close)
        database.execute(f"PRAGMA cache_size = {-CACHE_KIB}")
        ((format_,),) = database.execute("PRAGMA user_version")
        if format_ != schema.FORMAT:
            raise LogUnavailable(f"the log has format {format_}; this turnlog reads format {schema.FORMAT}")
        on_failure.pop_all()
        return database
    raise AssertionError("unreachable: the stack does not swallow errors")


@contextlib.contextmanager
def readable() -> Iterator[None]:
    """Say what SQLite says as the log's errors."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise LogUnavailable(f"the log can not be read: {error}") from error
    except sqlite3.DatabaseError as error:
        raise LogDamaged(0, f"SQLite says: {error}") from error
    except UnicodeDecodeError as error:  # what SQLite says quotes the file
        raise LogDamaged(0, "SQLite says what is wrong with it, in words that are no text") from error
