"""One lineage as it was at a position of the log, made of its own stream: what a client was shown, nothing newer."""

from itertools import chain

from api.turns.cache import Sessions
from eventstore.events import SessionStarted, lineage_stream, parse_stream
from eventstore.log import EventLog, Recorded
from eventstore.selection import last_until
from projections import past
from projections.session import Session
from projections.sessions import SessionRow


class Then:
    """Reads single lineages out of the past."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._sessions = Sessions(log)

    async def session(self, stream: str, position: int) -> Session:
        """The session, with all its generations; one that has not started where there was none."""
        return await self._sessions.whole(stream, position)

    async def generations(self, stream: str, position: int) -> list[SessionRow]:
        """Its rows in the list, oldest first; none where there was no session."""
        _, tenant, root_id = parse_stream(stream)
        return await past.generations(await self._family(stream, position), tenant, root_id)

    async def position_of(self, position: int | None, recorded_us: int | None) -> int:
        """The last position that belongs to a moment; the log's newest, where the moment is yet to come, or none."""
        head = self._log.head().position
        if position is not None:
            return min(position, head)
        return head if recorded_us is None else await last_until(self._log, recorded_us)

    async def _family(self, stream: str, position: int) -> list[Recorded]:
        """The events of the lineage, and of those it was forked from, whose rows its own began as, in order."""
        streams: dict[str, list[Recorded]] = {}
        wanted = [stream]
        while wanted:
            name = wanted.pop()
            if name in streams:
                continue
            streams[name] = [event for event in await self._log.read(name) if event.position <= position]
            wanted += [parent for event in streams[name] if (parent := _parent(event))]
        return sorted(chain.from_iterable(streams.values()), key=lambda recorded: recorded.position)


def _parent(recorded: Recorded) -> str | None:
    event = recorded.event
    if isinstance(event, SessionStarted) and event.forked_from:
        return lineage_stream(parse_stream(recorded.stream).tenant, event.forked_from.root_id)
    return None
