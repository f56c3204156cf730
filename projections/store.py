"""`views.db`: the rows of all views and one checkpoint, written in the same transactions.

Never the truth: whatever is wrong with the file, the answer is to rebuild it from the log.
"""

import contextlib
import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from eventstore.chain import GENESIS
from eventstore.events import STORED_TYPES, Erased
from eventstore.log import Head, Recorded
from projections.gathered import Gathered
from projections.view import Deletion, View

CHECKPOINT = "CREATE TABLE checkpoint (position INTEGER NOT NULL, hash BLOB NOT NULL, views TEXT NOT NULL) STRICT"
MOVE = "UPDATE checkpoint SET position = ?, hash = ?"
ASIDE_KIB = 16_000  # of memory, for views that are in no file


class ViewsUnusable(Exception):
    """The file does not hold these views. Says why; rebuild it."""


def fingerprint(views: Sequence[View]) -> str:
    """Changes whenever a view is added, removed, or changes its version or its tables."""
    text = "\n".join(f"{view.name} {view.version} {view.schema}" for view in views)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class ViewStore:
    """The one connection that writes to a file of views. Blocking: to be called from one thread at a time."""

    def __init__(self, connection: sqlite3.Connection, views: Sequence[View], head: Head) -> None:
        self._connection = connection
        self._gathered = [Gathered(view.gathered, connection.execute) for view in views]
        self._applies = {
            event_type: [
                (view.apply, gathered)
                for view, gathered in zip(views, self._gathered, strict=True)
                if event_type in view.of
            ]
            for event_type in (*STORED_TYPES, Erased)
        }
        self._settle = [sql for view in views for sql in view.settle]
        self._forgets = [view.forget for view in views if view.forget]
        self.head = self._staged = head

    @classmethod
    def create(cls, path: Path, views: Sequence[View]) -> Self:
        """A new file of empty views. A crash may spoil it before it is closed: build it beside the place it is for."""
        path.unlink(missing_ok=True)
        connection = _connect(path, "OFF", "OFF")
        _lay_out(connection, views)
        return cls(connection, views, Head(0, GENESIS))

    @classmethod
    def aside(cls, views: Sequence[View]) -> Self:
        """Empty views in a database without a name: in memory as far as `ASIDE_KIB` go, in a temporary file beyond. It
        is gone once it is closed, and with the process.
        """
        connection = _connect("", "OFF", "OFF")
        connection.execute(f"PRAGMA cache_size = -{ASIDE_KIB}")
        _lay_out(connection, views)
        return cls(connection, views, Head(0, GENESIS))

    def copy_to(self, empty: Self) -> None:
        """Make another store of the same views what this one is."""
        with _usable():
            self._connection.backup(empty._connection)
        empty.head = empty._staged = self.head

    def fetch(self, sql: str, parameters: Sequence[object]) -> list[Any]:
        """The rows that `sql` finds in what was committed."""
        with _usable():
            return self._connection.execute(sql, parameters).fetchall()

    @classmethod
    def open(cls, path: Path, views: Sequence[View]) -> Self:
        """The views in `path`; raises `ViewsUnusable` where they lack, are of another version or damaged."""
        if not path.exists():
            raise ViewsUnusable("there is no views.db yet")
        with _usable():
            connection = _connect(path, "WAL", "NORMAL")
            try:
                position, hash_, found = connection.execute("SELECT position, hash, views FROM checkpoint").fetchone()
            except BaseException:
                connection.close()
                raise
        if found != fingerprint(views):
            connection.close()
            raise ViewsUnusable("views.db was built by another version")
        return cls(connection, views, Head(position, hash_))

    def apply(self, batch: Sequence[Recorded], deletions: Sequence[Deletion] = ()) -> None:
        """Take in the next events, `deletions` among them: rows and checkpoint in one transaction."""
        self.stage(batch)
        self.commit(deletions)

    def stage(self, batch: Sequence[Recorded]) -> None:
        """Take in the next events, in a transaction that `commit` ends. Touches no disk but to read."""
        execute = self._connection.execute
        with _usable():
            if not self._connection.in_transaction:
                execute("BEGIN")
            try:
                for recorded in batch:
                    for apply, gathered in self._applies[type(recorded.event)]:
                        for sql, parameters in apply(recorded):
                            if sql in gathered.rows:
                                gathered.rows[sql].append(parameters)
                                continue
                            if gathered.rows:
                                gathered.flush()
                            execute(sql, parameters)
                self._staged = Head(batch[-1].position, batch[-1].hash)
                execute(MOVE, self._staged)
            except BaseException:
                self._connection.rollback()
                raise

    def commit(self, deletions: Sequence[Deletion] = ()) -> None:
        """Make durable what was staged; `deletions` are those that were staged since the last time."""
        execute = self._connection.execute
        with _usable():
            for gathered in self._gathered:
                gathered.flush()
            for deletion in deletions:
                for forget in self._forgets:
                    for sql, parameters in forget(deletion):
                        execute(sql, parameters)
            for sql in self._settle:
                execute(sql)
            execute("COMMIT")
        self.head = self._staged

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()


class Snapshot:
    """The views in a file as they are at one moment, read only; a server may go on writing meanwhile."""

    def __init__(self, path: Path, views: Sequence[View]) -> None:
        if not path.exists():
            raise ViewsUnusable(f"there is no {path}")
        self._views = views
        self._connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        with _usable():
            self._connection.execute("BEGIN")
            row = self._connection.execute("SELECT position, views FROM checkpoint").fetchone()
        self.position: int = row[0]
        if row[1] != fingerprint(views):
            raise ViewsUnusable(f"{path} was built by another version")

    def rows(self) -> Iterator[tuple[str, tuple[object, ...]]]:
        """Every row of every view in a stable order, with the name of its table, which is the view's."""
        for view in self._views:
            with _usable():
                # Without an ORDER BY: a table is one b-tree in the order of its primary key, which no view lacks.
                for row in self._connection.execute(f"SELECT * FROM {view.name}"):  # noqa: S608 (our own name)
                    yield view.name, row

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()


def _lay_out(connection: sqlite3.Connection, views: Sequence[View]) -> None:
    connection.execute("BEGIN")
    connection.execute(CHECKPOINT)
    connection.execute("INSERT INTO checkpoint VALUES (0, ?, ?)", (GENESIS, fingerprint(views)))
    for view in views:
        for statement in view.schema.split(";"):
            connection.execute(statement)
    connection.execute("COMMIT")


def _connect(path: Path | str, journal: str, synchronous: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
    connection.execute(f"PRAGMA journal_mode = {journal}")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    return connection


@contextlib.contextmanager
def _usable() -> Iterator[None]:
    try:
        yield
    except (sqlite3.DatabaseError, TypeError) as error:
        is_closed = getattr(error, "sqlite_errorname", "").startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN"))
        raise ViewsUnusable(f"views.db {'can not be used' if is_closed else 'is damaged'}: {error}") from error
