"""What clients read: sessions, their messages, responses. Changes nothing."""

from itertools import takewhile
from typing import NamedTuple

from api.turns.cache import Sessions
from api.turns.directory import RESPONSE, RUN, Directory, Views, run_not_found, session_not_found
from api.turns.refusals import ResponseNotFound
from eventstore.events import TurnCompleted, lineage_stream
from projections import session_list, sessions
from projections.session import Session
from projections.session_list import Wanted
from projections.sessions import SessionRow
from projections.turn import Turn

FORKS_MAX = 1_000


class Lineage(NamedTuple):
    """A lineage: folded with its past, its generations as they are listed, and the ids of its oldest forks."""

    session: Session
    generations: list[SessionRow]
    forks: list[str]


class Reader:
    """Read access for all tenants. A transcript comes from the fold of its stream, a list from the views."""

    def __init__(self, directory: Directory, sessions: Sessions, views: Views) -> None:
        self._directory = directory
        self._sessions = sessions
        self._views = views

    async def response(self, tenant: str, response_id: str) -> tuple[Session, Turn]:
        """The turn behind a response's id, and its session; raises `ResponseNotFound`."""
        root_id = await self._directory.response(tenant, response_id)
        session, turn = await self._turn(tenant, root_id, response_id.removeprefix(RESPONSE))
        if turn is None:
            raise ResponseNotFound(f"Response not found: {response_id}")  # of a session that was deleted
        return session, turn

    async def run(self, tenant: str, run_id: str) -> tuple[Session, Turn]:
        """The turn behind a run's id, and its session; raises `RunNotFound`."""
        root_id = await self._directory.run(tenant, run_id)
        session, turn = await self._turn(tenant, root_id, run_id.removeprefix(RUN))
        if turn is None:
            raise run_not_found(run_id)  # of a session that was deleted
        return session, turn

    async def _turn(self, tenant: str, root_id: str, turn_id: str) -> tuple[Session, Turn | None]:
        """A turn of the lineage, however old."""
        session = await self._sessions.get(lineage_stream(tenant, root_id))
        return session, await self._sessions.find(session, turn_id)

    async def said_until(self, session: Session, turn: Turn) -> list[Turn]:
        """What was said in the session before one of its turns, however long ago, and that turn; oldest first."""
        whole = await self.whole(session)
        before = takewhile(lambda other: other.turn_id != turn.turn_id, (other for _, other in whole.said))
        return [*(other for other in before if isinstance(other.ended, TurnCompleted)), turn]

    async def whole_session(self, tenant: str, session_id: str) -> Session:
        """The same, with everything that was said before its last rotation; raises `SessionNotFound`."""
        return await self.whole(await self.session(tenant, session_id))

    async def whole(self, session: Session) -> Session:
        """The session with everything that was said before its last rotation."""
        if session.generation == 1 and not session.current.base:
            return session
        return await self._sessions.whole(session.stream)

    async def session(self, tenant: str, session_id: str) -> Session:
        """The current session of the lineage that has that id; raises `SessionNotFound`."""
        root_id = await self._directory.session(tenant, session_id)
        session = await self._sessions.get(lineage_stream(tenant, root_id))
        if session.started is None:
            raise session_not_found(session_id)  # deleted a moment ago
        return session

    async def session_row(self, tenant: str, session_id: str) -> SessionRow:
        """Exactly that session's entry in the list; raises `SessionNotFound`."""
        root_id = await self._directory.session(tenant, session_id)
        rows = await self._views.fetch(sessions.GET, (tenant, root_id, session_id))
        if not rows:
            raise session_not_found(session_id)
        return SessionRow(*rows[0])

    async def session_rows(self, tenant: str, wanted: Wanted, rows_max: int) -> list[SessionRow]:
        """The tenant's sessions, most recently active first."""
        rows = await self._views.fetch(*session_list.query(tenant, wanted, rows_max))
        return [SessionRow(*row) for row in rows]

    async def lineage(self, tenant: str, session_id: str) -> Lineage:
        """The lineage that has a session of that id; raises `SessionNotFound`."""
        session = await self.whole_session(tenant, session_id)
        rows = await self._views.fetch(sessions.GENERATIONS, (tenant, session.root_id))
        if not rows or session.started is None:
            raise session_not_found(session_id)
        generations = [SessionRow(*row) for row in rows]
        began_us = generations[0].started_us
        forks = await self._views.fetch(sessions.FORKS, (tenant, session.root_id, began_us, FORKS_MAX))
        return Lineage(session, generations, [fork_id for (fork_id,) in forks])
