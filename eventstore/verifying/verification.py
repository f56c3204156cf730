"""Whether the whole log is what was recorded: every row, every stream, what was erased, and what was signed.

Theory of operation. The rows are checked in stretches (`stretch.py`), by this process and some workers, no statement
longer than one stretch, so that a server that writes beside it is kept from its housekeeping by none. They are joined
in order, and with them grows the Merkle tree that signed checkpoints are held against (`vouched.py`): the chain shows
what was altered, the signatures show what was altered by somebody who has made the chain anew.

What cannot be seen: events that were removed from the end, or rewritten, since the last checkpoint that was kept.
"""

import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TypeAlias

import msgspec

from eventstore import schema
from eventstore.chain import GENESIS
from eventstore.files import readable
from eventstore.log import Head, LogDamaged
from eventstore.plain import connect
from eventstore.proofs.checkpoint import Checkpoint
from eventstore.proofs.peaks import Peak, Peaks
from eventstore.verifying import erased, structure
from eventstore.verifying.diagnosis import Finding
from eventstore.verifying.stretch import Claim, Run, Task, check
from eventstore.verifying.vouched import Vouched, blame, reader
from eventstore.verifying.workers import Crew

STRETCH_POSITIONS = 8_192
WORKERS_MAX = 3
WORTH_A_WORKER_BYTES = 20_000_000  # some 50,000 events: a worker takes a tenth of a second to begin


Progress: TypeAlias = Callable[[int, int], None]


class Whole(msgspec.Struct, frozen=True, tag="WholeLog"):
    """A log that was found whole up to a position, and all it takes to go on from there.

    Without `peaks`, the Merkle tree was not made.
    """

    position: int = 0
    hash: bytes = GENESIS
    streams: int = 0
    erased: int = 0
    erasures: int = 0
    peaks: tuple[Peak, ...] = ()


class Verified(msgspec.Struct):
    """What was found: `whole` is of worth where there are no `findings`, the first of which is the first in the log.

    `checkpoints` are those that the log was held against, oldest first.
    """

    whole: Whole
    findings: list[Finding] = []
    checkpoints: list[Checkpoint] = []


def verify(
    directory: Path,
    checkpoints: Sequence[Checkpoint] = (),
    *,
    before: Whole | None = None,
    is_tree_wanted: bool = False,
    is_deep: bool = False,
    progress: Progress = lambda _position, _head: None,
    workers: int | None = None,
) -> Verified:
    """Check the log in `directory` behind what was found whole `before`, and hold it against `checkpoints`.

    Whoever wants to go on from it later wants its tree, too. A deep check has SQLite check its file besides, in one go.
    `progress` is told how far it is, and how far it goes.

    Raises `LogUnavailable` where there is none that this turnlog reads, `LogDamaged` where SQLite can not open it.
    """
    with ExitStack() as stack:
        database = stack.enter_context(closing(connect(directory)))
        with readable():
            head = _head(database)
            verification = _Verification(database, checkpoints, before or Whole(), is_tree_wanted)
        if finding := verification.follows_from_before(head):
            return Verified(before or Whole(), [finding])
        crew = stack.enter_context(Crew(directory, _workers(directory, head) if workers is None else workers))
        return verification.run(directory, crew, head, progress, is_deep=is_deep)


