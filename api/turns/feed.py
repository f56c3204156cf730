"""The log as a feed: its past, and whatever is recorded later, for any number of followers.

Theory of operation. Every follower has a position of its own and goes on from there as fast as its client reads: behind
the head it reads the log, in bounded batches; level with it, it waits. One task looks at what is recorded on behalf of
all who wait: it takes what has come within `REST_S`, sorts it once by tenant and by stream, and wakes those whom some
of it concerns. Nothing is ever queued for a follower: what was recorded while it was busy is in the log. So one that
waits costs a look-up every `REST_S`, one that does not read costs nothing, and no turn waits for either.
"""

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import structlog

from api.turns.directory import Directory, session_not_found
from api.turns.refusals import SessionNotFound, ShuttingDown, TooManyFollowers
from eventstore.events import lineage_stream, parse_stream, type_name
from eventstore.log import EventLog, LogError, Part, Recorded, Selected
from eventstore.selection import is_in

REST_S = 0.05
RETRY_S = 1.0
BATCH_EVENTS = 100
BATCH_BYTES = 1_000_000
FOLLOWERS_MAX = 1_000
FOLLOWERS_OF_TENANT_MAX = 100

Told: TypeAlias = Callable[[Recorded], bytes]

_log = structlog.get_logger()


class _Group(NamedTuple):
    """The news of one tenant or stream: the events, and of which types they are."""

    events: list[Recorded]
    types: set[str]


class _News:
    """What was recorded since the news before, up to the position `until`. An event is told once, for all."""

    def __init__(self, events: Sequence[Recorded], told: Told) -> None:
        self.until = events[-1].position
        self._told = told
        self._frames: dict[int, bytes] = {}
        self._groups: dict[str, _Group] = defaultdict(lambda: _Group([], set()))
        for recorded in events:
            for name in (recorded.stream, parse_stream(recorded.stream).tenant):
                group = self._groups[name]
                group.events.append(recorded)
                group.types.add(type_name(recorded.event))

    def concern(self, part: Part) -> bool:
        """Whether some of it may be in the part, or end it. A stream's name has slashes, a tenant's none."""
        if part.until_position is not None and part.until_position <= self.until:
            return True
        group = self._groups.get(part.stream or part.tenant)
        is_any = not part.types or part.until_version is not None
        return group is not None and (is_any or not part.types.isdisjoint(group.types))

    def batches(self, part: Part) -> Iterator[tuple[int, list[bytes]]]:
        """What of it is in the part, told; each batch with its last position."""
        events = [recorded for recorded in self._groups[part.stream or part.tenant].events if is_in(part, recorded)]
        for first in range(0, len(events), BATCH_EVENTS):
            batch = events[first : first + BATCH_EVENTS]
            yield batch[-1].position, [self._frame(recorded) for recorded in batch]

    def _frame(self, recorded: Recorded) -> bytes:
        frame = self._frames.get(recorded.position)
        if frame is None:
            frame = self._frames[recorded.position] = self._told(recorded)
        return frame


