"""What a session of a lineage is made of: what it began with, and its turns."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple

import msgspec

from eventstore.events import CompressionRotated, TurnCompleted
from projections.items import NO_ITEM, Identified
from projections.turn import Turn


class Inherited(NamedTuple):
    """What a fork begins with: a base of messages with their ids, the turns behind it, and what was said before those.

    `earlier` is only known to a fold that keeps the past: turns whose messages the base stands for.
    """

    base: tuple[Identified, ...] = ()
    turns: tuple[Turn, ...] = ()
    earlier: tuple[Turn, ...] = ()

    @property
    def messages(self) -> int:
        """How many messages the inherited transcript has."""
        return len(self.base) + sum(len(turn.messages) for turn in self.turns)


NOTHING = Inherited()

# Stands where an inherited message was, until it was erased: it is never said, and still counted.
ERASED: Identified = (b"", NO_ITEM)


def erased(messages: int) -> Inherited:
    """What is left for a fork of what it inherited: nothing, where so many messages were."""
    return Inherited((ERASED,) * messages)


class Generation(msgspec.Struct, gc=False):
    """One session of a lineage: its base, its turns, inherited ones first, and how it ended.

    The `base` are the messages that it begins with, each with the ids of its items.
    """

    session_id: str
    started_us: int
    base: tuple[Identified, ...]
    inherited: tuple[Turn, ...]
    turns: list[Turn]
    rotated: CompressionRotated | None = None
    rotated_us: int = 0

    @property
    def said_base(self) -> list[bytes]:
        """The messages of its base that are still there."""
        return [data for data, _ in self.base if data]

    def counted(self, head: int, tail: int) -> tuple[int, int]:
        """The first and last messages of those that are still there, counted with those that are not."""
        if ERASED not in self.base:
            return head, tail
        is_there = [bool(data) for data, _ in self.base]
        is_there += [True] * sum(len(turn.messages) for turn in self.transcript_turns)
        places = [place for place, is_said in enumerate(is_there) if is_said]
        first = places[head - 1] + 1 if head else 0
        return first, len(is_there) - places[-tail] if tail else 0

    @property
    def transcript_turns(self) -> list[Turn]:
        """The turns that are part of the transcript, inherited ones first."""
        return [*self.inherited, *(turn for turn in self.turns if isinstance(turn.ended, TurnCompleted))]

    def first(self, count: int) -> Iterator[Identified]:
        """The first messages of its transcript, with the ids of their items."""
        turns = (message for turn in self.transcript_turns for message in turn.identified)
        return islice(chain(self.base, turns), count)

    def last(self, count: int) -> Sequence[Identified]:
        """The last ones."""
        last: list[Identified] = []
        for turn in reversed(self.transcript_turns):
            if len(last) >= count:
                break
            last[:0] = turn.identified
        last[:0] = self.base if len(last) < count else ()
        return last[max(0, len(last) - count) :]
