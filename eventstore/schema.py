"""The events table: one row an event, nothing else, readable with the `sqlite3` shell alone."""

LOG_FILE = "log.db"
APPLICATION_ID = 0x7475726E  # "turn", so that `file log.db` tells what it is
FORMAT = 1

# Taken away for the length of the one transaction that erases, and made again in it.
NEVER_UPDATED = """CREATE TRIGGER IF NOT EXISTS events_are_never_updated BEFORE UPDATE ON events
BEGIN SELECT RAISE(ABORT, 'events are facts: they are never changed'); END"""
ALLOW_UPDATES = "DROP TRIGGER IF EXISTS events_are_never_updated"

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
{NEVER_UPDATED};
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
DATA_AT = "SELECT position, data FROM events WHERE position IN (SELECT value FROM json_each(?))"
REPLACE_DATA = "UPDATE events SET data = ? WHERE position = ?"

NEWEST = "SELECT max(position) FROM events"
# Where the events that are wanted stand, and how long they are: neither makes SQLite read their content.
PLACES_IN_LOG = "SELECT position, length(data) FROM events WHERE position > ? AND position <= ?"
PLACES_IN_STREAM = "SELECT position, length(data) FROM events WHERE stream = ? AND version > ? AND version <= ?"
# No category and no tenant has a slash in it: what is between the first two is the tenant, and nothing else is.
OF_TENANT = " AND substr(stream, instr(stream, '/') + 1, ?) = ?"
OF_TYPES = " AND type IN (SELECT value FROM json_each(?))"
BY_POSITION = " ORDER BY position LIMIT ?"
BY_VERSION = " ORDER BY version LIMIT ?"
POSITION_OF = "SELECT position FROM events WHERE stream = ? AND version = ?"
LAST_VERSION = "SELECT max(version) FROM events WHERE stream = ?"
READ_ROW = f"{_BESIDE_NEIGHBOUR} WHERE e.position = ?"
HASHES_BETWEEN = """
SELECT count(*), min(position), max(position), group_concat(hex(hash), '')
FROM (SELECT position, hash FROM events WHERE position BETWEEN ? AND ? ORDER BY position)
"""
HASH_ROWS = "SELECT position, hash FROM events WHERE position BETWEEN ? AND ? ORDER BY position"

# For those who check all of it. Names are read as bytes where what was altered need not be text.
TYPES = {
    "stream": "text",
    "version": "integer",
    "type": "text",
    "recorded_us": "integer",
    "data": "blob",
    "hash": "blob",
}
BETWEEN = f"SELECT {COLUMNS} FROM events WHERE position BETWEEN ? AND ? ORDER BY position"  # noqa: S608
BETWEEN_TYPED = f"""
SELECT position, CAST(stream AS BLOB), version, CAST(type AS BLOB), recorded_us, CAST(data AS BLOB), CAST(hash AS BLOB),
{", ".join(f"typeof({name})" for name in TYPES)} FROM events WHERE position BETWEEN ? AND ? ORDER BY position
"""  # noqa: S608
BEFORE = "SELECT position, hash, recorded_us FROM events WHERE position < ? ORDER BY position DESC LIMIT 1"
BEFORE_TYPED = """
SELECT position, CAST(hash AS BLOB), recorded_us, typeof(hash), typeof(recorded_us) FROM events
WHERE position < ? ORDER BY position DESC LIMIT 1
"""
INDEX = "events_by_stream"
VERSION_AT = f"SELECT position FROM events INDEXED BY {INDEX} WHERE stream = ? AND version = ?"  # noqa: S608
VERSION_BEFORE = f"SELECT max(version) FROM events INDEXED BY {INDEX} WHERE stream = ? AND position < ?"  # noqa: S608
UNINDEXED = f"""
SELECT min(e.position) FROM events e NOT INDEXED WHERE e.position BETWEEN ? AND ? AND NOT EXISTS (
  SELECT 1 FROM events i INDEXED BY {INDEX}
  WHERE i.stream = e.stream AND i.version = e.version AND i.position = e.position
)
"""  # noqa: S608
EXTENT = """
SELECT (SELECT min(position) FROM events), (SELECT max(position) FROM events),
(SELECT count(*) FROM events)
"""  # counted by the index, which is smaller than the table
OBJECTS = "SELECT type, name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'"
KEPT = "SELECT min(position) FROM events WHERE position BETWEEN ? AND ? AND length(data) <> 32"
HASHES = "SELECT CAST(hash AS BLOB) FROM events WHERE position BETWEEN ? AND ? ORDER BY position"


def insert(rows: int) -> str:
    """One statement that inserts `rows` events: a statement is a transaction, and one trip to the database."""
    return f"INSERT INTO events ({COLUMNS}) VALUES " + ",".join(["(?,?,?,?,?,?,?)"] * rows)  # noqa: S608


def versions(streams: int) -> str:
    """One statement that finds the versions of `streams` streams."""
    marks = ",".join("?" * streams)
    return f"SELECT stream, max(version) FROM events WHERE stream IN ({marks}) GROUP BY stream"  # noqa: S608
