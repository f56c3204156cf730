"""The hash chain that makes tampering evident.

    hash     = SHA-256(previous hash ‖ header ‖ SHA-256(data))
    header   = position ‖ version ‖ recorded_us ‖ length of stream ‖ length of type ‖ stream ‖ type
               (8, 8, 8, 2 and 2 bytes, big-endian; then the names in UTF-8)
    data     = 16 random bytes ‖ the event's MessagePack bytes
    the hash before position 1 is 32 zero bytes

The chain commits to the digest of the data and not to the data, so that an event's content can be replaced by its
digest when the law asks for it, and everything still verifies. The salt keeps the digest of a short content from being
guessed. Data of exactly 32 bytes is such a digest: salt and name alone make every event longer.
"""

import hashlib
import struct
from collections.abc import Iterable
from typing import TypeAlias

SALT_BYTES = 16
DIGEST_BYTES = 32
GENESIS = bytes(32)

_sha256 = hashlib.sha256
_HEADER = struct.Struct(">QQQHH")


# One row of the events table: position, stream, version, type, recorded_us, data, hash.
Row: TypeAlias = tuple[int, str, int, str, int, bytes, bytes]


def link(previous: bytes, position: int, stream: str, version: int, type_: str, recorded_us: int, data: bytes) -> bytes:
    """The hash of an event whose predecessor in the log has the hash `previous`."""
    name, kind = stream.encode(), type_.encode()
    header = _HEADER.pack(position, version, recorded_us, len(name), len(kind))
    return _sha256(b"".join((previous, header, name, kind, digest(data)))).digest()


def is_erased(data: bytes) -> bool:
    """Whether the content was taken out, and `data` is its digest."""
    return len(data) == DIGEST_BYTES


def digest(data: bytes) -> bytes:
    """What the chain commits to: the same before and after the data was erased."""
    return data if len(data) == DIGEST_BYTES else _sha256(data).digest()


class BrokenChain(Exception):
    """The first row that does not follow from the one before it."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(f"position {position}: {reason}")
        self.position = position
        self.reason = reason


def check(row: Row, position: int, previous: bytes) -> None:
    """Raise `BrokenChain` unless `row` is the untouched event at `position`, after one hashed `previous`."""
    found, stream, version, type_, recorded_us, data, hash_ = row
    if found != position:
        raise BrokenChain(position, f"the event is missing; the next one is at position {found}")
    try:
        expected = link(previous, position, stream, version, type_, recorded_us, data)
    except (TypeError, AttributeError, struct.error) as error:
        raise BrokenChain(position, f"the row does not hold an event: {error}") from error
    if expected != hash_:
        raise BrokenChain(position, "the event or its hash was altered: they do not match")


def check_all(rows: Iterable[Row], after_position: int, previous: bytes) -> None:
    """Raise `BrokenChain` at the first of `rows`, which follow `after_position`, that was altered."""
    for position, row in enumerate(rows, after_position + 1):
        check(row, position, previous)
        previous = row[-1]
