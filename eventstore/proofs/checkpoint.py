"""Signed checkpoints: how large the log was, and the root over it, so that nobody can tell another story later.

The note of one is https://c2sp.org/tlog-checkpoint:

    <the log's name>
    <its size: the position of its newest event>
    <base64 of the root, see `merkle.py`>
    time <when it was signed, RFC 3339>

    — <the log's name> <signature>

Every one that was signed is a line of `checkpoints.jsonl`, on the disk before anybody is told. What a crash has left of
a line is passed over. The file is thinned out before it grows large: any root can be made again, from the log.
"""

import base64
import contextlib
import datetime
import fcntl
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from eventstore.moving.whole import in_place_of, sync
from eventstore.proofs.merkle import HASH_BYTES
from eventstore.proofs.note import NoteInvalid, SignerKey, VerifierKey, decode_base64

CHECKPOINTS_FILE = "checkpoints.jsonl"
LINES_MAX = 2_000
WAIT_S = 5.0
LOOK_AGAIN_S = 0.05
_TIME = "time "
_SIZE = re.compile(r"0|[1-9][0-9]{0,18}")


class Checkpoint(NamedTuple):
    """The log at one moment. `signed_at` is RFC 3339, `note` what was signed and by whom."""

    origin: str
    size: int
    root: bytes
    signed_at: str
    note: str

    @classmethod
    def sign(cls, key: SignerKey, size: int, root: bytes, now_us: int) -> "Checkpoint":
        """A new one, signed with `key` at `now_us`."""
        signed_at = f"{datetime.datetime.fromtimestamp(now_us // 1_000_000, datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"
        text = f"{key.name}\n{size}\n{base64.b64encode(root).decode()}\n{_TIME}{signed_at}\n"
        return cls(key.name, size, root, signed_at, key.sign(text))

    @classmethod
    def open(cls, key: VerifierKey, note: str) -> "Checkpoint":
        """The one that `note` is; raises `NoteInvalid` unless it is a checkpoint of the log that `key` signs for."""
        origin, *lines = key.open(note).removesuffix("\n").split("\n")
        if len(lines) < 2 or not all(lines) or not _SIZE.fullmatch(lines[0]):
            raise NoteInvalid("expected the lines of a checkpoint: the log's name, its size, its root")
        if origin != key.name:
            raise NoteInvalid(f"the checkpoint is of the log '{origin}', and not of '{key.name}'")
        root = decode_base64(lines[1])
        if len(root) != HASH_BYTES:
            raise NoteInvalid(f"expected a root of {HASH_BYTES} bytes, got {len(root)}")
        signed_at = next((line.removeprefix(_TIME) for line in lines[2:] if line.startswith(_TIME)), "")
        return cls(origin, int(lines[0]), root, signed_at, note)


class Line(msgspec.Struct, frozen=True):
    """A checkpoint on file, readable for people; only its note is believed."""

    size: int
    signed_at: str
    root: str
    note: str


class Filed(NamedTuple):
    """What is on file, oldest first, and which lines could not be read."""

    lines: list[Line]
    torn: list[int]


_decode = msgspec.json.Decoder(Line).decode
_encode = msgspec.json.encode


def read(path: Path) -> Filed:
    """What the file holds; nothing where there is none. Raises `OSError`."""
    lines: list[Line] = []
    torn: list[int] = []
    content = path.read_bytes() if path.exists() else b""
    for number, line in enumerate(content.splitlines(), 1):
        try:
            lines.append(_decode(line))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            torn.append(number)
    return Filed(lines, torn)


def add(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint behind the others; on the disk on return. Raises `OSError`.

    Only whoever holds the key's lock may do it. A torn line before it ends here, and the new one begins its own.
    """
    line = _line(checkpoint)
    if path.exists() and (lines := read(path).lines) and len(lines) >= LINES_MAX:
        _replace(path, [*lines[: LINES_MAX // 2 : 2], *lines[LINES_MAX // 2 :]])
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        end = file.seek(0, os.SEEK_END)
        is_torn = end > 0 and os.pread(descriptor, 1, end - 1) != b"\n"
        file.write(b"\n" * is_torn + line)
        file.flush()
        os.fsync(descriptor)
    if end == 0:
        sync(path.parent)


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock of the key file at `path`: two that sign at once could sign two stories. Raises `OSError`.

    Blocks its thread for `WAIT_S` at most, then raises `TimeoutError`.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for _ in range(int(WAIT_S / LOOK_AGAIN_S)):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(LOOK_AGAIN_S)
        else:
            raise TimeoutError(f"another process has been signing with {path} for {WAIT_S:g} s")
        yield
    finally:
        os.close(descriptor)


def _line(checkpoint: Checkpoint) -> bytes:
    return _encode(Line(checkpoint.size, checkpoint.signed_at, checkpoint.root.hex(), checkpoint.note)) + b"\n"


def _replace(path: Path, lines: list[Line]) -> None:
    with in_place_of(path) as partial:
        partial.write_bytes(b"".join(_encode(line) + b"\n" for line in lines))
