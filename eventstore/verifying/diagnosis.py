"""What is wrong with a row of the log: slow, and only asked where something is."""

import sqlite3
import struct
from collections.abc import Iterator
from enum import StrEnum
from typing import cast

import msgspec

from eventstore import chain, schema
from eventstore.chain import DIGEST_BYTES, GENESIS, SALT_BYTES, Row
from eventstore.events import STORED_TYPES, decode, why_not

_KNOWN = {cls.__name__ for cls in STORED_TYPES}


class Kind(StrEnum):
    """What becomes of a finding: only of an `UNLINKED` row the row before it may be to blame."""

    ALTERED = "altered"
    UNLINKED = "unlinked"
    UNREADABLE = "unreadable"


class Finding(msgspec.Struct, frozen=True, array_like=True):
    """Something that is wrong with the log: from which position on (0 where none can be named), and what."""

    position: int
    reason: str
    kind: Kind = Kind.ALTERED
    linked: bytes = b""  # the hash that an unlinked row should have behind the row before it

    def __str__(self) -> str:
        if self.kind is Kind.UNREADABLE:
            return f"the event at position {self.position} can not be read: {self.reason}"
        return f"the log is damaged{f' at position {self.position}' if self.position else ''}: {self.reason}"


def diagnose(database: sqlite3.Connection, first: int, last: int, error: Exception, *, is_indexed: bool) -> Finding:
    """The first thing that is wrong between two positions, where `error` has been met."""
    expected = first
    versions = _Versions(database, first, is_indexed)
    try:
        previous, last_us = _before(database, first)
        for row, types, following in _rows(database, first, last):
            finding = _of_row(row, types, expected, previous, following) or _of_time(row, last_us) or versions.of(row)
            if finding:
                return finding
            expected, previous, last_us = row[0] + 1, row[-1], row[4]
    except sqlite3.Error as worse:
        return Finding(expected, f"SQLite can not read it: {worse}")
    except _Before as bad:
        return Finding(first - 1, str(bad))
    if expected <= last:
        return Finding(expected, "the event is missing")
    return Finding(first, f"reading up to position {last} failed once, and not again: {error!r}")


class _Before(Exception):
    """The row before a stretch is no row."""


def _before(database: sqlite3.Connection, position: int) -> tuple[bytes, int]:
    if position == 1:
        return GENESIS, 0
    row = database.execute(schema.BEFORE_TYPED, (position,)).fetchone()
    if row is None or row[0] != position - 1:
        raise _Before("the event is missing")
    _, hash_, recorded_us, *types = row
    if types != ["blob", "integer"] or len(hash_) != DIGEST_BYTES:
        raise _Before("the row does not hold an event")
    return hash_, recorded_us


_Typed = tuple[Row, list[str], Row | None]


def _rows(database: sqlite3.Connection, first: int, last: int) -> Iterator[_Typed]:
    """Each row, the types of its columns, and the row behind it where that is at the next position.

    Text comes as bytes, since what was altered need not be UTF-8.
    """
    held: tuple[Row, list[str]] | None = None
    for values in database.execute(schema.BETWEEN_TYPED, (first, last + 1)):
        row, types = cast("Row", values[:7]), list(values[7:])
        if held:
            yield *held, row
        held = row, types
    if held and held[0][0] <= last:
        yield *held, None


def _of_row(row: Row, types: list[str], expected: int, previous: bytes, following: Row | None) -> Finding | None:
    position = row[0]
    if position != expected:
        return Finding(expected, f"the event is missing; the next one is at position {position}")
    if mistyped := _mistyped(row, types):
        return Finding(position, mistyped)
    try:
        stream, type_ = str(row[1], "utf-8"), str(row[3], "utf-8")  # type: ignore[call-overload]
        linked = chain.link(previous, position, stream, row[2], type_, row[4], row[5])
    except UnicodeDecodeError:
        return Finding(position, "the event was altered: its stream or its type is no text")
    except struct.error:
        return Finding(position, "the event was altered: its numbers are out of range")
    if linked != row[6]:
        return _unlinked(position, linked, row[6], following)
    return _of_content(position, type_, row[5])


def _mistyped(row: Row, types: list[str]) -> str | None:
    for name, type_, expected in zip(schema.TYPES, types, schema.TYPES.values(), strict=True):
        if type_ != expected:
            return f"the event was altered: its {name} is {type_}, where {expected} was written"
    if len(row[6]) != DIGEST_BYTES:
        return f"its hash was altered: it has {len(row[6])} bytes, and not {DIGEST_BYTES}"
    return None


def _unlinked(position: int, linked: bytes, stored: bytes, following: Row | None) -> Finding:
    if following and following[0] == position + 1 and _follows(following, linked):
        return Finding(position, "its hash was altered: the next event follows from another one")
    if following and not _follows(following, stored):
        return Finding(position, "it was altered: it does not follow from the event before it, nor the next from it")
    if position == 1:
        return Finding(position, "the event or its hash was altered: they do not match")
    return Finding(
        position,
        f"it does not follow from the event before it: it was altered, or the one at position {position - 1} was, "
        "and given a new hash",
        Kind.UNLINKED,
        linked,
    )


def _follows(row: Row, previous: bytes) -> bool:
    position, stream, version, type_, recorded_us, data, hash_ = row
    try:
        names = str(stream, "utf-8"), str(type_, "utf-8")  # type: ignore[call-overload]
        return chain.link(previous, position, names[0], version, names[1], recorded_us, data) == hash_
    except (TypeError, ValueError, struct.error):
        return False


def _of_content(position: int, type_: str, data: bytes) -> Finding | None:
    if chain.is_erased(data):
        return None
    content = data[SALT_BYTES:]
    if reason := why_not(type_, content):
        return Finding(position, reason, Kind.ALTERED if type_ in _KNOWN else Kind.UNREADABLE)
    if (name := type(decode(content)).__name__) != type_:
        return Finding(position, f"its type says {type_}, and its data is a {name}")
    return None


def _of_time(row: Row, last_us: int) -> Finding | None:
    if row[4] < last_us:
        return Finding(row[0], "its time is before that of the event before it")
    return None


class _Versions:
    """The versions of streams, as the rows of a stretch go by."""

    def __init__(self, database: sqlite3.Connection, first: int, is_indexed: bool) -> None:
        self._database = database
        self._first = first
        self._is_indexed = is_indexed
        self._newest: dict[str, int] = {}

    def of(self, row: Row) -> Finding | None:
        """What is wrong with the version of an event that is whole otherwise."""
        stream, version = str(row[1], "utf-8"), row[2]  # type: ignore[call-overload]
        newest = self._newest.get(stream)
        if newest is None:
            if not self._is_indexed:
                newest = version - 1
            else:
                (newest,) = self._database.execute(schema.VERSION_BEFORE, (stream, self._first)).fetchone()
        self._newest[stream] = version
        if version != (newest or 0) + 1:
            return Finding(row[0], f"{stream} goes on at version {version}, expected {(newest or 0) + 1}")
        return None
