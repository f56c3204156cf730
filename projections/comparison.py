"""Views compared with the same views built anew: two files, row by row, side by side in the order of their keys."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from projections.snapshot import Row, Snapshot, Table
from projections.store import ViewsUnusable
from projections.view import View

DIFFERENCES_MAX = 20  # shown of a view


class Difference(NamedTuple):
    """A row of one side whose twin on the other is another, or is not there (None)."""

    table: Table
    live: Row | None
    rebuilt: Row | None


class Comparison(NamedTuple):
    """How many rows a view has, how many differ, and the first of those."""

    view: str
    rows: int
    differing: int
    shown: tuple[Difference, ...]


def compare(view: View, live: Snapshot, rebuilt: Snapshot) -> Comparison:
    """What differs in all tables of a view; raises `ViewsUnusable` where one of them can not be read."""
    rows = differing = 0
    shown: list[Difference] = []
    for ours, theirs in zip(live.tables(view), rebuilt.tables(view), strict=True):
        if ours != theirs:
            raise ViewsUnusable(f"the table {theirs.name} is not as this turnlog makes it: run 'turnlog replay'")
        for one, other in _side_by_side(ours, live.rows_of(ours), rebuilt.rows_of(ours)):
            rows += 1
            if one != other:
                differing += 1
                if len(shown) < DIFFERENCES_MAX:
                    shown.append(Difference(ours, one, other))
    return Comparison(view.name, rows, differing, tuple(shown))


def _side_by_side(table: Table, live: Iterable[Row], rebuilt: Iterable[Row]) -> Iterator[tuple[Row | None, Row | None]]:
    """The rows of both sides, each with the one of the same key."""
    ours, theirs = iter(live), iter(rebuilt)
    one, other = next(ours, None), next(theirs, None)
    while one is not None or other is not None:
        order = 0 if one == other else _order(table, one, other)
        yield one if order <= 0 else None, other if order >= 0 else None
        if order <= 0:
            one = next(ours, None)
        if order >= 0:
            other = next(theirs, None)


def _order(table: Table, one: Row | None, other: Row | None) -> int:
    if one is None or other is None:
        return 1 if one is None else -1
    ours, theirs = ([_rank(row[key]) for key in table.keys] for row in (one, other))
    return (ours > theirs) - (ours < theirs)


def _rank(value: object) -> tuple[int, object]:
    """As SQLite orders values: none before numbers before texts before bytes."""
    kinds: tuple[type | tuple[type, ...], ...] = (type(None), (int, float), str, bytes)
    rank = next(number for number, kind in enumerate(kinds) if isinstance(value, kind))
    return rank, 0 if value is None else value


def told(difference: Difference) -> Iterator[str]:
    """A row that differs, as lines: `-` what the live views hold, `+` what the log gives; of two, only what differs."""
    table, live, rebuilt = difference
    for sign, row, other in (("-", live, rebuilt), ("+", rebuilt, live)):
        if row is None:
            continue
        cells = [
            f"{column}={row[number]!r}"
            for number, column in enumerate(table.columns)
            if other is None or number in table.keys or row[number] != other[number]
        ]
        yield f"{sign} {table.name}: {' '.join(cells)}"
