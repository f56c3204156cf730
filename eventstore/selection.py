"""All of a part of the log, for those who do not page."""

from collections.abc import AsyncIterator

from eventstore.log import EventLog, Part, Recorded


async def every(log: EventLog, part: Part) -> AsyncIterator[list[Recorded]]:
    """The part's events up to the head as it is met, in order, in bounded batches. Raises like `EventLog.select`."""
    while True:
        found = await log.select(part)
        if found.events:
            yield found.events
        if found.is_all:
            return
        part = part._replace(after_position=found.looked_to)
