"""The connections that read `views.db` for queries."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import aiosqlite

from projections.store import ViewsUnusable

LOOKUPS, SEARCHES = 0, 1  # which of the readers


class Readers(NamedTuple):
    """One that looks up names, in no time, and one that searches, so that no look-up waits behind a search."""

    lookups: aiosqlite.Connection
    searches: aiosqlite.Connection

    @classmethod
    async def open(cls, path: Path, options: str = "") -> Self:
        """Read the file at `path`, and go on reading that file where another one takes its name."""
        lookups = await _connect(path, options)
        try:
            return cls(lookups, await _connect(path, options))
        except BaseException:
            await lookups.close()
            raise

    async def close(self) -> None:
        """Let go of the file, once every query that was asked before has its rows."""
        await self.lookups.close()
        await self.searches.close()


async def read(reader: aiosqlite.Connection, sql: str, parameters: Sequence[object]) -> list[Any]:
    """The rows; raises `ViewsUnusable` where the file turns out to be damaged."""
    try:
        return list(await reader.execute_fetchall(sql, parameters))
    except (aiosqlite.DatabaseError, ValueError) as error:  # a ValueError: closed meanwhile, by a rebuild
        raise ViewsUnusable(f"views.db is damaged: {error}") from error


async def _connect(path: Path, options: str) -> aiosqlite.Connection:
    try:
        reader = await aiosqlite.connect(f"{path.absolute().as_uri()}?mode=ro{options}", uri=True)
    except aiosqlite.DatabaseError as error:
        raise ViewsUnusable(f"views.db can not be read: {error}") from error
    try:
        # SQLite opens the write-ahead file by its name, with the first query: by then that may be another file's.
        await read(reader, "SELECT position FROM checkpoint", ())
    except BaseException:
        await reader.close()
        raise
    return reader
