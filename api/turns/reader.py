"""What clients read: sessions, their messages, responses. Changes nothing."""

from api.turns.cache import Sessions
from api.turns.directory import RESPONSE, RUN, Directory, Views, run_not_found
from api.turns.refusals import ResponseNotFound
from eventstore.events import lineage_stream
from projections import sessions as session_list
from projections.session import Session, Turn
from projections.sessions import SessionRow


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
        return session, session.find(turn_id) or (await self._sessions.whole(session.stream)).find(turn_id)

    async def whole_session(self, tenant: str, session_id: str) -> Session:
        """The same, with everything that was said before its last rotation; raises `SessionNotFound`."""
        session = await self.session(tenant, session_id)
        return session if session.generation == 1 else await self._sessions.whole(session.stream)

    async def session(self, tenant: str, session_id: str) -> Session:
        """The current session of the lineage that has that id; raises `SessionNotFound`."""
        root_id = await self._directory.session(tenant, session_id)
        return await self._sessions.get(lineage_stream(tenant, root_id))

    async def session_row(self, tenant: str, session_id: str) -> SessionRow:
        """The session's entry in the list; raises `SessionNotFound`."""
        root_id = await self._directory.session(tenant, session_id)
        rows = await self._views.fetch(session_list.GET, (tenant, root_id))
        return SessionRow(*rows[0])

    async def session_rows(self, tenant: str, limit: int, offset: int) -> list[SessionRow]:
        """The tenant's sessions, most recently active first."""
        rows = await self._views.fetch(session_list.LIST, (tenant, limit, offset))
        return [SessionRow(*row) for row in rows]
