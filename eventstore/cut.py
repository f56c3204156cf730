"""The log up to a position, as if nothing had been recorded since: for whoever reads and never writes."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from eventstore.events import Event
from eventstore.log import BYTES_MAX, EVENTS_MAX, EventLog, Head, LogReadOnly, Part, Recorded, Selected


class CutLog:
    """An `EventLog` whose head is `last`, a position of `log` and the hash there."""

    def __init__(self, log: EventLog, last: Head) -> None:
        self._log = log
        self._last = last

    async def append(self, stream: str, expected_version: int, events: Sequence[Event]) -> tuple[Recorded, ...]:
        """Nothing can be recorded: raises `LogReadOnly`."""
        raise LogReadOnly(
            f"{len(events)} events for {stream} at version {expected_version} can not be recorded: the log "
            f"is served as of position {self._last.position}, read only"
        )

    async def read(self, stream: str, after_version: int = 0) -> list[Recorded]:
        """See `EventLog.read`."""
        return self._until(await self._log.read(stream, after_version))

    async def at(self, positions: Sequence[int]) -> list[Recorded]:
        """See `EventLog.at`."""
        return await self._log.at([position for position in positions if position <= self._last.position])

    async def select(self, part: Part, limit: int = EVENTS_MAX, bytes_max: int = BYTES_MAX) -> Selected:
        """See `EventLog.select`."""
        asked, last = part.until_position, self._last.position
        cut = part._replace(until_position=last if asked is None else min(asked, last))
        return await self._log.select(cut, limit, bytes_max)

    async def read_all(self, after_position: int = 0) -> AsyncIterator[list[Recorded]]:
        """See `EventLog.read_all`."""
        if after_position >= self._last.position:
            return
        async for batch in self._log.read_all(after_position):
            if wanted := self._until(batch):
                yield wanted
            if batch[-1].position >= self._last.position:
                return

    async def follow(self, after_position: int = 0, *, check: bool = False) -> AsyncIterator[list[Recorded]]:  # noqa: ARG002
        """See `EventLog.follow`. Nothing comes later, and all of it is checked."""
        async for batch in self.read_all(after_position):
            yield batch
        await asyncio.Event().wait()

    def head(self) -> Head:
        """See `EventLog.head`."""
        return self._last

    async def hash_at(self, position: int) -> bytes | None:
        """See `EventLog.hash_at`."""
        return await self._log.hash_at(position) if position <= self._last.position else None

    async def close(self) -> None:
        """See `EventLog.close`."""
        await self._log.close()

    def _until(self, events: list[Recorded]) -> list[Recorded]:
        return [recorded for recorded in events if recorded.position <= self._last.position]
