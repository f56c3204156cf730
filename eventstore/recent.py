"""The newest acknowledged events, kept in memory for those who follow the log closely.

Reading them back from the table would cost more than everything else that a follower does with them. Bounded by bytes:
whoever falls further behind reads the table.
"""

from collections import deque
from itertools import islice

from eventstore.log import Recorded

BYTES_MAX = 4_000_000


class Recent:
    """A window that ends at the head of the log."""

    def __init__(self) -> None:
        self._events: deque[tuple[Recorded, int]] = deque()
        self._bytes = 0

    def add(self, recorded: Recorded, size_bytes: int) -> None:
        """Take in the event behind the newest one."""
        self._events.append((recorded, size_bytes))
        self._bytes += size_bytes
        while self._bytes > BYTES_MAX:
            self._bytes -= self._events.popleft()[1]

    def after(self, position: int) -> list[Recorded] | None:
        """The events after `position`; None where the window begins later than that."""
        if not self._events or self._events[0][0].position > position + 1:
            return None
        skipped = position + 1 - self._events[0][0].position
        return [recorded for recorded, _ in islice(self._events, skipped, None)]
