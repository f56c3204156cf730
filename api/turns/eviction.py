"""Which responses are still addressable, where their number or their age is limited. A turn is never evicted.

Theory of operation. Age needs no memory: a response that is too old is not found, and whoever notices evicts it; a
sweep now and then finds those that nobody asks for. For the number, each tenant's responses are kept here in the order
of their last use, as far as the limit goes; the first to need them loads them from the view, which knows of a response
when it was made and continued from (that it was read is only known here). What is not among them is over the limit:
the sweep evicts it, and until then it is not found either. A response counts once its turn has ended.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import partial
from itertools import groupby

import structlog

from api.turns import decide
from api.turns.directory import RESPONSE
from api.turns.lineages import Lineages
from api.turns.refusals import PreviousNotFound, Refusal, ResponseNotFound
from eventstore.events import EvictReason, lineage_stream
from eventstore.log import LogError
from projections import responses
from projections.runner import ViewsUnavailable
from projections.session import Session
from projections.store import ViewsUnusable
from projections.turn import Turn

SWEEP_S = 60.0
BATCH_ROWS = 200
SLACK_ROWS = 16  # how many too many are evicted at once, where a process left some behind, and not by the sweep
LATER = (LogError, Refusal, ViewsUnavailable, ViewsUnusable)  # what an eviction is put off for

_log = structlog.get_logger()


class _Stored:
    """A tenant's addressable responses, least recently used first, with the lineage of each."""

    def __init__(self) -> None:
        self.used: dict[str, str] = {}
        self.going: set[str] = set()  # being evicted at this moment
        self.has_more = False  # the log has older ones, which are over the limit
        self.is_loaded = False
        self.loading = asyncio.Lock()

    def use(self, turn_id: str, root_id: str) -> None:
        """Make it the most recently used."""
        self.used.pop(turn_id, None)
        self.used[turn_id] = root_id

    def load(self, rows: Sequence[tuple[str, str]], rows_max: int) -> None:
        """Take in what the view has, most recently used first; what was used here meanwhile is newer."""
        self.has_more = len(rows) > rows_max
        self.used = {turn: root for turn, root in reversed(rows[:rows_max]) if turn not in self.used} | self.used


