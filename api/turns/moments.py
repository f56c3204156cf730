"""What clients read of the past: sessions, their messages and lists, as they were answered at a moment.

What was deleted since is shown as it was, in moments before its deletion. What was erased is in no moment.
"""

import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from api.turns.directory import Directory, session_not_found
from api.turns.pasts import Pasts
from api.turns.reader import FORKS_MAX, Lineage, Reader
from api.turns.refusals import SessionNotFound
from api.turns.then import Then
from eventstore.events import lineage_stream
from eventstore.log import EventLog
from projections import session_list, sessions, tips
from projections.session import Session
from projections.session_list import Wanted
from projections.sessions import SessionRow

Found = TypeVar("Found")


class Moments:
    """One for a server."""

    def __init__(self, log: EventLog, reader: Reader, directory: Directory) -> None:
        self._log = log
        self._now = reader
        self._directory = directory
        self._then = Then(log)
        self._pasts = Pasts(log)

    async def reader(self, position: int | None, recorded_us: int | None) -> "Reader | PastReader":
        """Reads what was there at a position or a time; raises `LogError`. A moment that is yet to come is now."""
        last = await self._then.position_of(position, recorded_us)
        if last >= self._log.head().position:
            return self._now
        return PastReader(last, self._then, self._pasts, self._directory)

    def forget(self) -> None:
        """Keep nothing that was read so far: something was erased."""
        self._pasts.forget()

    async def stop(self) -> None:
        """Let go of what is kept."""
        await self._pasts.stop()


class PastReader:
    """What `Reader` is for now, for one position."""

    def __init__(self, position: int, then: Then, pasts: Pasts, directory: Directory) -> None:
        self._position = position
        self._then = then
        self._pasts = pasts
        self._directory = directory

    async def session_row(self, tenant: str, session_id: str) -> SessionRow:
        """Exactly that session's entry in the list; raises `SessionNotFound`, `MomentsBusy`."""
        return await self._found(tenant, session_id, self._row)

    async def whole_session(self, tenant: str, session_id: str) -> Session:
        """The lineage that had a session of that id, with everything that had been said; raises `SessionNotFound`,
        `MomentsBusy`.
        """
        return await self._found(tenant, session_id, self._session)

    async def _found(self, tenant: str, session_id: str, look: Callable[[str, str], Awaitable[Found | None]]) -> Found:
        """What `look` finds of the session in the lineage that had it by then: mostly the one that is called so, or the
        one that has it now; else the log knows.
        """
        if found := await look(lineage_stream(tenant, session_id), session_id):
            return found
        with contextlib.suppress(SessionNotFound):
            now = lineage_stream(tenant, await self._directory.session(tenant, session_id))
            if found := await look(now, session_id):
                return found
        rows = await self._pasts.fetch(self._position, tips.ROOT_OF, (tenant, session_id))
        if rows and (found := await look(lineage_stream(tenant, rows[0][0]), session_id)):
            return found
        raise session_not_found(session_id)

    async def _row(self, stream: str, session_id: str) -> SessionRow | None:
        rows = await self._then.generations(stream, self._position)
        return next((row for row in rows if row.session_id == session_id), None)

    async def _session(self, stream: str, session_id: str) -> Session | None:
        session = await self._then.session(stream, self._position)
        ids = {generation.session_id for generation in (*session.past, session.current)}
        return session if session.started and session_id in ids else None

    async def session_rows(self, tenant: str, wanted: Wanted, rows_max: int) -> list[SessionRow]:
        """The tenant's sessions, most recently active first. Raises `MomentsBusy`."""
        rows = await self._pasts.fetch(self._position, *session_list.query(tenant, wanted, rows_max))
        return [SessionRow(*row) for row in rows]

    async def lineage(self, tenant: str, session_id: str) -> Lineage:
        """The lineage that had a session of that id; raises `SessionNotFound`, `MomentsBusy`."""
        session = await self.whole_session(tenant, session_id)
        generations = await self._then.generations(session.stream, self._position)
        if not generations:
            raise session_not_found(session_id)
        began_us = generations[0].started_us
        found = (tenant, session.root_id, began_us, FORKS_MAX)
        forks = await self._pasts.fetch(self._position, sessions.FORKS, found)
        return Lineage(session, generations, [fork_id for (fork_id,) in forks])
