"""A small log with signed checkpoints, and an attacker who can write to its files and knows how the chain is made."""

import contextlib
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from eventstore import chain, schema
from eventstore.events import ConversationAdvanced, ConversationCreated, Event, SessionDeleted, SessionErased
from eventstore.proofs.audit_key import KEY_FILE, load_or_make
from eventstore.proofs.checkpoint import CHECKPOINTS_FILE, Checkpoint, add
from eventstore.proofs.merkle import Tree
from eventstore.proofs.note import VerifierKey
from eventstore.sqlite import SqliteLog
from eventstore.verifying.verification import Verified, verify
from eventstore.verifying.vouched import filed
from tests.support.facts import T0_US, completed, session_started, started

Row: TypeAlias = tuple[Any, ...]

KEPT, GONE, TOPIC = "lineage/acme/kept", "lineage/acme/gone", "conversation/acme/topic"
EVENTS = 12
ERASED = (2, 4, 6, 7)
ERASURE = 9

_APPENDS: tuple[tuple[str, int, tuple[Event, ...]], ...] = (
    (TOPIC, 0, (ConversationCreated(name="topic", session_id="kept"),)),
    (GONE, 0, (session_started("gone"),)),
    (KEPT, 0, (session_started("kept"),)),
    (GONE, 1, (started("t1", "a secret"),)),
    (KEPT, 1, (started("t2"),)),
    (GONE, 2, (completed("t1"), SessionDeleted())),
    (KEPT, 2, (completed("t2"),)),
    (GONE, 4, (SessionErased(ranges=((2, 2), (4, 4), (6, 7)), by="test", why="asked for"),)),
    (KEPT, 3, (ConversationAdvanced(conversation="topic", session_id="kept", turn_id="t2"), started("t3"))),
    (KEPT, 5, (completed("t3"),)),
)


async def make_log(data: Path) -> None:
    """A log of `EVENTS` events in three streams, one of them erased; nothing is signed yet."""
    log = await SqliteLog.open(data)
    for append in _APPENDS:
        await log.append(*append)
    await log.close()
    with tampering(data) as database:
        for position in ERASED:
            ((content,),) = database.execute("SELECT data FROM events WHERE position = ?", (position,))
            database.execute("UPDATE events SET data = ? WHERE position = ?", (chain.digest(content), position))


def sign(data: Path, *sizes: int, key_file: str = KEY_FILE) -> VerifierKey:
    """Put signed checkpoints of the log's first so many events on file; the key they are believed by."""
    key = load_or_make(data / key_file)
    hashes = [row[-1] for row in rows(data)]
    for size in sizes:
        tree = Tree()
        tree.extend(hashes[:size])
        add(data / CHECKPOINTS_FILE, Checkpoint.sign(key, size, tree.root(), T0_US + size * 1_000_000))
    return key.verifier


def verified(data: Path, key: VerifierKey | None = None, **more: Any) -> Verified:
    """What a verification with the checkpoints on file finds."""
    signed = filed(data, key or load_or_make(data / KEY_FILE).verifier)
    found = verify(data, signed.checkpoints, **more)
    found.findings += signed.findings
    return found


@contextlib.contextmanager
def tampering(data: Path) -> Iterator[sqlite3.Connection]:
    """The log's database with its triggers away; what is done to it is left there, and the triggers are made again."""
    database = sqlite3.connect(data / "log.db", isolation_level=None)
    try:
        database.execute("PRAGMA synchronous = OFF")
        database.execute("DROP TRIGGER IF EXISTS events_are_never_updated")
        database.execute("DROP TRIGGER IF EXISTS events_are_never_deleted")
        database.execute("BEGIN")
        yield database
        database.execute("COMMIT")
        database.executescript(schema.CREATE)
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        database.close()


def rows(data: Path) -> list[Row]:
    """All rows of the log."""
    database = sqlite3.connect(data / "log.db")
    try:
        return database.execute("SELECT * FROM events ORDER BY position").fetchall()
    finally:
        database.close()


def rewrite(data: Path, new: Sequence[Row]) -> None:
    """Have the log hold these rows instead of its own."""
    with tampering(data) as database:
        database.execute("DELETE FROM events")
        database.executemany("INSERT INTO events VALUES (?,?,?,?,?,?,?)", new)


def signed_anew(row: Row, previous: bytes) -> Row:
    """The row with the hash that it should have behind one of the hash `previous`."""
    position, stream, version, type_, recorded_us, content, _ = row
    return (*row[:6], chain.link(previous, position, stream, version, type_, recorded_us, content))


def chained(before: Sequence[Row], new: Sequence[Row]) -> list[Row]:
    """Rows, and others behind them with all their hashes made anew."""
    made = list(before)
    for row in new:
        made.append(signed_anew(row, made[-1][-1] if made else chain.GENESIS))
    return made


def with_column(row: Row, column: int, value: object) -> Row:
    """The row with another value in one column."""
    return (*row[:column], value, *row[column + 1 :])


def flipped(content: bytes, at: int, bit: int = 0) -> bytes:
    """The content with one bit the other way round."""
    changed = bytearray(content)
    changed[at] ^= 1 << bit
    return bytes(changed)