class Feed:
    """The feed of all tenants. `told` makes of an event what its followers are sent."""

    def __init__(self, log: EventLog, directory: Directory, told: Told) -> None:
        self._log = log
        self._directory = directory
        self._told = told
        self._followers: Counter[str] = Counter()  # by tenant
        self._waiting: dict[asyncio.Future[_News | None], Part] = {}
        self._position = 0  # up to which there was news; of no meaning while nobody looks
        self._looking: asyncio.Task[None] | None = None
        self._is_closed = False
        self._erasures = 0

    async def stream_of(self, tenant: str, session_id: str) -> str:
        """The lineage that has a session of that id; of a deleted one, that began with it. Raises `SessionNotFound`."""
        try:
            return lineage_stream(tenant, await self._directory.session(tenant, session_id))
        except SessionNotFound:
            stream = lineage_stream(tenant, session_id)
            if not (await self._log.select(Part(stream=stream), 1)).events:
                raise session_not_found(session_id) from None
            return stream

    async def page(self, part: Part, limit: int) -> Selected:
        """The next events of a tenant's part; raises `LogError`."""
        return await self._log.select(part, limit)

    @property
    def head(self) -> int:
        """The newest position of the log."""
        return self._log.head().position

    @contextlib.contextmanager
    def following(self, part: Part) -> Iterator[AsyncGenerator[list[bytes], None]]:
        """What a follower of a tenant's part is to be sent, in bounded batches; raises `TooManyFollowers`,
        `ShuttingDown`.

        Ends once the part does, where it has an end, and with the server. Raises `LogError` as it goes.
        """
        tenant = part.tenant
        if self._is_closed:
            raise ShuttingDown("the server is stopping: try again in a moment")
        if self._followers[tenant] >= FOLLOWERS_OF_TENANT_MAX or self._followers.total() >= FOLLOWERS_MAX:
            raise TooManyFollowers(f"{self._followers[tenant]} streams of events are open: close one, or read pages")
        self._followers[tenant] += 1
        try:
            yield self._batches(part)
        finally:
            self._followers[tenant] -= 1
            if not self._followers[tenant]:
                del self._followers[tenant]
            if not self._followers:
                self._stop_looking()

    def forget(self) -> None:
        """Tell nothing more of what was read so far: something was erased."""
        self._erasures += 1
        self._wake_all()

    async def close(self) -> None:
        """Have every follower come to its end."""
        self._is_closed = True
        looking = self._looking
        self._stop_looking()
        self._wake_all()
        if looking:
            await asyncio.wait([looking])

    async def _batches(self, part: Part) -> AsyncGenerator[list[bytes], None]:
        is_level = False
        while not self._is_closed and (part.until_position is None or part.after_position < part.until_position):
            erasures, told_to = self._erasures, part.after_position
            if is_level and (news := await self._next(part)) and part.until_version is None:
                for last, batch in news.batches(part):
                    if self._erasures != erasures:
                        break  # it may hold what is no longer in the log, which is read instead
                    yield batch
                    told_to = last
                else:
                    told_to = news.until
                part = part._replace(after_position=max(told_to, part.after_position))
                continue
            ends = await self._has_last_version(part)
            found = await self._log.select(part, BATCH_EVENTS, BATCH_BYTES)
            if found.events:
                yield [self._told(recorded) for recorded in found.events]
            part = part._replace(after_position=found.looked_to)
            is_level = found.is_all
            if is_level and ends:
                return

    async def _has_last_version(self, part: Part) -> bool:
        """Whether the version that is the part's last has been recorded."""
        if part.until_version is None:
            return False
        from_there = Part(stream=part.stream, after_version=part.until_version - 1)
        return bool((await self._log.select(from_there, 1)).events)

    async def _next(self, part: Part) -> _News | None:
        """The next news that concern the part; None where the log has to be read for it."""
        if self._is_closed:
            return None
        if self._looking is None:
            self._position = min(part.after_position, self.head)
            self._looking = asyncio.create_task(self._look(), name="feed")
        if part.after_position < self._position:
            return None
        waiting: asyncio.Future[_News | None] = asyncio.get_running_loop().create_future()
        self._waiting[waiting] = part
        try:
            return await waiting
        finally:
            self._waiting.pop(waiting, None)

    async def _look(self) -> None:
        """Look at what is recorded, for all who wait."""
        while True:
            try:
                async for batch in self._log.follow(self._position, check=True):
                    self._tell(_News(batch, self._told))
                    await asyncio.sleep(REST_S)
            except LogError as error:
                _log.error("the feed can not follow the log", reason=str(error))
                await asyncio.sleep(RETRY_S)
                self._wake_all()  # whoever reads the log now is told by it what is wrong

    def _tell(self, news: _News) -> None:
        self._position = news.until
        for waiting in [waiting for waiting, part in self._waiting.items() if news.concern(part)]:
            del self._waiting[waiting]
            if not waiting.done():
                waiting.set_result(news)

    def _wake_all(self) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)
        self._waiting.clear()

    def _stop_looking(self) -> None:
        if self._looking:
            self._looking.cancel()
        self._looking = None
