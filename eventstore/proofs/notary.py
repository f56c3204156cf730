"""The notary of one log: keeps the tree over it, signs how large it was and what was in it, and proves both later.

Before it signs, it holds the log against the newest checkpoint that was signed: a log that was cut short or written
anew behind it is refused with `LogRewritten`, never signed over. Blocking, and of one thread at a time; works beside
whoever writes the log. The hashes that it reads are believed: that events match theirs is the chain's to tell.
"""

from pathlib import Path
from typing import NamedTuple, Self

from eventstore.chain import Row
from eventstore.log import LogError, LogRewritten
from eventstore.proofs import checkpoint as file
from eventstore.proofs.audit_key import load, public_key
from eventstore.proofs.checkpoint import CHECKPOINTS_FILE, Checkpoint, Line
from eventstore.proofs.hashes import Hashes
from eventstore.proofs.merkle import LeavesChanged, Tree, is_included
from eventstore.proofs.note import NoteInvalid, VerifierKey

BATCH_EVENTS = 4_096


class CheckpointsUnusable(LogError):
    """The checkpoints on file can not be read, believed or written to."""


class Proof(NamedTuple):
    """An event as it is stored, the hash before it, and its path to the root of a checkpoint."""

    row: Row
    previous: bytes
    path: list[bytes]
    checkpoint: Checkpoint


