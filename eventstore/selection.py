"""A part of the log: all of it for those who do not page, and what of it is among events that are at hand."""

from collections.abc import AsyncIterator

from eventstore.events import parse_stream, type_name
from eventstore.log import EVENTS_MAX, EventLog, Part, Recorded


async def every(log: EventLog, part: Part, limit: int = EVENTS_MAX) -> AsyncIterator[list[Recorded]]:
    """The part's events up to the head as it is met, in order, `limit` at a time. Raises like `EventLog.select`."""
    while True:
        found = await log.select(part, limit)
        if found.events:
            yield found.events
        if found.is_all:
            return
        part = part._replace(after_position=found.looked_to)


async def last_until(log: EventLog, recorded_us: int) -> int:
    """The last position that was recorded by that time, 0 where none was. Times never fall from one to the next."""
    low, high = 0, log.head().position
    while low < high:
        middle = (low + high + 1) // 2
        if (await log.at((middle,)))[0].recorded_us <= recorded_us:
            low = middle
        else:
            high = middle - 1
    return low


def is_in(part: Part, recorded: Recorded) -> bool:
    """Whether the event is wanted: what `EventLog.select` would say of it."""
    return (
        part.after_position < recorded.position
        and (part.until_position is None or recorded.position <= part.until_position)
        and (not part.tenant or parse_stream(recorded.stream).tenant == part.tenant)
        and (not part.stream or _is_in_stream(part, recorded))
        and (not part.types or type_name(recorded.event) in part.types)
    )


def _is_in_stream(part: Part, recorded: Recorded) -> bool:
    until = recorded.version if part.until_version is None else part.until_version
    return recorded.stream == part.stream and part.after_version < recorded.version <= until
