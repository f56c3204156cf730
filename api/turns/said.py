"""Turns that were found, read from the log: what an index of words leads to."""

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from eventstore.events import ItemsAdded, TurnCancelled, TurnCompleted, TurnFailed, TurnStarted
from eventstore.log import EventLog, Recorded
from projections.turn import Turn, added


class Index(Protocol):
    """Searches the views."""

    async def search(self, sql: str, parameters: Sequence[object], position: int | None = None) -> list[Any]:
        """The rows that `sql` finds, once the views have got to that position; by default to the head of the log."""
        ...


class Found(Turn, gc=False, kw_only=True):
    """A completed turn, the stream it is in, and its position in the log, which is that of its end."""

    stream: str
    position: int


async def turns_at(log: EventLog, places: Iterable[tuple[int, int]]) -> list[Found]:
    """The turns whose ends and starts are at those positions, in the order asked for; raises `LogError`."""
    asked = list(places)
    events = {recorded.position: recorded for recorded in await log.at([place for pair in asked for place in pair])}
    return [_turn(events[start], events[end]) for end, start in asked]


def _turn(start: Recorded, end: Recorded) -> Found:
    if isinstance(start.event, ItemsAdded):
        turn = added(start.event, start.recorded_us)
        started, ended = turn.started, turn.ended
    else:
        assert isinstance(start.event, TurnStarted)  # noqa: S101 (the view has the positions from just these events)
        assert isinstance(end.event, TurnCompleted | TurnFailed | TurnCancelled)  # noqa: S101
        started, ended = start.event, end.event
    return Found(
        started=started,
        started_us=start.recorded_us,
        ended=ended,
        ended_us=end.recorded_us,
        stream=start.stream,
        position=end.position,
    )
