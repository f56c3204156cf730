"""A stretch of the log, checked row by row: as fast as Python goes where all is well, and then why it is not.

Theory of operation. `check` has everything of a row in one loop: its link in the chain, its type, its time, its
content. Whatever is odd ends the loop, and the stretch is read again, slowly, by `diagnosis`, which knows what to call it. A
stretch begins with the hash that is stored before it, so that several can be checked at once; they join where each of
them is whole.
"""

import hashlib
import sqlite3
import struct
from collections.abc import Iterable
from contextlib import closing
from typing import TypeAlias

import msgspec

from eventstore import schema
from eventstore.chain import DIGEST_BYTES, GENESIS, SALT_BYTES
from eventstore.diagnosis import Finding, diagnose
from eventstore.events import STORED_TYPES, SessionErased, decode
from eventstore.peaks import Peak, subtrees

Run: TypeAlias = tuple[int, int]  # first and last position

_CLASSES: dict[str, type[object]] = {cls.__name__: cls for cls in STORED_TYPES}
_sha256 = hashlib.sha256
_pack = struct.Struct(">32sQQQHH").pack
_ROWS = 256  # of so many at once SQLite is fastest


class Claim(msgspec.Struct, frozen=True, array_like=True):
    """A `SessionErased` at `position`, and the positions that it says were erased."""

    position: int
    runs: tuple[Run, ...]


class Task(msgspec.Struct, frozen=True, array_like=True):
    """A stretch to be checked, and whether its part of the Merkle tree is wanted."""

    first: int
    last: int
    is_tree_wanted: bool = False


class Seen(msgspec.Struct, array_like=True):
    """What a stretch holds. Where there is a `finding`, that is the first, and the rest is void."""

    task: Task
    hash: bytes = GENESIS
    recorded_us: int = 0
    erased: list[Run] = []
    claims: list[Claim] = []
    subtrees: list[Peak] = []
    finding: Finding | None = None


class _Doubt(Exception):
    """Something is not as it should be."""


_ODD = (_Doubt, KeyError, TypeError, ValueError, AttributeError, struct.error, msgspec.DecodeError, sqlite3.Error)


def check(database: sqlite3.Connection, task: Task) -> Seen:
    """Check the rows of a stretch. The row before it is believed."""
    seen = Seen(task)
    try:
        before = _before(database, task.first)
        with closing(database.execute(schema.BETWEEN, (task.first, task.last))) as cursor:
            hashes = _scan(cursor, seen, *before)
        if len(hashes) != task.last - task.first + 1:
            raise _Doubt
        if task.is_tree_wanted:
            seen.subtrees = subtrees(task.first - 1, hashes)
    except _ODD as error:
        seen.finding = diagnose(database, task.first, task.last, error)
    return seen


def _before(database: sqlite3.Connection, position: int) -> tuple[bytes, int]:
    """The hash and the time of the row before that position."""
    if position == 1:
        return GENESIS, 0
    row = database.execute(schema.BEFORE, (position,)).fetchone()
    if row is None or row[0] != position - 1:
        raise _Doubt
    return row[1], row[2]


def _scan(cursor: sqlite3.Cursor, seen: Seen, previous: bytes, last_us: int) -> list[bytes]:
    """The hashes of the rows; raises one of `_ODD` at whatever is."""
    position = seen.task.first - 1
    hashes: list[bytes] = []
    erased: list[int] = []
    while rows := cursor.fetchmany(_ROWS):
        for found, stream, version, type_, recorded_us, data, hash_ in rows:
            position += 1
            name, kind = stream.encode(), type_.encode()
            if len(data) == DIGEST_BYTES:
                digest = data
                erased.append(position)
            else:
                digest = _sha256(data).digest()
                event = decode(data[SALT_BYTES:])
                if type(event) is not _CLASSES[type_]:
                    raise _Doubt
                if type(event) is SessionErased:
                    seen.claims.append(Claim(position, event.ranges))
            linked = _pack(previous, position, version, recorded_us, len(name), len(kind)) + name + kind + digest
            if _sha256(linked).digest() != hash_ or found != position or recorded_us < last_us:
                raise _Doubt
            previous, last_us = hash_, recorded_us
            hashes.append(hash_)
    seen.hash, seen.recorded_us, seen.erased = previous, last_us, runs(erased)
    return hashes


def runs(positions: Iterable[int]) -> list[Run]:
    """Ascending positions as runs, from the first to the last of each."""
    found: list[Run] = []
    for position in positions:
        if found and found[-1][1] == position - 1:
            found[-1] = (found[-1][0], position)
        else:
            found.append((position, position))
    return found
