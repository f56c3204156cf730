"""Rows that wait for each other, to be written many at a time.

A statement of its own for each row costs the interpreter's lock twice; many rows behind one `VALUES` cost it once, so
that they can be written in a thread beside a busy event loop.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

# How many rows a statement takes: a few sizes, so that SQLite compiles each of them once.
SIZES = (64, 16, 4, 1)
_ROW = re.compile(r"(?<=VALUES )\(\?(?:, \?)*\)")


class Gathered:
    """The rows of one view's gathered statements, by the text of each."""

    def __init__(self, statements: Sequence[str], execute: Callable[[str, Sequence[object]], object]) -> None:
        self.rows: dict[str, list[Sequence[object]]] = {sql: [] for sql in statements}
        self._execute = execute

    def flush(self) -> None:
        """Write what has gathered."""
        for sql, rows in self.rows.items():
            done = 0
            for size in SIZES:
                while len(rows) - done >= size:
                    self._execute(many(sql, size), [value for row in rows[done : done + size] for value in row])
                    done += size
            rows.clear()

    def clear(self) -> None:
        """Forget what has gathered."""
        for rows in self.rows.values():
            rows.clear()


@lru_cache(maxsize=256)
def many(sql: str, rows: int) -> str:
    """The statement, for so many rows instead of one."""
    text, places = _ROW.subn(lambda row: ", ".join([row[0]] * rows), sql)
    if places != 1:
        raise ValueError(f"a gathered statement has one row of parameters: {sql}")
    return text
