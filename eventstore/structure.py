"""The database around the rows: the table, the index and the triggers as turnlog makes them, and SQLite's file."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing

from eventstore import schema
from eventstore.diagnosis import Finding

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
        lowest, highest, indexed = database.execute(schema.EXTENT).fetchone()
        if lowest is not None and lowest < 1:
            yield Finding(lowest, "there is a row before position 1")
        elif highest is not None and indexed > highest:
            yield Finding(0, f"the index {schema.INDEX} has {indexed} events, and the log {highest}")
    except sqlite3.Error as error:
        yield Finding(0, f"SQLite says: {error}")


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
