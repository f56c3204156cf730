"""Erasing: what was said in sessions is taken out of the log, the views and the memory for good, and that is recorded.

Theory of operation. The log itself tells what is meant (`erasure_scope.py`). Every lineage that is meant is deleted
first, with the names that lead to it and what is queued for it; then one transaction of the log records a
`SessionErased` for each and replaces what their events hold by digests. What has happened meanwhile in one of the
streams is met as a conflict, and all is decided anew. Behind that, nothing serves the content any more; what is left is
to have no file hold it: the views are built anew, the log's file is written anew. A crash in between is finished by the
next start.
"""

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import structlog

from api.turns import decide_session, erasure_scope
from api.turns.background_responses import BackgroundResponses
from api.turns.desk import Desk
from api.turns.erasure_scope import Attached, Lineage, Meant, Selection
from api.turns.feed import Feed
from api.turns.lineages import CONFLICTS_MAX, Lineages
from api.turns.moments import Moments
from api.turns.refusals import LineageBusy, NothingToErase, SessionNotFound
from api.turns.service import Turns
from eventstore.events import (
    ConversationDeleted,
    SessionErased,
    conversation_stream,
    lineage_stream,
    queue_stream,
)
from eventstore.log import ErasableLog, Erasure, NotPurged, Recorded, VersionConflict
from projections import leftovers
from projections.runner import ViewsUnavailable
from projections.store import ViewsUnusable

_log = structlog.get_logger()


class Rebuilt(Protocol):
    """Views that can be built anew."""

    async def rebuild(self) -> None:
        """Build them anew from the log, and leave nothing of the old ones."""
        ...


class Live(NamedTuple):
    """What a server that takes turns has to do with what is erased."""

    turns: Turns
    desk: Desk
    responses: BackgroundResponses
    moments: Moments
    feed: Feed


class Order(NamedTuple):
    """Whose words a tenant wants erased; `by` whom and `why`, for the record."""

    tenant: str
    selection: Selection
    by: str
    why: str = ""


class Scope(NamedTuple):
    """What a selection comes to: lineages, and what is attached to them."""

    tenant: str
    lineages: list[Lineage]
    attached: Attached


class ErasedLineage(NamedTuple):
    """The root of a lineage that was erased, empty where a turn was queued and never began; the ids of its sessions,
    and how many events lost their content.
    """

    root_id: str
    session_ids: tuple[str, ...]
    events: int


