"""A server that only reads: the log and the views as they were at a moment, for whoever looks into what happened."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import NamedTuple

import structlog
from msgspec import structs

from api.guard import Guard
from api.settings import Settings
from api.wire.recorded import rfc3339
from eventstore.cut import CutLog
from eventstore.events import SessionErased
from eventstore.log import ErasedSince, EventLog, LogError, LogReadOnly, Part, Recorded
from eventstore.sqlite import SqliteLog
from projections.still import StillViews
from projections.store import ViewsUnusable
from projections.views import VIEWS

LOOK_S = 1.0  # between looks for erasures
ERASURES_MAX = 100  # of one look

# How it is told what would change something, or needs what this server has not.
REFUSED = "This server is read only: it serves the log as of {standing}. Send this to the live server."
ERASED = (
    "What this server serves holds what was erased from the log since, at position {position}: delete its file of "
    "views, and make it anew with 'turnlog replay --into'."
)

_log = structlog.get_logger()


class Standing(NamedTuple):
    """The moment that is served: a position of the log, and when the event there was recorded (None: there is none)."""

    position: int
    recorded_us: int | None

    def __str__(self) -> str:
        time = rfc3339(self.recorded_us) if self.recorded_us else "before the first event"
        return f"position {self.position} ({time})"

    def refuse(self) -> None:
        """Raise `LogReadOnly`, with a sentence for the client."""
        raise LogReadOnly(REFUSED.format(standing=self))


def lasting(settings: Settings) -> Settings:
    """The settings, with which nothing is left out for its age or number: what could be read then can be read now."""
    return structs.replace(settings, responses_max=0, response_ttl_s=0.0)


class Erasures:
    """The erasures that are recorded behind the position `last`, of what had been recorded by then."""

    def __init__(self, log: EventLog, last: int) -> None:
        self._log = log
        self._last = last
        self._part = Part(after_position=last, types=frozenset({SessionErased.__name__}))

    async def news(self) -> list[Recorded]:
        """Those that were not met yet; raises `LogError`."""
        found: list[Recorded] = []
        is_all = False
        while not is_all:
            selected = await self._log.select(self._part, ERASURES_MAX)
            found += [recorded for recorded in selected.events if self._concerns(recorded)]
            self._part = self._part._replace(after_position=selected.looked_to)
            is_all = selected.is_all
        return found

    def _concerns(self, recorded: Recorded) -> bool:
        event = recorded.event
        return isinstance(event, SessionErased) and any(first <= self._last for first, _ in event.ranges)


async def opened(
    settings: Settings, parts: contextlib.AsyncExitStack, guard: Guard
) -> tuple[CutLog, StillViews, Standing]:
    """The views in the file that is to be served, and the log up to where they stand. Writes to nothing.

    Once some of that is erased, the guard shuts every route. Raises `LogError`, and `ViewsUnusable` where the file is
    not of that log, or holds what was erased since.
    """
    assert settings.views is not None  # noqa: S101 (asked by the caller)
    views = await StillViews.open(settings.views, VIEWS)
    parts.push_async_callback(views.stop)
    whole = await SqliteLog.open_read_only(settings.data)
    parts.push_async_callback(whole.close)
    position = views.head.position
    if await whole.hash_at(position) != views.head.hash:
        raise ViewsUnusable(f"{settings.views} was built from another log than the one in {settings.data}")
    erasures = Erasures(whole, position)
    for erased in await erasures.news():
        if await views.knows(erased.stream):
            raise ViewsUnusable(
                f"{settings.views} holds what was erased since, at position {erased.position}: delete it, and make it "
                "anew with 'turnlog replay --into'"
            )
    await parts.enter_async_context(_watching(erasures, guard))
    last = await whole.at([position])
    return CutLog(whole, views.head), views, Standing(position, last[0].recorded_us if last else None)


@contextlib.asynccontextmanager
async def _watching(erasures: Erasures, guard: Guard) -> AsyncIterator[None]:
    watching = asyncio.create_task(_watch(erasures, guard), name="looking for erasures")
    try:
        yield
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def _watch(erasures: Erasures, guard: Guard) -> None:
    """What is kept in memory, and in the file, was read before: nothing of either is served once some is erased."""
    while True:
        await asyncio.sleep(LOOK_S)
        try:
            if found := await erasures.news():
                return guard.shut(ErasedSince(ERASED.format(position=found[0].position)))
        except LogError as error:
            _log.error("can not look for erasures", reason=str(error))
