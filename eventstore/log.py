"""The event log: what it promises, and how it fails.

LogError
├── VersionConflict    the stream is not at the version the caller expected: read it again and decide anew
├── LogOverloaded      too many appends are waiting: try again later
├── LogUnavailable     the storage failed (full disk, I/O error): nothing was recorded
├── LogDamaged         stored history was altered or lost: names the first bad position
├── LogRewritten       the log is not the one that a signed checkpoint is of
├── LogUnreadable      stored by a newer turnlog: names the position, the type and the version needed
├── NotPurged          what was erased is out of the log, and not yet out of its file: somebody reads that
├── LogLocked          another process writes to this log: names it
└── LogReadOnly        it is served as it was at a moment: nothing can be recorded
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from eventstore.events import Event, SessionErased


class Erasure(NamedTuple):
    """A fact that says what is erased, and the end of the stream that it is to be recorded at."""

    stream: str
    expected_version: int
    fact: SessionErased


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """An event and where it stands. `recorded_us` is microseconds UTC since 1970, `hash` its link in the chain."""

    position: int
    stream: str
    version: int
    recorded_us: int
    event: Event
    hash: bytes


class Head(NamedTuple):
    """The newest position of the log (0 when it is empty) and the hash of the event there."""

    position: int
    hash: bytes


class Part(NamedTuple):
    """Which events of the log are wanted: those for which all that is said holds.

    After one position up to and with another; of one `stream`, or of all streams of one `tenant`; in a stream after one
    version up to and with another; of certain `types`, by their stored names (empty: of all).
    """

    after_position: int = 0
    until_position: int | None = None
    tenant: str = ""
    stream: str = ""
    after_version: int = 0
    until_version: int | None = None
    types: frozenset[str] = frozenset()


class Selected(NamedTuple):
    """What was found of a part. `looked_to` is a position: whatever is wanted up to it is in `events`.

    With `is_all` there was nothing more of it behind that when it was looked for.
    """

    events: list[Recorded]
    looked_to: int
    is_all: bool


EVENTS_MAX = 1_000  # of a part, found at a time
BYTES_MAX = 8_000_000  # of their content, unless a single event is larger


class LogError(Exception):
    """The log could not do what was asked."""


class VersionConflict(LogError):
    """The stream is at another version than expected; nothing was recorded."""

    def __init__(self, stream: str, expected: int, actual: int) -> None:
        super().__init__(f"{stream} is at version {actual}, expected {expected}")
        self.stream = stream
        self.expected = expected
        self.actual = actual


class LogOverloaded(LogError):
    """More appends are waiting than the log's queue takes; nothing was recorded."""


class LogUnavailable(LogError):
    """The storage refused to write or read; nothing was recorded."""


class LogDamaged(LogError):
    """Stored history was altered or lost; `position` is the first bad one, 0 where SQLite can not say."""

    def __init__(self, position: int, reason: str) -> None:
        where = f" at position {position}" if position else ""
        super().__init__(f"the log is damaged{where}: {reason}")
        self.position = position
        self.reason = reason


class LogRewritten(LogError):
    """What a signed checkpoint says of the log is not true of it any more: it was cut short, or written anew."""


class LogUnreadable(LogError):
    """An event is of a type or version that this turnlog does not know. It is never skipped."""

    def __init__(self, position: int, reason: str) -> None:
        super().__init__(f"the event at position {position} can not be read: {reason}")
        self.position = position
        self.reason = reason


class NotPurged(LogError):
    """The log has lost the content for all who read it, but its file has not yet. The next start finishes that."""


class ErasedSince(LogError):
    """What is kept of the log, as it was at a moment, holds what was erased since."""


class LogLocked(LogError):
    """Another process holds the log for writing."""


class LogReadOnly(LogError):
    """Nothing can be recorded here."""


class EventLog(Protocol):
    """An append-only log of events, in streams that are versioned from 1, in one global order from 1 without gaps."""

    async def append(self, stream: str, expected_version: int, events: Sequence[Event]) -> tuple[Recorded, ...]:
        """Record `events` at the end of `stream`, all or none; durable on return.

        Raises `VersionConflict` unless the stream is at `expected_version` (0: it must not exist), `LogOverloaded`,
        `LogUnavailable`. A caller that is cancelled meanwhile gets its cancellation at its next await, after the
        answer: whoever appended always learns what became of it.
        """
        ...

    async def read(self, stream: str, after_version: int = 0) -> list[Recorded]:
        """The stream's events after `after_version`, in order. Raises `LogDamaged`, `LogUnavailable`."""
        ...

    async def at(self, positions: Sequence[int]) -> list[Recorded]:
        """The events at those positions, in the log's order, without those that lack. Raises like `read`."""
        ...

    async def select(self, part: Part, limit: int = EVENTS_MAX, bytes_max: int = BYTES_MAX) -> Selected:
        """The next events of a part of the log, in order, at most `limit` (1 to `EVENTS_MAX`), and how far it was
        looked through for them: a look is bounded. It reads in steps, between which others read. Raises like `read`.
        """
        ...

    def read_all(self, after_position: int = 0) -> AsyncIterator[list[Recorded]]:
        """All events after `after_position` up to the head as it is met, in order, in bounded batches."""
        ...

    def follow(self, after_position: int = 0, *, check: bool = False) -> AsyncIterator[list[Recorded]]:
        """Like `read_all`, and then whatever is recorded later, without end. What is not in memory any more is only
        checked where that is asked for.
        """
        ...

    def head(self) -> Head:
        """The newest acknowledged position."""
        ...

    async def hash_at(self, position: int) -> bytes | None:
        """The hash of the event at `position`; None where the log is shorter. Of position 0: the zero hash."""
        ...

    async def close(self) -> None:
        """Finish what is queued and let go of the storage."""
        ...


class ErasableLog(EventLog, Protocol):
    """A log that content can be taken out of, where the law asks for it."""

    async def erase(self, erasures: Sequence[Erasure], unchanged: Mapping[str, int]) -> tuple[Recorded, ...]:
        """Record the facts, and replace by digests what their ranges hold, all or nothing; durable on return.

        Until `purge`, and after that `erasing_is_over`, was called, the log `is_erasing`, a crash or not. Raises
        `VersionConflict` unless the streams, and those that are to be `unchanged`, are at their versions,
        `LogUnavailable`.
        """
        ...

    @property
    def is_erasing(self) -> bool:
        """Whether what was erased may still be in the log's file or in the views'."""
        ...

    async def purge(self) -> None:
        """Write the log's file anew, so that none of it holds what was erased. Appends wait meanwhile.

        Raises `NotPurged` where somebody reads the old file for too long, or there is no room.
        """
        ...

    def erasing_is_over(self) -> None:
        """Nothing that was erased is left anywhere."""
        ...