class Erasures:
    """The erasures of all tenants, one after the other. Without `live`, nobody takes turns in this process."""

    def __init__(
        self, log: ErasableLog, lineages: Lineages, views: Rebuilt, views_path: Path, live: Live | None = None
    ) -> None:
        self._log = log
        self._lineages = lineages
        self._views = views
        self._views_path = views_path
        self._live = live
        self._one_by_one = asyncio.Lock()
        self._tasks: set[asyncio.Task[list[ErasedLineage]]] = set()

    async def erase(self, order: Order) -> list[ErasedLineage]:
        """Erase what is meant, and tell what that was. Goes on where its caller does not.

        Raises `NothingToErase`, `LineageBusy`, `NotPurged` where only the files are left to be seen to, `LogError`.
        """
        task = asyncio.create_task(self._in_turn(order), name="erasing")
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Task[list[ErasedLineage]]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or isinstance(error := task.exception(), NothingToErase):
            return  # what nothing was found of is named in that: it belongs into no log line
        if error:  # whoever asked may be gone
            _log.warning("an erasure came to nothing, or is not over", reason=str(error))

    async def stop(self) -> None:
        """Leave what goes on to the next start."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def scope(self, tenant: str, selection: Selection) -> Scope:
        """What is meant, found by reading the log; raises `NothingToErase`."""
        meant = Meant(tenant, selection)
        async for batch in self._log.read_all():
            for recorded in batch:
                meant.take(recorded)
        if not (meant.roots or meant.queued):
            raise NothingToErase(f"Nothing to erase: no content of {selection} is recorded, or none any more.")
        lineages = [Lineage(root, await self._log.read(lineage_stream(tenant, root))) for root in meant.roots]
        attached = Attached(tenant, lineages, meant.queued)
        async for batch in self._log.read_all():
            for recorded in batch:
                attached.take(recorded)
        return Scope(tenant, lineages, attached)

    async def _in_turn(self, order: Order) -> list[ErasedLineage]:
        async with self._one_by_one:
            try:
                erased = await self._erase(order)
            except NothingToErase:
                if self._log.is_erasing:
                    await self._purge()  # an earlier one is not over
                raise
            await self._purge()
            return erased

    async def _erase(self, order: Order) -> list[ErasedLineage]:
        if self._live:
            await self._live.turns.record_late()
        scope = await self.scope(order.tenant, order.selection)
        for _ in range(CONFLICTS_MAX):
            try:
                await self._end(scope)
                plan = _Plan(self._log, scope, order)
                erasures, unchanged = await plan.made()
                self._lineages.sessions.forget_all()  # who summarises what they hold records nothing of it from now on
                await self._log.erase(erasures, unchanged)
            except (VersionConflict, SessionNotFound):
                continue  # somebody was first: see what there is now
            self._lineages.sessions.forget_all()
            if self._live:
                self._live.moments.forget()
                self._live.feed.forget()
            _log.warning("erased", lineages=len(plan.erased), events=sum(found.events for found in plan.erased))
            return plan.erased
        raise LineageBusy("too many others write to what is to be erased: try again in a moment")

    async def _end(self, scope: Scope) -> None:
        """Nothing goes on in the lineages, and no name leads to them; raises `VersionConflict`."""
        for turn_id in scope.attached.queued:
            if self._live:
                await self._live.responses.drop(scope.tenant, turn_id)
        for name, root_ids in scope.attached.conversations.items():
            stream = conversation_stream(scope.tenant, name)
            events = await self._log.read(stream)
            if erasure_scope.leads_to(events) in root_ids:
                await self._log.append(stream, len(events), (ConversationDeleted(),))
                self._lineages.directory.forget_conversation(scope.tenant, name)
        for lineage in scope.lineages:
            session = await self._lineages.sessions.get(lineage_stream(scope.tenant, lineage.root_id))
            await self._lineages.sessions.catch_up(session)
            if session.started and self._live:
                await self._live.desk.delete_lineage(session)
            elif session.started:
                await self._lineages.commit(session, decide_session.delete)

    async def _purge(self) -> None:
        """Have no file hold what was erased; raises `NotPurged`."""
        try:
            await self._views.rebuild()
            leftovers.sweep(self._views_path)
        except (OSError, ViewsUnavailable, ViewsUnusable) as error:
            raise NotPurged(
                f"erased in the log, but not yet from the views, which the next start sees to: {error}"
            ) from error
        finally:
            await self._log.purge()
        self._log.erasing_is_over()
        _log.info("what was erased is in no file any more")


async def finish(log: ErasableLog, views_path: Path) -> None:
    """Finish what a process that is gone has left of an erasure, before the views are opened: they are built anew."""
    if not log.is_erasing:
        return
    _log.warning("an erasure was cut short: finishing it")
    leftovers.drop(views_path)
    try:
        await log.purge()
    except NotPurged as error:
        _log.error("an erasure is not over", reason=str(error))  # the next start, or erasure, tries again
    else:
        log.erasing_is_over()


class _Plan:
    """What exactly is erased, as the streams are now."""

    def __init__(self, log: ErasableLog, scope: Scope, order: Order) -> None:
        self._log = log
        self._scope = scope
        self._order = order
        self._unchanged: dict[str, int] = {}
        self._queued: defaultdict[str, list[str]] = defaultdict(list)
        for turn_id, root_id in scope.attached.queued.items():
            self._queued[root_id].append(turn_id)
        self.erased: list[ErasedLineage] = []

    async def made(self) -> tuple[list[Erasure], dict[str, int]]:
        """The facts to be recorded, and the streams that must be as they were read. Raises `NothingToErase`, and
        `VersionConflict` where a lineage has begun again.
        """
        erasures = [await self._of_lineage(lineage.root_id) for lineage in self._scope.lineages]
        for turn_id in self._queued[""]:
            stream = queue_stream(self._scope.tenant, turn_id)
            events = await self._read(stream)
            erasures.append(self._fact(stream, len(events), erasure_scope.held(events), ()))
        found = [erasure for erasure in erasures if erasure]
        for erasure in found:
            self._unchanged.pop(erasure.stream, None)
        if not found:
            raise NothingToErase("Nothing to erase: it has been erased meanwhile.")
        return found, self._unchanged

    async def _of_lineage(self, root_id: str) -> Erasure | None:
        tenant, attached = self._scope.tenant, self._scope.attached
        stream = lineage_stream(tenant, root_id)
        events = await self._log.read(stream)
        if erasure_scope.is_alive(events):
            raise VersionConflict(stream, len(events), len(events))
        lineage = Lineage(root_id, events)
        positions = lineage.positions
        for name in attached.named(root_id):
            positions += erasure_scope.named(await self._read(conversation_stream(tenant, name)), root_id)
        for turn_id in self._queued[root_id]:
            positions += erasure_scope.held(await self._read(queue_stream(tenant, turn_id)))
        return self._fact(stream, lineage.version, positions, tuple(lineage.session_ids))

    async def _read(self, stream: str) -> Sequence[Recorded]:
        events = await self._log.read(stream)
        self._unchanged[stream] = len(events)
        return events

    def _fact(
        self, stream: str, version: int, positions: Sequence[int], session_ids: tuple[str, ...]
    ) -> Erasure | None:
        if not positions:
            return None
        ranges = erasure_scope.ranges(positions)
        self.erased.append(ErasedLineage(session_ids[0] if session_ids else "", session_ids, len(positions)))
        return Erasure(stream, version, SessionErased(ranges=ranges, by=self._order.by, why=self._order.why))
