"""The database around the rows: the table, the index and the triggers as turnlog makes them, and SQLite's file."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

from eventstore import schema
from eventstore.verifying.diagnosis import Finding

_MEANING = {
    "table": "it is not what turnlog writes",
    "index": "nothing keeps two events from having one version",
    "trigger": "events can be changed through SQL",
}


def is_indexed(database: sqlite3.Connection) -> bool:
    """Whether the streams' index is there, which other checks go by."""
    return ("index", schema.INDEX) in _objects(database)


def check(database: sqlite3.Connection) -> Iterator[Finding]:
    """What differs from how turnlog makes it."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as model:
        model.executescript(schema.CREATE)
        expected = _objects(model)
    try:
        found = _objects(database)
        for (type_, name), sql in sorted(expected.items()):
            if found.get((type_, name)) != sql:
                state = "was altered" if (type_, name) in found else "is missing"
                yield Finding(0, f"the {type_} {name} {state}: {_MEANING[type_]}")
        for type_, name in sorted(found.keys() - expected.keys()):
            yield Finding(0, f"the {type_} {name} is none of turnlog's")
        (lowest,) = database.execute(schema.LOWEST).fetchone()
        if lowest is not None and lowest < 1:
            yield Finding(lowest, "there is a row before position 1")
    except sqlite3.Error as error:
        yield Finding(0, f"SQLite says: {error}")


def index(database: sqlite3.Connection, head: int) -> Finding | None:
    """Whether the streams' index has the events up to the head, and all streams without a gap."""
    try:
        if gap := database.execute(schema.INDEXED_GAP, (head,)).fetchone():
            return Finding(0, f"the index {schema.INDEX} does not have all versions of {gap[0]}, or some twice")
        sums = database.execute(schema.INDEXED_SUMS, (head,)).fetchone()
    except sqlite3.Error as error:
        return Finding(0, f"the index {schema.INDEX} can not be read: {error}")
    if tuple(value or 0 for value in sums) != _sums(head):
        return Finding(0, f"the index {schema.INDEX} does not have the events that the table has")
    return None


def integrity(database: sqlite3.Connection) -> Iterator[Finding]:
    """What SQLite's own check of its file says."""
    try:
        rows = database.execute("PRAGMA integrity_check(3)").fetchall()
    except sqlite3.Error as error:
        rows = [(error,)]
    said = "; ".join(" ".join(str(row[0]).split()) for row in rows)
    if said != "ok":
        yield Finding(0, f"SQLite's check of its file says: {said}")


def _objects(database: sqlite3.Connection) -> dict[tuple[str, str], str]:
    """Everything that the database is made of, but for what SQLite keeps for itself."""
    rows = database.execute(schema.OBJECTS).fetchall()
    return {(str(type_), str(name)): " ".join(str(sql).split()) for type_, name, sql in rows}


def _sums(head: int) -> tuple[int, int, int]:
    """What `INDEXED_SUMS` says of the positions up to the head, each once."""
    blocks, rest = divmod(head + 1, 65_536)
    return head, head * (head + 1) // 2, blocks * _squares(65_535) + _squares(rest - 1)


def _squares(last: int) -> int:
    return last * (last + 1) * (2 * last + 1) // 6
