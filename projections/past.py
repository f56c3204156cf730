"""The list of sessions as it was at one position of the log, in rows of its own.

They are made by the views' own `apply` and read by their own queries, so that a moment long ago and this one differ in
nothing but when they are.
"""

import asyncio
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any, Self

from eventstore.log import EventLog, Recorded
from projections import sessions, tips
from projections.aside import Aside
from projections.rebuild import finished
from projections.sessions import SessionRow

SLICE_EVENTS = 50
VIEWS = (sessions.VIEW, tips.VIEW)


class Past:
    """The list and the ids of all sessions, of all tenants, at one position."""

    def __init__(self) -> None:
        self._store = Aside(VIEWS)
        self._lock = threading.Lock()  # nothing is closed while a thread reads it
        self.is_closed = False

    @property
    def position(self) -> int:
        """The position it has got to."""
        return self._store.position

    async def go_on(self, log: EventLog, position: int) -> Self:
        """Take in the log up to `position`. Raises `LogError`."""
        async for batch in log.read_all(self.position):
            wanted = [recorded for recorded in batch if recorded.position <= position]
            await _take_in(self._store, wanted)
            if not wanted or wanted[-1].position == position:
                break
        return self

    async def copied(self) -> "Past":
        """Another one that stands where this one does; an empty one where this one is closed already."""
        copy = Past()
        await finished(partial(copy.become, self))
        return copy

    def become(self, other: Self) -> None:
        """Stand where the other one does, unless that is closed."""
        with other._lock:
            if not other.is_closed:
                self._store.become(other._store)

    async def fetch(self, sql: str, parameters: Sequence[object]) -> list[Any] | None:
        """The rows that `sql` finds; None where it was closed meanwhile."""
        return await asyncio.to_thread(self._fetch, sql, parameters)

    def _fetch(self, sql: str, parameters: Sequence[object]) -> list[Any] | None:
        with self._lock:
            return None if self.is_closed else self._store.fetch(sql, parameters)

    def close(self) -> None:
        """Let go of the rows."""
        with self._lock:
            self.is_closed = True
            self._store.close()


async def generations(events: Sequence[Recorded], tenant: str, root_id: str) -> list[SessionRow]:
    """The rows of one lineage, oldest first, as its events make them, and those of the lineages it was forked from."""
    store = Aside((sessions.VIEW,))
    try:
        await _take_in(store, events)
        return [SessionRow(*row) for row in store.fetch(sessions.GENERATIONS, (tenant, root_id))]
    finally:
        store.close()


async def _take_in(store: Aside, events: Sequence[Recorded]) -> None:
    """Apply events in slices on the event loop, as the runner does, so that nobody notices."""
    for begin in range(0, len(events), SLICE_EVENTS):
        store.stage(events[begin : begin + SLICE_EVENTS])
        await asyncio.sleep(0)
    if events:
        await finished(store.commit)