class _Verification:
    """One of them: what it has seen so far."""

    def __init__(
        self,
        database: sqlite3.Connection,
        checkpoints: Sequence[Checkpoint],
        before: Whole,
        is_tree_wanted: bool,
    ) -> None:
        self._database = database
        self._before = before
        self._checkpoints = checkpoints
        self._is_tree_wanted = is_tree_wanted or bool(checkpoints)
        self._is_indexed = structure.is_indexed(database)
        self._hashes = reader(database)
        self._vouched = Vouched(checkpoints, Peaks(before.peaks), self._hashes)
        self._streams = 0
        self._erased: list[Run] = []
        self._claims: list[Claim] = []
        self._findings: list[Finding] = []

    def follows_from_before(self, head: Head) -> Finding | None:
        """Why the log is not the one that was found whole before; None where it is."""
        position = self._before.position
        if head.position < position:
            return Finding(
                head.position + 1,
                f"the log ends at position {head.position}, and was whole up to {position}: those behind position "
                f"{head.position} were removed",
            )
        if position and list(self._hashes(position, position)) != [self._before.hash]:
            return Finding(position, "the log was rewritten there or before: it does not have the hash that it had")
        return None

    def run(self, directory: Path, crew: Crew, head: Head, progress: Progress, *, is_deep: bool) -> Verified:
        """Check everything up to the head."""
        # SQLite works on the index in a thread of its own, while the rows are checked.
        with closing(connect(directory)) as beside, ThreadPoolExecutor(1) as pool:
            indexed = pool.submit(structure.index, beside, head.position)
            hash_, broken = self._scan(crew, head, progress)
            disorder = indexed.result()
        if broken:
            self._findings.append(broken)
        else:
            self._findings += self._vouched.findings()
            # What a log lacks that was cut off or rewritten may well be what says what was erased.
            if not any(finding.position for finding in self._findings):
                with readable():
                    self._findings += self._erasures(head)
        if self._is_indexed and disorder:
            self._findings.append(disorder)
        self._findings += structure.check(self._database)
        if is_deep:
            self._findings += structure.integrity(self._database)
        self._findings.sort(key=lambda finding: (finding.position == 0, finding.position))
        before = self._before
        whole = Whole(
            head.position,
            hash_,
            before.streams + self._streams,
            before.erased + _count(self._erased) + self._erased_since(),
            before.erasures + len(self._claims),
            tuple(self._vouched.peaks.peaks),
        )
        return Verified(whole, self._findings, self._vouched.good)

    def _scan(self, crew: Crew, head: Head, progress: Progress) -> tuple[bytes, Finding | None]:
        """Check the rows; the last hash, or the first row that is not whole."""
        hash_ = self._before.hash
        tasks = _tasks(self._before.position + 1, head.position, self._is_tree_wanted, self._is_indexed)
        for seen in crew.check(tasks):
            if seen.finding:
                with suppress(sqlite3.Error):  # in a file like that, too
                    return hash_, blame(seen.finding, self._checkpoints, self._hashes, head.position)
                return hash_, seen.finding
            hash_ = seen.hash
            self._streams += seen.streams
            self._erased += seen.erased
            self._claims += seen.claims
            self._vouched.grow(seen.subtrees)
            progress(seen.task.last, head.position)
        return hash_, None

    def _erasures(self, head: Head) -> Iterable[Finding]:
        """Whether what was erased is what the facts say."""
        if finding := erased.malformed(self._claims):
            yield finding
            return
        self._erased = erased.merged(self._erased)
        if finding := erased.unclaimed(self._erased, self._claims):
            # A server may have erased it since, in front of our eyes: the fact is then behind what was the head.
            later = check(self._database, Task(head.position + 1, _head(self._database).position))
            if finding := later.finding or erased.unclaimed(self._erased, [*self._claims, *later.claims]):
                yield finding
        if finding := erased.kept(self._erased, self._claims, self._before.position):
            yield finding
        for claim in self._claims:
            for first, last in claim.runs:
                kept = self._database.execute(schema.KEPT, (first, min(last, self._before.position))).fetchone()[0]
                if kept is not None:
                    yield erased.still_there(kept, claim.position)

    def _erased_since(self) -> int:
        """How many events that were whole before have been erased since."""
        before = self._before.position
        return _count(erased.merged((a, min(b, before)) for claim in self._claims for a, b in claim.runs))


def _head(database: sqlite3.Connection) -> Head:
    row = database.execute(schema.HEAD).fetchone()
    if row and not isinstance(row[0], int):
        raise LogDamaged(0, "the table of events has no positions")
    return Head(max(row[0], 0), row[1]) if row else Head(0, GENESIS)


def _tasks(first: int, last: int, is_tree_wanted: bool, is_indexed: bool) -> list[Task]:
    """The stretches between two positions: they end where tiles of the Merkle tree do."""
    tasks = []
    while first <= last:
        end = min(last, first - 1 - (first - 1) % STRETCH_POSITIONS + STRETCH_POSITIONS)
        tasks.append(Task(first, end, is_tree_wanted, is_indexed))
        first = end + 1
    return tasks


def _workers(directory: Path, head: Head) -> int:
    """How many workers are worth their start."""
    if not head.position or (directory / schema.LOG_FILE).stat().st_size < WORTH_A_WORKER_BYTES:
        return 0
    return min(WORKERS_MAX, (os.cpu_count() or 1) - 1)


def _count(runs: Iterable[Run]) -> int:
    return sum(last - first + 1 for first, last in runs)
