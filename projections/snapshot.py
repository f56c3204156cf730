"""The views in a file as they are at one moment, to be read as they lie there."""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from projections.store import ViewsUnusable, held_of, read_checkpoint, usable
from projections.view import View

_FTS = "CREATE VIRTUAL TABLE {table} USING fts5"
_IS_VIRTUAL = "SELECT name FROM sqlite_master WHERE type = 'table' AND sql LIKE 'CREATE VIRTUAL%'"

# A cell as SQLite gives it.
Row = tuple[object, ...]


class Table(NamedTuple):
    """A table's columns, the first `keys` of which are its primary key, in the order of its rows."""

    name: str
    columns: tuple[str, ...]
    keys: int


class Snapshot:
    """Read only; a server may go on writing meanwhile."""

    def __init__(self, path: Path, views: Sequence[View]) -> None:
        if not path.exists():
            raise ViewsUnusable(f"there is no {path}")
        self._views = views
        self._connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)
        try:
            with usable():
                self._connection.execute("BEGIN")
                head, held = read_checkpoint(self._connection)
        except BaseException:
            self._connection.close()
            raise
        self.position: int = head.position
        if held != held_of(views):
            self._connection.close()
            raise ViewsUnusable(f"{path} was built by another version")

    def rows(self) -> Iterator[tuple[str, Row]]:
        """Every row of every view's own table in a stable order, with the name of its table, which is the view's."""
        for view in self._views:
            with usable():
                # Without an ORDER BY: a table is one b-tree in the order of its primary key, which no view lacks.
                for row in self._connection.execute(f"SELECT * FROM {view.name}"):  # noqa: S608 (our own name)
                    yield view.name, row

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()
