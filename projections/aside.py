"""Views in a database without a name, for a moment that somebody asks for: gone once it is closed.

SQLite keeps it in memory as far as `MEMORY_KIB` go, and in a temporary file beyond.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any, Self

from eventstore.log import Recorded
from projections.applied import Applied
from projections.store import create_tables, usable
from projections.view import View

MEMORY_KIB = 16_000


class Aside:
    """Some views, empty at first. Blocking: to be called from one thread at a time."""

    def __init__(self, views: Sequence[View]) -> None:
        with usable():
            self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            self._connection.executescript(
                f"PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -{MEMORY_KIB}"
            )
            create_tables(self._connection, views)
        self._applied = Applied(self._connection, views)
        self.position = 0

    def stage(self, batch: Sequence[Recorded]) -> None:
        """Take in the next events, in a transaction that `commit` ends."""
        with usable():
            if not self._connection.in_transaction:
                self._connection.execute("BEGIN")
            self._applied.take_in(batch)
        self.position = batch[-1].position

    def commit(self) -> None:
        """End what was staged."""
        with usable():
            self._applied.settle(())
            self._connection.execute("COMMIT")

    def become(self, other: Self) -> None:
        """Hold what another one of the same views holds."""
        with usable():
            other._connection.backup(self._connection)
        self.position = other.position

    def fetch(self, sql: str, parameters: Sequence[object]) -> list[Any]:
        """The rows that `sql` finds."""
        with usable():
            return self._connection.execute(sql, parameters).fetchall()

    def close(self) -> None:
        """Let go of the rows."""
        self._connection.close()
