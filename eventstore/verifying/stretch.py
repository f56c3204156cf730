"""A stretch of the log, checked row by row: as fast as Python goes where all is well, and then why it is not.

Theory of operation. `check` has everything of a row in one loop: its link in the chain, its type, its time, its
content. Whatever is odd ends the loop, and the stretch is read again, slowly, by `diagnosis`, which knows what
to call it. A stretch begins with the hash that is stored before it, so that several can be checked at once; they join
where each of them is whole.
"""

import hashlib
import sqlite3
import struct
from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from eventstore import schema
from eventstore.chain import DIGEST_BYTES, GENESIS, SALT_BYTES
from eventstore.events import STORED_TYPES, SessionErased, decode
from eventstore.proofs.peaks import Peak, subtrees
from eventstore.verifying.diagnosis import Finding, diagnose

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
    """A stretch to be checked: with its part of the Merkle tree, and by the streams' index, unless told otherwise."""

    first: int
    last: int
    is_tree_wanted: bool = True
    is_indexed: bool = True


class Seen(msgspec.Struct, array_like=True):
    """What a stretch holds. Where there is a `finding`, that is the first, and the rest is void."""

    task: Task
    hash: bytes = GENESIS
    streams: int = 0  # that begin in it
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
        hashes = _scan(database, seen, *before)
        if len(hashes) != task.last - task.first + 1:
            raise _Doubt
        if task.is_tree_wanted:
            seen.subtrees = subtrees(task.first - 1, hashes)
    except _ODD as error:
        seen.finding = diagnose(database, task.first, task.last, error, is_indexed=task.is_indexed)
    return seen


def _before(database: sqlite3.Connection, position: int) -> tuple[bytes, int]:
    """The hash and the time of the row before that position."""
    if position == 1:
        return GENESIS, 0
    row = database.execute(schema.BEFORE, (position,)).fetchone()
    if row is None or row[0] != position - 1:
        raise _Doubt
    return row[1], row[2]


def _scan(database: sqlite3.Connection, seen: Seen, previous: bytes, last_us: int) -> list[bytes]:
    """The hashes of the rows; raises one of `_ODD` at whatever is."""
    task = seen.task
    position = task.first - 1
    hashes: list[bytes] = []
    erased: list[int] = []
    newest: dict[str, int] = {}
    cursor = database.execute(schema.BETWEEN, (task.first, task.last))
    while rows := cursor.fetchmany(_ROWS):
        for stream, version, type_, recorded_us, data, hash_ in rows:
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
            if _sha256(linked).digest() != hash_ or recorded_us < last_us:
                raise _Doubt
            before = newest.get(stream)
            if before is None:
                seen.streams += _begins(database, task, stream, version)
            elif before + 1 != version:
                raise _Doubt
            newest[stream] = version
            previous, last_us = hash_, recorded_us
        hashes += [row[5] for row in rows]
    seen.hash, seen.erased = previous, runs(erased)
    return hashes


def _begins(database: sqlite3.Connection, task: Task, stream: str, version: int) -> bool:
    """Whether the stream begins with the first event of it that is met; where not, the one before it must be there."""
    if version > 1 and task.is_indexed:
        row = database.execute(schema.VERSION_AT, (stream, version - 1)).fetchone()
        if row is None or row[0] >= task.first:
            raise _Doubt
    elif version < 1:
        raise _Doubt
    return version == 1


def runs(positions: Iterable[int]) -> list[Run]:
    """Ascending positions as runs, from the first to the last of each."""
    found: list[Run] = []
    for position in positions:
        if found and found[-1][1] == position - 1:
            found[-1] = (found[-1][0], position)
        else:
            found.append((position, position))
    return found
