"""Where the events of a part of the log stand, found in windows that hold the reading connection for milliseconds only.

A part of a stream is looked through by versions, which are indexed; any other by positions, as the table lies. What is
found are positions and lengths: the events are read, and checked, by those who know how.
"""

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from eventstore import schema
from eventstore.log import Part

WINDOW = 20_000  # versions or positions that one statement goes through
LOOKED_MAX = 200_000  # of them, in one look

Fetch: TypeAlias = Callable[[str, Sequence[object]], Awaitable[Sequence[Any]]]


class Found(NamedTuple):
    """Positions, in order; see `Selected` for the rest."""

    positions: list[int]
    looked_to: int
    is_all: bool


class _Way(NamedTuple):
    """What is gone through, window by window: numbers after `first` up to `last`. `sql` begins with `given`."""

    first: int
    last: int
    sql: str
    given: tuple[object, ...] = ()


async def find(fetch: Fetch, part: Part, newest: int, limit: int, bytes_max: int) -> Found:
    """Where the first `limit` events of the part stand, of those up to `newest`; fewer, where they hold more."""
    until = newest if part.until_position is None else min(part.until_position, newest)
    way = await _through_stream(fetch, part, until) if part.stream else _through_log(part, until)
    found: list[int] = []
    bytes_left = bytes_max
    edge, stop = way.first, min(way.last, way.first + LOOKED_MAX)
    while edge < stop:
        end = min(edge + WINDOW, stop)
        # One more than is wanted tells that there is more.
        rows = await fetch(way.sql, (*way.given, edge, end, *_filters(part)[1], limit - len(found) + 1))
        for position, length in rows:
            if len(found) == limit or (found and length > bytes_left):
                return Found(found, found[-1], is_all=False)
            found.append(position)
            bytes_left -= length
        edge = end
    if stop < way.last:
        looked_to = await _position_of(fetch, part.stream, stop) if part.stream else stop
        return Found(found, looked_to, is_all=False)
    return Found(found, max(until, part.after_position), is_all=True)


def _filters(part: Part) -> tuple[str, list[object]]:
    sql, values = "", list[object]()
    if part.tenant:
        sql += schema.OF_TENANT
        values += (len(part.tenant) + 1, f"{part.tenant}/")
    if part.types:
        sql += schema.OF_TYPES
        values.append(json.dumps(sorted(part.types)))
    return sql, values


def _through_log(part: Part, until: int) -> _Way:
    return _Way(part.after_position, until, schema.PLACES_IN_LOG + _filters(part)[0] + schema.BY_POSITION)


async def _through_stream(fetch: Fetch, part: Part, until: int) -> _Way:
    """In a stream positions rise with the versions: a part by positions is one by versions."""
    stream = part.stream
    last: int = (await fetch(schema.LAST_VERSION, (stream,)))[0][0] or 0
    if part.until_version is not None:
        last = min(last, part.until_version)
    first = max(part.after_version, await _version_at(fetch, stream, part.after_position, last))
    last = await _version_at(fetch, stream, until, last)
    sql = schema.PLACES_IN_STREAM + _filters(part)[0] + schema.BY_VERSION
    return _Way(first, last, sql, (stream,))


async def _version_at(fetch: Fetch, stream: str, position: int, last: int) -> int:
    """The newest version, of those up to `last`, that the stream had at that position; 0 where it had none."""
    if position <= 0:
        return 0
    low, high = 0, last
    while low < high:
        middle = (low + high + 1) // 2
        if await _position_of(fetch, stream, middle) <= position:
            low = middle
        else:
            high = middle - 1
    return low


async def _position_of(fetch: Fetch, stream: str, version: int) -> int:
    """Where the version stands; where it was taken out of the table, whoever reads its neighbours meets that."""
    rows = await fetch(schema.POSITION_OF, (stream, version))
    return int(rows[0][0]) if rows else 0
