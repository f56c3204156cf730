"""An item that is taken out of a transcript: what is left of its turn, and of what rotations kept of it."""

from collections.abc import Iterable

import msgspec

from eventstore.events import ItemRemoved, TurnCompleted
from projections.generation import ERASED
from projections.items import Identified, without
from projections.turn import Turn


class Removal:
    """One `ItemRemoved`. `turns` are all those that are known, oldest first, and are asked for in that order.

    No client resends a transcript that lacks something: the turn and those behind it lose their history's digest.
    """

    def __init__(self, event: ItemRemoved, turns: Iterable[Turn]) -> None:
        self._event = event
        self._is_behind = all(turn.turn_id != event.turn_id for turn in turns)
        self._left: dict[int, Turn] = {}

    def left_of(self, turn: Turn) -> Turn:
        """What takes the turn's place."""
        left, ended = turn, turn.ended
        if turn.turn_id == self._event.turn_id:
            self._is_behind = True
            left = msgspec.structs.replace(turn, removed=(*turn.removed, self._event.item_id))
        if self._is_behind and isinstance(ended, TurnCompleted) and ended.history_digest:
            left = msgspec.structs.replace(left, ended=msgspec.structs.replace(ended, history_digest=b""))
        self._left[id(turn)] = left
        return left

    def left_of_newest(self, newest: Turn) -> Turn:
        """The same of the newest, which may be behind a rotation, and is asked for last."""
        self._is_behind = True
        return self._left.get(id(newest)) or self.left_of(newest)

    def told(self, base: tuple[Identified, ...]) -> tuple[Identified, ...]:
        """What is left of a base, as the fact says it."""
        place, rest, item_id = self._event.base, self._event.rest, self._event.item_id
        if rest and base[place : place + 1] == (ERASED,):
            return base
        ids = base[place][1] if rest and place < len(base) else None
        left = ((rest, ids.without(item_id)),) if ids else ()
        return (*base[:place], *left, *base[place + 1 :])

    def known(self, base: tuple[Identified, ...]) -> tuple[Identified, ...]:
        """What is left of a base, by the ids of its messages."""
        turn_id, item_id = self._event.turn_id, self._event.item_id
        kept = ((message if message[1].turn_id != turn_id else without(message, item_id)) for message in base)
        return tuple(message for message in kept if message)