class Eviction:
    """The responses of all tenants, no more than `responses_max` of each, none older than `ttl_s`; 0 is no limit."""

    def __init__(self, lineages: Lineages, *, responses_max: int = 0, ttl_s: float = 0.0) -> None:
        self._lineages = lineages
        self._max = responses_max
        self._ttl_us = int(ttl_s * 1_000_000)
        self._tenants: dict[str, _Stored] = {}
        self._has_looked = False  # for tenants that were over the limit before this process

    @property
    def counts(self) -> bool:
        """Whether the number of responses is limited."""
        return bool(self._max)

    async def read(self, tenant: str, response_id: str) -> tuple[Session, Turn]:
        """The turn behind a response's id, and its session: a use of it. Raises `ResponseNotFound`."""
        session, turn = await self._lineages.reader.response(tenant, response_id)
        if not await self._use(session, turn):
            raise ResponseNotFound(f"Response not found: {response_id}")
        return session, turn

    async def continue_from(self, session: Session, turn_id: str) -> None:
        """A turn goes on from the response of one of the session's turns: a use of it. Raises `PreviousNotFound`."""
        newest = session.newest
        turn = newest if newest and newest.turn_id == turn_id else session.find(turn_id)
        if not (self._max or self._ttl_us):
            is_there = turn is None or not turn.evicted
        else:
            is_there = await self._use(session, turn or await self._lineages.sessions.find(session, turn_id))
        if not is_there:
            raise PreviousNotFound(f"Previous response with id '{RESPONSE}{turn_id}' not found.")

    async def made(self, session: Session, turn: Turn) -> None:
        """A turn has ended: if its response is one too many, the least recently used goes. Fails for nothing."""
        if not self._max or turn.started.api != "responses":
            return
        self._of(session.tenant).use(turn.turn_id, session.root_id)
        async with _put_off():
            await self._trim(session.tenant, await self._stored(session.tenant))

    def forget(self, tenant: str, turn_id: str) -> None:
        """The response was deleted: it does not count any more."""
        self._of(tenant).used.pop(turn_id, None)

    def forget_lineage(self, tenant: str, root_id: str) -> None:
        """The lineage was deleted, and with it its responses."""
        stored = self._of(tenant)
        stored.used = {turn_id: root for turn_id, root in stored.used.items() if root != root_id}

    async def sweep(self, now_us: int) -> None:
        """Evict what is too old, and what is over a limit that was lowered or could not be kept. Raises `LATER`."""
        if self._ttl_us:
            await self._sweep_old(now_us - self._ttl_us)
        if self._max:
            await self._sweep_excess()

    @contextlib.asynccontextmanager
    async def sweeping(self) -> AsyncIterator[None]:
        """Sweep at once and then now and again, for as long as the context lasts."""
        task = asyncio.create_task(self._run(), name="evictions")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _run(self) -> None:
        while self._max or self._ttl_us:
            try:
                await self.sweep(time.time_ns() // 1_000)
            except LATER as error:
                _log.warning("evictions are put off", reason=str(error))
            await asyncio.sleep(SWEEP_S)

    async def _use(self, session: Session, turn: Turn | None) -> bool:
        """Whether the response is addressable; then it is the most recently used."""
        stored = await self._stored(session.tenant) if self._max else None
        if turn is None or turn.evicted:
            return False
        if turn.ended is None:
            return True
        if self._ttl_us and turn.started_us + self._ttl_us <= time.time_ns() // 1_000:
            await self._try_evict(session, turn, "expired")
            return False
        if stored is None:
            return True
        if turn.turn_id in stored.going:
            return False
        if stored.has_more and turn.turn_id not in stored.used:
            await self._try_evict(session, turn, "lru")
            return False
        stored.use(turn.turn_id, session.root_id)
        return True

    async def _try_evict(self, session: Session, turn: Turn, reason: EvictReason) -> None:
        async with _put_off():
            await self._evict(session.tenant, session.root_id, (turn.turn_id,), reason)

    def _of(self, tenant: str) -> _Stored:
        stored = self._tenants.get(tenant)
        if stored is None:
            stored = self._tenants[tenant] = _Stored()
        return stored

    async def _stored(self, tenant: str) -> _Stored:
        """The tenant's responses, loaded, and no more of them than allowed."""
        stored = self._of(tenant)
        if not stored.is_loaded:
            async with stored.loading:
                if not stored.is_loaded:
                    rows_max = self._max + SLACK_ROWS
                    rows = await self._lineages.views.fetch(responses.NEWEST, (tenant, rows_max + 1))
                    stored.load(rows, rows_max)
                    async with _put_off():
                        await self._trim(tenant, stored)
                    stored.is_loaded = True
        return stored

    async def _trim(self, tenant: str, stored: _Stored) -> None:
        """Evict the least recently used until there are no more than allowed. One in progress is none of them."""
        for _ in range(len(stored.used) - self._max):
            if len(stored.used) <= self._max:
                return  # somebody else was at it too
            turn_id, root_id = next(iter(stored.used.items()))
            del stored.used[turn_id]
            stored.going.add(turn_id)
            try:
                if await self._evict(tenant, root_id, (turn_id,), "lru"):
                    stored.use(turn_id, root_id)
            except BaseException:
                stored.has_more = True
                raise
            finally:
                stored.going.discard(turn_id)

    async def _sweep_old(self, before_us: int) -> None:
        # An id begins with the milliseconds it was made in, so that the oldest come first in the view's own order.
        # A turn that was queued under its id began later: `_evict` looks at that.
        before = f"{max(before_us, 0) // 1_000:012x}"
        after = ""
        while rows := await self._lineages.views.fetch(responses.MADE_BEFORE, (after, before, BATCH_ROWS)):
            await self._evict_rows(rows, "expired", before_us)
            after = rows[-1][2]

    async def _sweep_excess(self) -> None:
        if not self._has_looked:
            for (tenant,) in await self._lineages.views.fetch(responses.MORE_THAN, (self._max,)):
                await self._stored(tenant)
            self._has_looked = True
        for tenant in [tenant for tenant, stored in self._tenants.items() if stored.is_loaded and stored.has_more]:
            await self._trim(tenant, await self._stored(tenant))
            await self._evict_others(tenant)

    async def _evict_others(self, tenant: str) -> None:
        """Evict all that are not among those kept here."""
        stored, after = await self._stored(tenant), ""
        while rows := await self._lineages.views.fetch(responses.OF_TENANT, (tenant, after, BATCH_ROWS)):
            await self._evict_rows([row for row in rows if row[2] not in stored.used], "lru")
            after = rows[-1][2]
        stored.has_more = False

    async def _evict_rows(
        self, rows: Iterable[tuple[str, str, str]], reason: EvictReason, before_us: int | None = None
    ) -> None:
        """Evict responses by tenant, lineage and turn: those of one lineage at once."""
        for (tenant, root_id), group in groupby(sorted(rows), key=lambda row: row[:2]):
            await self._evict(tenant, root_id, [turn_id for _, _, turn_id in group], reason, before_us)

    async def _evict(
        self, tenant: str, root_id: str, turn_ids: Sequence[str], reason: EvictReason, before_us: int | None = None
    ) -> bool:
        """Record that responses of a lineage are evicted, of those that began before a time where one is named; whether
        one is still in progress, and was left alone.
        """
        session = await self._lineages.sessions.get(lineage_stream(tenant, root_id))
        stored = self._of(tenant)
        found = [turn for turn in await self._lineages.sessions.find_all(session, turn_ids) if turn]
        # One that was in progress when it was chosen may have ended since: then it is among those that are kept.
        chosen = [turn for turn in found if reason == "expired" or turn.turn_id not in stored.used]
        chosen = [turn for turn in chosen if before_us is None or turn.started_us <= before_us]
        turns = [turn for turn in chosen if turn.ended]
        await self._lineages.commit(session, partial(decide.evict_ended, turns=turns, reason=reason))
        for turn in turns:
            self._lineages.directory.forget_response(tenant, turn.turn_id)
            stored.used.pop(turn.turn_id, None)
        return len(turns) < len(chosen)


@contextlib.asynccontextmanager
async def _put_off() -> AsyncIterator[None]:
    """An eviction that can not be recorded now fails nothing: the response is not found, and the sweep comes by."""
    try:
        yield
    except LATER as error:
        _log.warning("an eviction is put off", reason=str(error))
