"""The lineages of all tenants, as everything that changes them shares them: found, held, read and written.

Decisions are pure functions in `decide.py`; `commit` runs one against the current session and records what it says, and
once more against the newer session where another process was first.
"""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

from api.ids import new_session_id
from api.turns.cache import Sessions, take_in
from api.turns.directory import Directory, Views
from api.turns.line import Line
from api.turns.reader import Reader
from api.turns.refusals import LineageBusy
from eventstore.events import Event
from eventstore.log import EventLog, VersionConflict
from projections.session import Session

CONFLICTS_MAX = 20


class Lineages:
    """One for a server: `directory` finds, `line` orders turns, `sessions` folds, `reader` reads for clients."""

    def __init__(self, log: EventLog, views: Views, *, lock_wait_s: float) -> None:
        self._log = log
        self.views = views
        self.sessions = Sessions(log)
        self.directory = Directory(log, views, new_session_id)
        self.reader = Reader(self.directory, self.sessions, views)
        self.line = Line(lock_wait_s)

    @contextlib.asynccontextmanager
    async def held(self, stream: str) -> AsyncIterator[Session]:
        """The current session, which no other turn of this process moves meanwhile; raises `LineageBusy`."""
        await self.line.enter(stream)
        try:
            yield await self.sessions.get(stream)
        finally:
            self.line.leave(stream)

    async def commit(self, session: Session, decision: Callable[[Session], Sequence[Event]]) -> Sequence[Event]:
        """Record what `decision` makes of the session, and return it; where another was first, decide again on what is
        now.

        Nothing is recorded where it decides on nothing. Raises what the decision refuses, `LogError`, `LineageBusy`.
        """
        for _ in range(CONFLICTS_MAX):
            events = decision(session)
            if not events:
                return events
            try:
                recorded = await self._log.append(session.stream, session.version, events)
            except VersionConflict:
                await self.sessions.catch_up(session)
                continue
            take_in(session, recorded)
            self.sessions.keep(session)
            return events
        raise LineageBusy("too many others write to this session at once")