class Notary:
    """Signs for the log in a directory with the key at `key_path`; `close` it."""

    def __init__(self, hashes: Hashes, directory: Path, key_path: Path, verifier: VerifierKey) -> None:
        self.verifier = verifier
        self.torn: list[int] = []  # the numbers of the lines on file that nobody can read
        self._hashes = hashes
        self._tree = Tree(lambda first, end: hashes.between(first + 1, end))
        self._newest_hash = b""
        self._path = directory / CHECKPOINTS_FILE
        self._key_path = key_path
        self._seen: tuple[tuple[int, int, int], list[Line]] = ((0, 0, 0), [])

    @classmethod
    def open(cls, directory: Path, key_path: Path) -> Self:
        """Raises `LogError` where the log can not be read, `AuditKeyProblem` where no public key is known."""
        hashes = Hashes.open(directory)
        try:
            return cls(hashes, directory, key_path, public_key(directory, key_path))
        except BaseException:
            hashes.close()
            raise

    def close(self) -> None:
        """Let go of the log."""
        self._hashes.close()

    @property
    def size(self) -> int:
        """How many events the tree has taken in."""
        return self._tree.size

    def head(self) -> int:
        """How many the log has."""
        return self._hashes.head()

    def catch_up(self, events: int = BATCH_EVENTS) -> int:
        """Take in that many more events, or as many as there are; how many they were. Raises `LogRewritten`."""
        size = self._tree.size
        hashes = self._hashes.between(size or 1, size + events)
        if size and (not hashes or hashes.pop(0) != self._newest_hash):
            raise LogRewritten(f"the event at position {size} is not the one that this server has read there before")
        if hashes:
            self._tree.extend(hashes)
            self._newest_hash = hashes[-1]
        return len(hashes)

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint on file. Raises `CheckpointsUnusable` unless our key has signed it."""
        lines = self._lines()
        return self._opened(max(lines, key=lambda line: line.size)) if lines else None

    def of_size(self, size: int) -> Checkpoint | None:
        """The checkpoint on file of that size. Raises `CheckpointsUnusable`."""
        found = [line for line in self._lines() if line.size == size]
        return self._opened(found[-1]) if found else None

    def check(self) -> Checkpoint | None:
        """The newest checkpoint on file, of which the log as it is now is a continuation.

        Raises `LogRewritten` where it is not, `CheckpointsUnusable`, `LogError`.
        """
        newest = self.newest()
        if newest:
            self._hold_against(newest)
        return newest

    def sign(self, now_us: int) -> Checkpoint:
        """A checkpoint of all that the tree has taken in; the newest on file, where that is one of as many events.

        On the disk on return. `now_us` is microseconds UTC since 1970. Raises like `check`, and `AuditKeyProblem`.
        """
        key = load(self._key_path)
        if key.verifier != self.verifier:
            raise CheckpointsUnusable(f"{self._key_path} holds another key than it did: start the server again")
        try:
            with file.held(self._key_path):
                newest = self.check()
                if newest and newest.size == self._tree.size:
                    return newest
                made = Checkpoint.sign(key, self._tree.size, self._tree.root(), now_us)
                file.add(self._path, made)
                return made
        except OSError as error:
            raise CheckpointsUnusable(f"no checkpoint can be signed: {error}") from error

    def proof(self, position: int, checkpoint: Checkpoint) -> Proof:
        """That the event at `position` is among those of `checkpoint`, which has as many.

        Raises `LogRewritten` where the log does not prove it any more, `LogDamaged`.
        """
        found = self._hashes.row(position)
        self._hold_against(checkpoint)
        try:
            path = self._tree.inclusion(position - 1, checkpoint.size)
        except LeavesChanged as error:
            raise LogRewritten(str(error)) from error
        if found is None or not is_included(found[0][-1], position - 1, checkpoint.size, path, checkpoint.root):
            raise LogRewritten(f"the event at position {position} is not the one that was signed for")
        return Proof(*found, path, checkpoint)

    def consistency(self, size: int, checkpoint: Checkpoint) -> tuple[bytes, list[bytes]]:
        """The root of the first `size` events, and the proof that `checkpoint` continues it. Raises like `proof`."""
        self._hold_against(checkpoint)
        try:
            return self._tree.root(size), self._tree.consistency(size, checkpoint.size)
        except LeavesChanged as error:
            raise LogRewritten(str(error)) from error

    def row(self, position: int) -> Row | None:
        """The event at `position` as it is stored; None where there is none. Raises `LogError`."""
        found = self._hashes.row(position)
        return found[0] if found else None

    def _hold_against(self, checkpoint: Checkpoint) -> None:
        while self._tree.size < checkpoint.size and self.catch_up():
            pass
        said = f"the checkpoint that was signed at {checkpoint.signed_at} is of {checkpoint.size} events"
        advice = f"nothing is signed over it. If that is meant (an old backup was restored), move {self._path} away"
        if self._tree.size < checkpoint.size:
            raise LogRewritten(f"{said}, and the log has {self._tree.size}: it was cut short; {advice}")
        try:
            root = self._tree.root(checkpoint.size)
        except LeavesChanged as error:
            raise LogRewritten(f"{said}, and {error}; {advice}") from error
        if root != checkpoint.root:
            raise LogRewritten(
                f"{said}, and the first {checkpoint.size} of the log's {self._tree.size} are others now: "
                f"it was written anew; {advice}"
            )

    def _opened(self, line: Line) -> Checkpoint:
        try:
            opened = Checkpoint.open(self.verifier, line.note)
        except NoteInvalid as error:
            raise CheckpointsUnusable(
                f"the checkpoint of size {line.size} in {self._path} can not be believed: {error}. "
                "If the key was changed, move that file away"
            ) from error
        if opened.size != line.size:
            raise CheckpointsUnusable(f"a line of {self._path} says size {line.size}, its note {opened.size}")
        return opened

    def _lines(self) -> list[Line]:
        """What is on file, read again where it has changed."""
        try:
            stat = self._path.stat() if self._path.exists() else None
            stamp = (stat.st_ino, stat.st_size, stat.st_mtime_ns) if stat else (0, 0, 0)
            if stamp != self._seen[0]:
                filed = file.read(self._path)
                self._seen, self.torn = (stamp, filed.lines), filed.torn
        except OSError as error:
            raise CheckpointsUnusable(f"{self._path} can not be read: {error.strerror or error}") from error
        return self._seen[1]
