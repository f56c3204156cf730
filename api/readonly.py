"""A server that only reads: the log and the views as they were at a moment, for whoever looks into what happened."""

import contextlib
from typing import NamedTuple

from msgspec import structs

from api.settings import Settings
from api.wire.recorded import rfc3339
from eventstore.cut import CutLog
from eventstore.log import LogReadOnly
from eventstore.sqlite import SqliteLog
from projections.still import StillViews
from projections.store import ViewsUnusable
from projections.views import VIEWS

# How it is told what would change something, or needs what this server has not.
REFUSED = "This server is read only: it serves the log as of {standing}. Send this to the live server."


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


async def opened(settings: Settings, parts: contextlib.AsyncExitStack) -> tuple[CutLog, StillViews, Standing]:
    """The views in the file that is to be served, and the log up to where they stand. Writes to nothing.

    Raises `LogError`, and `ViewsUnusable` where the file is not of that log.
    """
    assert settings.views is not None  # noqa: S101 (asked by the caller)
    views = await StillViews.open(settings.views, VIEWS)
    parts.push_async_callback(views.stop)
    log = CutLog(await SqliteLog.open_read_only(settings.data), views.head)
    parts.push_async_callback(log.close)
    if await log.hash_at(views.head.position) != views.head.hash:
        raise ViewsUnusable(f"{settings.views} was built from another log than the one in {settings.data}")
    last = await log.at([views.head.position])
    return log, views, Standing(views.head.position, last[0].recorded_us if last else None)
