"""The event log: what it promises, and how it fails.

LogError
├── VersionConflict    the stream is not at the version the caller expected: read it again and decide anew
├── LogOverloaded      too many appends are waiting: try again later
├── LogUnavailable     the storage failed (full disk, I/O error): nothing was recorded
├── LogDamaged         stored history was altered or lost: names the first bad position
├── LogRewritten       the log is not the one that a signed checkpoint is of
├── LogUnreadable      stored by a newer turnlog: names the position, the type and the version needed
└── LogLocked          another process writes to this log: names it
"""

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol

import msgspec

from eventstore.events import Event


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


class LogLocked(LogError):
    """Another process holds the log for writing."""


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

    def read_all(self, after_position: int = 0) -> AsyncIterator[list[Recorded]]:
        """All events after `after_position` up to the head as it is met, in order, in bounded batches."""
        ...

    def follow(self, after_position: int = 0) -> AsyncIterator[list[Recorded]]:
        """Like `read_all`, and then whatever is recorded later, without end."""
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
