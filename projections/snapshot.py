"""The views in a file as they are at one moment, to be read as they lie there."""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from projections.store import ViewsUnusable, held_of, read_checkpoint, tables_of, usable
from projections.view import View

Row: TypeAlias = tuple[object, ...]

_VIRTUAL = "SELECT 1 FROM sqlite_master WHERE name = ? AND sql LIKE 'CREATE VIRTUAL%'"
_WORDS = "CREATE VIRTUAL TABLE temp.{words} USING fts5vocab(main, {table}, instance)"


class Table(NamedTuple):
    """A table of a view: its columns, and by which of them a row is known and in which order rows come."""

    name: str
    columns: tuple[str, ...]
    keys: tuple[int, ...]
    sql: str


class Snapshot:
    """Read only; a server may go on writing meanwhile. Raises `ViewsUnusable`."""

    def __init__(self, path: Path, views: Sequence[View], *, options: str = "") -> None:
        if not path.is_file():
            raise ViewsUnusable(f"there is no {path}")
        self._views = views
        place = f"{path.absolute().as_uri()}?mode=ro{options}"
        self._connection = sqlite3.connect(place, uri=True, isolation_level=None)
        try:
            with usable():
                self._connection.execute("BEGIN")
                head, held = read_checkpoint(self._connection)
        except BaseException:
            self._connection.close()
            raise
        if held != held_of(views):
            self._connection.close()
            raise ViewsUnusable(f"{path} was built by another version")
        self.head = head

    @property
    def position(self) -> int:
        """Of the log, that they stand at."""
        return self.head.position

    def rows(self) -> Iterator[tuple[str, Row]]:
        """Every row of every view's own table in a stable order, with the name of its table, which is the view's."""
        for view in self._views:
            for row in self.rows_of(self.table(view.name)):
                yield view.name, row

    def tables(self, view: View) -> list[Table]:
        """The tables of a view. Of an index of words: which words it holds of which documents."""
        return [self.table(name) for name in tables_of(view)]

    def table(self, name: str) -> Table:
        """One of them."""
        with usable():
            if self._connection.execute(_VIRTUAL, (name,)).fetchone():
                return self._words(name)
            infos = self._connection.execute(f"PRAGMA table_info({name})").fetchall()
        columns = tuple(info[1] for info in infos)
        keys = sorted((info[5], number) for number, info in enumerate(infos) if info[5])
        order = ", ".join(columns[number] for _, number in keys)  # every table of a view has a primary key
        sql = f"SELECT * FROM {name} ORDER BY {order or 1}"  # noqa: S608 (our own names)
        return Table(name, columns, tuple(number for _, number in keys), sql)

    def rows_of(self, table: Table) -> Iterator[Row]:
        """Its rows, in the order of their keys."""
        with usable():
            yield from self._connection.execute(table.sql)

    def _words(self, table: str) -> Table:
        words = f"words_of_{table}"
        if not self._connection.execute("SELECT 1 FROM temp.sqlite_master WHERE name = ?", (words,)).fetchone():
            self._connection.execute(_WORDS.format(words=words, table=table))
        sql = f"SELECT term, doc FROM temp.{words}"  # noqa: S608 (our own name); in the order of both
        return Table(table, ("term", "doc"), (0, 1), sql)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()
