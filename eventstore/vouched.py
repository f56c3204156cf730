"""What signed checkpoints tell of a log: whether it was rewritten or cut off, and where."""

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence

from eventstore import schema
from eventstore.checkpoint import Checkpoint
from eventstore.diagnosis import Finding, Kind
from eventstore.peaks import Peak, Peaks, subtrees

HASHES_AT_ONCE = 8_192

Hashes = Callable[[int, int], Sequence[bytes]]  # of the events from a position to another one


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

    def findings(self, has_ended: bool) -> Iterator[Finding]:
        """What the checkpoints say that the log is not."""
        good = self.good[-1].size if self.good else 0
        if false := next((checkpoint for checkpoint in self.bad if checkpoint.size <= good), None):
            yield Finding(
                0,
                f"the checkpoint of size {false.size}, signed at {false.time}, is not of this log, though one of size "
                f"{good} is: its key has signed two histories",
            )
        if bad := next((checkpoint for checkpoint in self.bad if checkpoint.size > good), None):
            yield _rewritten(good, bad)
        if has_ended and self._waiting:
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
        f"the log was rewritten {where}: up to position {bad.size} it does not have the root that was signed at {bad.time}",
    )


def _cut_off(size: int, checkpoint: Checkpoint) -> Finding:
    return Finding(
        size + 1,
        f"the log ends at position {size}, and {checkpoint.size} events were signed at {checkpoint.time}: those behind "
        f"position {size} were removed",
    )


def blame(finding: Finding, checkpoints: Sequence[Checkpoint], hashes: Hashes, head: int) -> Finding:
    """Which of two events is to blame where one does not follow from the other: signed hashes are not forged."""
    if finding.kind is not Kind.UNLINKED:
        return finding
    vouched = Vouched(checkpoints, Peaks(), hashes)
    for first in range(1, head + 1, HASHES_AT_ONCE):
        last = min(first + HASHES_AT_ONCE - 1, head)
        found = hashes(first, last)
        vouched.grow(subtrees(first - 1, found))
        if len(found) <= last - first:
            break
    position = finding.position
    if witness := next((c for c in vouched.good if c.size >= position), None):
        reason = f"it was altered: its hash is still the one that was signed at {witness.time}, and it has another"
        return Finding(position, reason)
    if not vouched.bad:
        return finding
    good, bad = max((c.size for c in vouched.good), default=0), vouched.bad[0]
    if bad.size < position:
        return _rewritten(good, bad)
    since = "" if good == position - 2 else f"; up to position {good}, the log is as it was signed" if good else ""
    return Finding(
        position - 1,
        "it was altered and given a new hash, from which the next event does not follow: the hashes up to position "
        f"{bad.size} are not those that were signed at {bad.time}{since}",
    )


def reader(database: sqlite3.Connection) -> Hashes:
    """Reads hashes from a log."""

    def hashes(first: int, last: int) -> Sequence[bytes]:
        return [row[0] or b"" for row in database.execute(schema.HASHES, (first, last))]

    return hashes
