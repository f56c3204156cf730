"""What SQLite finds out by itself, in threads, while the rows are checked."""

import concurrent.futures
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Generic, NamedTuple, Self, TypeVar

from eventstore import schema
from eventstore.diagnosis import Finding
from eventstore.plain import connect

T = TypeVar("T")


class Aside(Generic[T]):
    """A question to SQLite, at work in a thread with a connection of its own."""

    def __init__(self, directory: Path, question: Callable[[sqlite3.Connection], T]) -> None:
        self._database = connect(directory)
        self._pool = concurrent.futures.ThreadPoolExecutor(1)
        self._future = self._pool.submit(question, self._database)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while not self._future.done():
            self._database.interrupt()
            concurrent.futures.wait([self._future], timeout=0.1)
        self._pool.shutdown()
        self._database.close()

    def answer(self) -> T:
        """What came of it; waits for that."""
        return self._future.result()


class Versions(NamedTuple):
    """How many streams begin among some events, and the first event that is out of its stream's order."""

    streams: int
    finding: Finding | None


def versions(first: int, last: int) -> Callable[[sqlite3.Connection], Versions]:
    """Whether the versions of every stream go on one by one, in the order of the log."""

    def ask(database: sqlite3.Connection) -> Versions:
        try:
            sql = schema.ALL_VERSIONS if first == 1 else schema.NEW_VERSIONS
            streams, position = database.execute(sql, (first, last)).fetchone()
            if position is None:
                return Versions(streams, None)
            stream, version, before = database.execute(schema.VERSION_AT, (position,)).fetchone()
        except sqlite3.Error as error:
            return Versions(0, _said(error))
        reason = f"{stream} goes on at version {version}, expected {(before or 0) + 1}"
        return Versions(streams, Finding(position, reason))

    return ask


def integrity(database: sqlite3.Connection) -> Finding | None:
    """Whether SQLite's own structures are whole, and the index has what the table has."""
    try:
        rows = database.execute("PRAGMA integrity_check(3)").fetchall()
    except sqlite3.Error as error:
        return _said(error)
    said = "; ".join(" ".join(str(row[0]).split()) for row in rows)
    return None if said == "ok" else Finding(0, f"SQLite's check of its file says: {said}")


def structure(database: sqlite3.Connection) -> list[Finding]:
    """What differs from the table, the index and the triggers as this turnlog makes them."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as model:
        model.executescript(schema.CREATE)
        expected = _objects(model)
    try:
        found = _objects(database)
        lowest = database.execute(schema.LOWEST).fetchone()[0]
    except sqlite3.Error as error:
        return [_said(error)]
    findings = []
    for (type_, name), sql in sorted(expected.items()):
        if (type_, name) not in found:
            findings.append(Finding(0, f"the {type_} {name} is missing: {_MEANING[type_]}"))
        elif found[type_, name] != sql:
            findings.append(Finding(0, f"the {type_} {name} was altered: {_MEANING[type_]}"))
    for type_, name in sorted(found.keys() - expected.keys()):
        findings.append(Finding(0, f"the {type_} {name} is none of turnlog's"))
    if lowest is not None and lowest < 1:
        findings.append(Finding(lowest, "there is a row before position 1"))
    return findings


_MEANING = {
    "table": "it is not what turnlog writes",
    "index": "nothing keeps two events from having one version",
    "trigger": "events can be changed through SQL",
}


def _objects(database: sqlite3.Connection) -> dict[tuple[str, str], str]:
    """Everything that the database is made of, but for what SQLite keeps for itself."""
    rows = database.execute(schema.OBJECTS).fetchall()
    return {(str(type_), str(name)): " ".join(str(sql).split()) for type_, name, sql in rows}


def _said(error: sqlite3.Error) -> Finding:
    return Finding(0, f"SQLite says: {error}")


