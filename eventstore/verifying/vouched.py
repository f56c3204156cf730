"""What signed checkpoints tell of a log: whether it was rewritten or cut off, and where."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from eventstore import schema
from eventstore.proofs.checkpoint import CHECKPOINTS_FILE, Checkpoint, read
from eventstore.proofs.note import NoteInvalid, VerifierKey
from eventstore.proofs.peaks import Peak, Peaks, subtrees
from eventstore.verifying.diagnosis import Finding, Kind

HASHES_AT_ONCE = 8_192

Hashes = Callable[[int, int], Sequence[bytes]]  # of the events from a position to another one


class Filed(NamedTuple):
    """The checkpoints of a data directory that are believed, and what is wrong with others."""

    checkpoints: list[Checkpoint]
    findings: list[Finding]


def filed(directory: Path, key: VerifierKey) -> Filed:
    """The checkpoints in `directory`, each held against `key`. Raises `OSError`.

    A line that a crash has cut off is passed over, as if it had been removed.
    """
    path = directory / CHECKPOINTS_FILE
    lines, torn = read(path)
    content = path.read_bytes().splitlines() if torn else []
    found = Filed([], [_altered(number, "it can not be read") for number in torn if content[number - 1][-1:] == b"}"])
    numbers = (number for number in range(1, len(lines) + len(torn) + 1) if number not in torn)
    for number, line in zip(numbers, lines, strict=True):
        try:
            checkpoint = Checkpoint.open(key, line.note)
        except NoteInvalid as error:
            found.findings.append(_altered(number, str(error)))
            continue
        if (line.size, line.signed_at, line.root) != (checkpoint.size, checkpoint.signed_at, checkpoint.root.hex()):
            found.findings.append(_altered(number, "it does not say what its note says"))
        found.checkpoints.append(checkpoint)
    return found


def _altered(number: int, reason: str) -> Finding:
    return Finding(0, f"line {number} of {CHECKPOINTS_FILE} is not believed: {reason}")


class Vouched:
    """Checkpoints, held against a tree while it grows."""

    def __init__(self, checkpoints: Iterable[Checkpoint], peaks: Peaks, hashes: Hashes) -> None:
        self.peaks = peaks
        self._hashes = hashes
        self._waiting = sorted((c for c in checkpoints if c.size >= peaks.size), key=lambda c: c.size, reverse=True)
        self.good: list[Checkpoint] = []
        self.bad: list[Checkpoint] = []
        self.grow(())

    def grow(self, more: Iterable[Peak]) -> None:
        """Take in the next subtrees, and judge the checkpoints on the way."""
        for leaves, root in more:
            while self._waiting and self._waiting[-1].size < self.peaks.size + leaves:
                self._judge(self._waiting.pop())
            self.peaks.add(leaves, root)
        while self._waiting and self._waiting[-1].size == self.peaks.size:
            self._judge(self._waiting.pop())

    def findings(self) -> Iterator[Finding]:
        """What the checkpoints say that the log, which ends here, is not."""
        good = self.good[-1].size if self.good else 0
        if false := next((checkpoint for checkpoint in self.bad if checkpoint.size <= good), None):
            yield Finding(
                0,
                f"the checkpoint of size {false.size}, signed at {false.signed_at}, is not of this log, though one of "
                f"size {good} is: its key has signed two histories",
            )
        if bad := next((checkpoint for checkpoint in self.bad if checkpoint.size > good), None):
            yield _rewritten(good, bad)
        if self._waiting:
            yield _cut_off(self.peaks.size, self._waiting[0])

    def _judge(self, checkpoint: Checkpoint) -> None:
        peaks = Peaks(self.peaks.peaks)
        for leaves, root in subtrees(peaks.size, self._hashes(peaks.size + 1, checkpoint.size)):
            peaks.add(leaves, root)
        is_good = peaks.size == checkpoint.size and peaks.root() == checkpoint.root
        (self.good if is_good else self.bad).append(checkpoint)


def _rewritten(good: int, bad: Checkpoint) -> Finding:
    where = f"at position {bad.size}" if bad.size == good + 1 else f"between positions {good + 1} and {bad.size}"
    return Finding(
        good + 1,
        f"the log was rewritten {where}: up to position {bad.size} it does not have the root that was signed at "
        f"{bad.signed_at}",
    )


def _cut_off(size: int, checkpoint: Checkpoint) -> Finding:
    return Finding(
        size + 1,
        f"the log ends at position {size}, and {checkpoint.size} events were signed at {checkpoint.signed_at}: those "
        f"behind position {size} were removed",
    )


def blame(finding: Finding, checkpoints: Sequence[Checkpoint], hashes: Hashes, head: int) -> Finding:
    """Which of two events is to blame where one does not follow from the other: what was signed is not forged."""
    if finding.kind is not Kind.UNLINKED or not checkpoints:
        return finding
    position = finding.position
    stored = _judged(checkpoints, hashes, head)
    if witness := _covering(stored, position):
        reason = (
            f"it was altered: the hash beside it is the one that was signed at {witness.signed_at}, "
            "but what is there now hashes to another"
        )
        return Finding(position, reason)
    if witness := _covering(_judged(checkpoints, _with(hashes, position, finding.linked), head), position):
        return Finding(position, f"its hash was altered: what was signed at {witness.signed_at} is what the event says")
    if not stored.bad:
        return finding
    good, bad = max((checkpoint.size for checkpoint in stored.good), default=0), stored.bad[0]
    if bad.size < position:
        return _rewritten(good, bad)
    since = f"; up to position {good}, the log is as it was signed" if 0 < good < position - 2 else ""
    return Finding(
        position - 1,
        "it was altered and given a new hash, from which the next event does not follow: the hashes up to position "
        f"{bad.size} are not those that were signed at {bad.signed_at}{since}",
    )


def _judged(checkpoints: Sequence[Checkpoint], hashes: Hashes, head: int) -> Vouched:
    """The checkpoints, held against those hashes alone."""
    vouched = Vouched(checkpoints, Peaks(), hashes)
    for first in range(1, head + 1, HASHES_AT_ONCE):
        last = min(first + HASHES_AT_ONCE - 1, head)
        found = hashes(first, last)
        vouched.grow(subtrees(first - 1, found))
        if len(found) <= last - first:
            break
    return vouched


def _covering(vouched: Vouched, position: int) -> Checkpoint | None:
    return next((checkpoint for checkpoint in vouched.good if checkpoint.size >= position), None)


def _with(hashes: Hashes, position: int, hash_: bytes) -> Hashes:
    """The hashes with another one at a position."""

    def other(first: int, last: int) -> Sequence[bytes]:
        found = list(hashes(first, last))
        if first <= position <= last and position - first < len(found):
            found[position - first] = hash_
        return found

    return other


def reader(database: sqlite3.Connection) -> Hashes:
    """Reads hashes from a log."""

    def hashes(first: int, last: int) -> Sequence[bytes]:
        return [row[0] or b"" for row in database.execute(schema.HASHES, (first, last))]

    return hashes
