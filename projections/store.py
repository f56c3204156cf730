"""`views.db`: the rows of all views and one checkpoint, written in the same transactions.

Never the truth: whatever is wrong with the file, the answer is to rebuild it from the log. The checkpoint says which
views are in the file, each with its version, so that a changed one can be rebuilt alone.
"""

import contextlib
import hashlib
import re
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Self, TypeAlias

import msgspec

from eventstore.chain import GENESIS
from eventstore.log import Head, Recorded
from projections.applied import Applied
from projections.view import Deletion, View

CHECKPOINT = "CREATE TABLE checkpoint (position INTEGER NOT NULL, hash BLOB NOT NULL, views TEXT NOT NULL) STRICT"
MOVE = "UPDATE checkpoint SET position = ?, hash = ?"
_TABLE = re.compile(r"CREATE (?:VIRTUAL )?TABLE (\w+)")


class ViewsUnusable(Exception):
    """The file does not hold these views. Says why; rebuild it."""


class Held(msgspec.Struct, frozen=True):
    """What a file holds of a view: its version, a digest of its schema, and its tables."""

    version: int
    schema: str
    tables: tuple[str, ...]


HeldViews: TypeAlias = dict[str, Held]


class Checkpoint(NamedTuple):
    """Where the views in a file stand, and which they are, by name."""

    head: Head
    held: HeldViews


def held_of(views: Sequence[View]) -> HeldViews:
    """What a file of these views holds. Differs whenever a view changes its version or its tables."""
    return {
        view.name: Held(view.version, hashlib.sha256(view.schema.encode()).hexdigest()[:16], tables_of(view))
        for view in views
    }


def tables_of(view: View) -> tuple[str, ...]:
    """The names of a view's tables, its own first."""
    return tuple(_TABLE.findall(view.schema))


class ViewStore:
    """The one connection that writes to a file of views. Blocking: to be called from one thread at a time."""

    def __init__(self, connection: sqlite3.Connection, views: Sequence[View], head: Head) -> None:
        self._connection = connection
        self._applied = Applied(connection, views)
        self.head = self._staged = head

    @classmethod
    def create(cls, path: Path, views: Sequence[View]) -> Self:
        """A new file of empty views. A crash may spoil it before it is closed: build it beside the place it is for."""
        path.unlink(missing_ok=True)
        with usable():
            connection = connect(path, "OFF", "OFF")
            connection.execute("BEGIN")
            connection.execute(CHECKPOINT)
            connection.execute("INSERT INTO checkpoint VALUES (0, ?, ?)", (GENESIS, encoded(views)))
            create_tables(connection, views)
            connection.execute("COMMIT")
        return cls(connection, views, Head(0, GENESIS))

    @classmethod
    def open(cls, path: Path, views: Sequence[View]) -> Self:
        """The views in `path`; raises `ViewsUnusable` where they lack, are of another version or damaged."""
        if not path.exists():
            raise ViewsUnusable("there is no views.db yet")
        with usable():
            connection = connect(path, "WAL", "NORMAL")
            try:
                head, held = read_checkpoint(connection)
            except BaseException:
                connection.close()
                raise
        if held != held_of(views):
            connection.close()
            raise ViewsUnusable("views.db was built by another version")
        return cls(connection, views, head)

    def apply(self, batch: Sequence[Recorded], deletions: Sequence[Deletion] = ()) -> None:
        """Take in the next events, `deletions` among them: rows and checkpoint in one transaction."""
        self.stage(batch)
        self.commit(deletions)

    def stage(self, batch: Sequence[Recorded]) -> None:
        """Take in the next events, in a transaction that `commit` ends. Touches no disk but to read."""
        execute = self._connection.execute
        with usable():
            if not self._connection.in_transaction:
                execute("BEGIN")
            try:
                self._applied.take_in(batch)
                self._staged = Head(batch[-1].position, batch[-1].hash)
                execute(MOVE, self._staged)
            except BaseException:
                self._connection.rollback()
                raise

    def commit(self, deletions: Sequence[Deletion] = ()) -> None:
        """Make durable what was staged; `deletions` are those that were staged since the last time."""
        with usable():
            self._applied.settle(deletions)
            self._connection.execute("COMMIT")
        self.head = self._staged

    def abandon(self) -> None:
        """Take back what was staged and not committed."""
        with usable():
            if self._connection.in_transaction:
                self._connection.rollback()
        self._applied.clear()
        self._staged = self.head

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()


def create_tables(connection: sqlite3.Connection, views: Sequence[View]) -> None:
    """Make the tables of the views, empty."""
    for view in views:
        for statement in view.schema.split(";"):
            connection.execute(statement)


def encoded(views: Sequence[View]) -> str:
    """What the checkpoint says of these views."""
    return msgspec.json.encode(held_of(views)).decode()


def read_checkpoint(connection: sqlite3.Connection) -> Checkpoint:
    """Where the file stands; raises `ViewsUnusable` where another version of turnlog has written that."""
    position, hash_, views = connection.execute("SELECT position, hash, views FROM checkpoint").fetchone()
    try:
        return Checkpoint(Head(position, hash_), msgspec.json.decode(views, type=HeldViews))
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise ViewsUnusable("views.db was built by another version") from None


def connect(path: Path, journal: str, synchronous: str) -> sqlite3.Connection:
    """A connection that writes."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    try:
        connection.execute(f"PRAGMA journal_mode = {journal}")
        connection.execute(f"PRAGMA synchronous = {synchronous}")
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def usable() -> Iterator[None]:
    """Tell what SQLite finds wrong with a file as `ViewsUnusable`."""
    try:
        yield
    except (sqlite3.DatabaseError, TypeError, UnicodeDecodeError) as error:
        is_closed = getattr(error, "sqlite_errorname", "").startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN"))
        raise ViewsUnusable(f"views.db {'can not be used' if is_closed else 'is damaged'}: {error}") from error
