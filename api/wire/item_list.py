"""Turns as Responses items, in pages: what `input_items` and a conversation's items show."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Literal, TypeAlias

import msgspec

from api.problem import Problem
from api.wire.input_items import items_of_input
from api.wire.output import items_of
from api.wire.query import Between, Direction, Order, Parameter
from projections.items import turn_id_of, whole_id
from projections.turn import Turn

LIMIT_DEFAULT = 20
LIMIT_MAX = 100

LIMIT = Between("limit", LIMIT_DEFAULT, LIMIT_MAX, "How many items at most.")
ORDER = Order("desc")
PAGE = (
    LIMIT.parameter,
    ORDER.parameter,
    Parameter("after", "The id of the item behind which to go on.", {"type": "string"}),
)

Shown: TypeAlias = dict[str, Any]  # an item as a client is shown it


class Asked(msgspec.Struct, frozen=True):
    """Which page is asked for: so many items behind the one of the id `after`; empty for the first page."""

    limit: int = LIMIT_DEFAULT
    order: Direction = "desc"
    after: str = ""


class ItemList(msgspec.Struct, kw_only=True):
    """A page of items; its ids are empty where there is no item."""

    object: Literal["list"] = "list"
    data: list[Shown]
    first_id: str
    last_id: str
    has_more: bool


def asked_of(query: Mapping[str, str]) -> Asked:
    """The page that a query asks for; raises `Problem`."""
    return Asked(LIMIT.of(query), ORDER.of(query), query.get("after", ""))


def input_items(turn: Turn) -> list[Shown]:
    """The turn's new input as items, without those that were removed."""
    return _kept(turn, items_of_input(turn.started))


def output_items_of(turn: Turn) -> list[Shown]:
    """What the model said in the turn as items, without those that were removed."""
    return _kept(turn, map(msgspec.to_builtins, items_of(turn)))


def turn_items(turn: Turn) -> list[Shown]:
    """The turn's input and its output."""
    return input_items(turn) + output_items_of(turn)


def item_list(turns: Sequence[Turn], asked: Asked, items_of: Callable[[Turn], list[Shown]] = turn_items) -> ItemList:
    """A page of the items of `turns`, which are given oldest first; raises `Problem` where `after` is none of them.

    Only as many turns as need be are translated.
    """
    ordered = turns if asked.order == "asc" else turns[::-1]
    items = _behind(ordered, asked, items_of) if asked.after else _in_order(ordered, asked, items_of)
    data = list(islice(items, asked.limit + 1))
    page = data[: asked.limit]
    return ItemList(
        data=page,
        first_id=page[0]["id"] if page else "",
        last_id=page[-1]["id"] if page else "",
        has_more=len(data) > len(page),
    )


def _in_order(turns: Iterable[Turn], asked: Asked, items_of: Callable[[Turn], list[Shown]]) -> Iterator[Shown]:
    for turn in turns:
        items = items_of(turn)
        yield from items if asked.order == "asc" else reversed(items)


def _behind_removed(turns: Sequence[Turn], asked: Asked, items_of: Callable[[Turn], list[Shown]]) -> Iterator[Shown]:
    """The items behind where `after` was: whoever takes items out page by page goes on from one that is gone."""
    for place, turn in enumerate(turns):
        if whole_id(asked.after, turn.turn_id) in turn.removed:
            whole = msgspec.structs.replace(turn, removed=())
            items = list(_in_order([whole], asked, items_of))
            ids = [item["id"] for item in items]
            if asked.after in ids:
                behind = _kept(turn, items[ids.index(asked.after) + 1 :])
                return chain(behind, _in_order(turns[place + 1 :], asked, items_of))
    raise Problem(f"No item with id '{asked.after}' is in this list.", param="after", code="invalid_value")


def _behind(turns: Sequence[Turn], asked: Asked, items_of: Callable[[Turn], list[Shown]]) -> Iterator[Shown]:
    """The items behind `after`. Most ids say which turn they are of; one that a client made may be of any."""
    turn_id = turn_id_of(asked.after)
    place = next((place for place, turn in enumerate(turns) if turn.turn_id == turn_id), 0)
    for first in (place, 0):
        items = _in_order(turns[first:], asked, items_of)
        if any(item["id"] == asked.after for item in items):
            return items
    return _behind_removed(turns, asked, items_of)


def _kept(turn: Turn, items: Iterable[Shown]) -> list[Shown]:
    return [item for item in items if whole_id(item["id"], turn.turn_id) not in turn.removed]
