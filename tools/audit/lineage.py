"""One session's lineage in a log that nobody needs to serve: found, and how it was at a moment."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import NamedTuple

import click

from api.turns.then import Then
from api.wire.moment import Moment
from api.wire.recorded import rfc3339
from eventstore.events import (
    CompressionRotated,
    Erased,
    SessionDeleted,
    lineage_stream,
)
from eventstore.log import LogError, Part, Recorded
from eventstore.selection import every
from eventstore.sqlite import SqliteLog
from projections.session import Session
from projections.sessions import SessionRow
from projections.store import ViewsUnusable

_ROTATIONS = frozenset({CompressionRotated.__name__})


class State(NamedTuple):
    """The lineage at a position: what was said, and the rows of its sessions, oldest first; nothing where it was not.

    `recorded_at` is the time of the log's event there.
    """

    position: int
    recorded_at: str | None
    session: Session | None
    rows: Sequence[SessionRow]


class Lineage:
    """A lineage in a log: `events` are all that there are of it."""

    def __init__(self, log: SqliteLog, tenant: str, session_id: str, events: Sequence[Recorded]) -> None:
        self._log = log
        self._then = Then(log)
        self.tenant = tenant
        self.session_id = session_id
        self.events = events

    async def position_of(self, moment: Moment) -> int:
        """The last position that belongs to the moment."""
        return await self._then.position_of(moment.position, moment.recorded_us)

    async def at(self, position: int) -> State:
        """How it was."""
        stream = self.events[0].stream
        session = await self._then.session(stream, position)
        rows = await self._then.generations(stream, position)
        recorded = await self._log.at((position,))
        recorded_at = rfc3339(recorded[0].recorded_us) if recorded else None
        return State(position, recorded_at, session if session.started else None, rows)

    def why_not(self, position: int) -> str:
        """Why there is nothing of it at a position, in a sentence."""
        so_far = [recorded for recorded in self.events if recorded.position <= position]
        if not so_far:
            began = self.events[0]
            return f"it began at position {began.position}, {rfc3339(began.recorded_us)}"
        if any(isinstance(recorded.event, Erased) for recorded in so_far):
            return "what it held was erased"
        gone = [recorded for recorded in so_far if isinstance(recorded.event, SessionDeleted)]
        if gone:
            return f"it was deleted at position {gone[-1].position}, {rfc3339(gone[-1].recorded_us)}"
        return "nothing tells of its beginning"


@contextlib.asynccontextmanager
async def reading(data: Path, tenant: str, session_id: str) -> AsyncIterator[Lineage]:
    """The lineage that has, or had, a session of that id; raises `click.ClickException` where none has."""
    try:
        log = await SqliteLog.open_read_only(data)
        try:
            yield Lineage(log, tenant, session_id, await _events(log, data, tenant, session_id))
        finally:
            await log.close()
    except (LogError, ViewsUnusable) as error:
        raise click.ClickException(str(error)) from error


async def _events(log: SqliteLog, data: Path, tenant: str, session_id: str) -> Sequence[Recorded]:
    if events := await log.read(lineage_stream(tenant, session_id)):
        return events
    if stream := await _rotated_into(log, tenant, session_id):
        return await log.read(stream)
    raise click.ClickException(f"tenant '{tenant}' has no session '{session_id}' in {data}")


async def _rotated_into(log: SqliteLog, tenant: str, session_id: str) -> str | None:
    """The lineage that was rotated into that session: found by reading the log, for which no view need be there."""
    async for batch in every(log, Part(tenant=tenant, types=_ROTATIONS)):
        for recorded in batch:
            if isinstance(recorded.event, CompressionRotated) and recorded.event.session_id == session_id:
                return recorded.stream
    return None
