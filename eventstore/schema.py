"""The events table: one row an event, nothing else, readable with the `sqlite3` shell alone."""

APPLICATION_ID = 0x7475726E  # "turn", so that `file log.db` tells what it is
FORMAT = 1

CREATE = f"""
PRAGMA journal_mode = WAL;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
CREATE TABLE IF NOT EXISTS events (
    position    INTEGER PRIMARY KEY,
    stream      TEXT    NOT NULL,
    version     INTEGER NOT NULL,
    type        TEXT    NOT NULL,
    recorded_us INTEGER NOT NULL,
    data        BLOB    NOT NULL,
    hash        BLOB    NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS events_by_stream ON events (stream, version);
CREATE TRIGGER IF NOT EXISTS events_are_never_updated BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'events are facts: they are never changed'); END;
CREATE TRIGGER IF NOT EXISTS events_are_never_deleted BEFORE DELETE ON events
BEGIN SELECT RAISE(ABORT, 'events are facts: they are never deleted'); END;
"""

# In a backup, beside the log: the small files of the data directory, in pieces.
CREATE_FILES = "CREATE TABLE files (name TEXT, part INTEGER, content BLOB NOT NULL, PRIMARY KEY (name, part))"
HAS_FILES = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'files'"
INSERT_FILE = "INSERT INTO files VALUES (?, ?, ?)"
READ_FILES = "SELECT name, content FROM files ORDER BY name, part"

COLUMNS = "position, stream, version, type, recorded_us, data, hash"
HEAD = "SELECT position, hash, recorded_us FROM events ORDER BY position DESC LIMIT 1"
HASH_AT = "SELECT hash FROM events WHERE position = ?"
READ_ALL = f"SELECT {COLUMNS} FROM events WHERE position > ? ORDER BY position LIMIT ?"  # noqa: S608
LATER_THAN = "SELECT position FROM events WHERE position > ? AND recorded_us > ? ORDER BY position LIMIT 1"
VERSION_OF = "SELECT max(version) FROM events WHERE stream = ?"
OF_TYPE = f"SELECT {COLUMNS} FROM events WHERE type = ? ORDER BY position"  # noqa: S608
MISTYPED = """
SELECT position FROM events WHERE typeof(data) <> 'blob' OR typeof(hash) <> 'blob' ORDER BY position LIMIT 1
"""
_BESIDE_NEIGHBOUR = """
SELECT e.position, e.stream, e.version, e.type, e.recorded_us, e.data, e.hash, p.hash
FROM events e LEFT JOIN events p ON p.position = e.position - 1
"""
READ_STREAM = f"{_BESIDE_NEIGHBOUR} WHERE e.stream = ? AND e.version > ? ORDER BY e.version"
READ_AT = f"{_BESIDE_NEIGHBOUR} WHERE e.position IN (SELECT value FROM json_each(?)) ORDER BY e.position"  # noqa: S608


def insert(rows: int) -> str:
    """One statement that inserts `rows` events: a statement is a transaction, and one trip to the database."""
    return f"INSERT INTO events ({COLUMNS}) VALUES " + ",".join(["(?,?,?,?,?,?,?)"] * rows)  # noqa: S608


def versions(streams: int) -> str:
    """One statement that finds the versions of `streams` streams."""
    marks = ",".join("?" * streams)
    return f"SELECT stream, max(version) FROM events WHERE stream IN ({marks}) GROUP BY stream"  # noqa: S608
