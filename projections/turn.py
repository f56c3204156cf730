"""One turn, folded: how it began, and how it ended."""

from collections.abc import Collection
from typing import Literal, TypeAlias

import msgspec

from eventstore.events import (
    EvictReason,
    ItemsAdded,
    TurnCancelled,
    TurnCompleted,
    TurnFailed,
    TurnRestarted,
    TurnStarted,
)
from projections.items import Identified, identified, without
from projections.messages import input_messages, unpacked_bytes

Ended: TypeAlias = TurnCompleted | TurnFailed | TurnCancelled
Status: TypeAlias = Literal["in_progress", "completed", "incomplete", "failed", "cancelled"]

_TURN_OVERHEAD_BYTES = 900  # of the objects around a turn's content, measured


class Turn(msgspec.Struct, gc=False):
    """One turn: how it began, how it ended, and whether its response is still addressable.

    `annotated` are its client's newest notes, empty where those of the request hold. `removed` are the ids of the items
    that were taken out of it. Items that were `added` are a turn that no model was asked for.
    """

    started: TurnStarted
    started_us: int
    ended: Ended | None = None
    ended_us: int = 0
    evicted: EvictReason | None = None
    restarted: TurnRestarted | None = None
    restarted_us: int = 0
    annotated: bytes = b""
    removed: Collection[str] = ()
    is_added: bool = False

    @property
    def turn_id(self) -> str:
        return self.started.turn_id

    @property
    def owner(self) -> str:
        """Who works on the turn, or worked on it last."""
        return (self.restarted or self.started).owner

    @property
    def expires_us(self) -> int:
        """When the lock that the open turn is runs out, microseconds UTC."""
        began_us = self.restarted_us or self.started_us
        return began_us + (self.restarted or self.started).lease_ms * 1_000

    @property
    def status(self) -> Status:
        """As OpenAI names it; a turn cut short by a limit or a filter is incomplete, and part of the transcript."""
        match self.ended:
            case None:
                return "in_progress"
            case TurnCompleted(finish_reason="length" | "content_filter"):
                return "incomplete"
            case TurnCompleted():
                return "completed"
            case TurnFailed():
                return "failed"
            case TurnCancelled():
                return "cancelled"

    @property
    def messages(self) -> tuple[bytes, ...]:
        """Input and output as chat messages, each the bytes of one JSON object."""
        if self.removed:
            return tuple(message for message, _ in self.identified)
        return input_messages(self.started) + (self.ended.output if self.ended else ())

    @property
    def identified(self) -> list[Identified]:
        """The same, each with the ids of its items."""
        messages = identified(self.started, self.ended.output if self.ended else ())
        for item_id in self.removed:
            messages = [left for message in messages if (left := without(message, item_id))]
        return messages

    @property
    def weight_bytes(self) -> int:
        """About how much memory the turn takes, with what compactions are unpacked to."""
        content = sum(map(len, self.started.items)) + sum(map(len, self.started.instructions))
        if self.started.api == "responses":
            content += unpacked_bytes(self.started.items)
        output = sum(map(len, self.ended.output)) if self.ended else 0
        return _TURN_OVERHEAD_BYTES + content + output + len(self.started.parameters)


def added(event: ItemsAdded, now_us: int, model: str = "") -> Turn:
    """Items that were added, as the turn of their own that they are; `model` is that of the turn before."""
    started = TurnStarted(turn_id=event.turn_id, api="responses", model=model, items=event.items, owner="", lease_ms=0)
    ended = TurnCompleted(turn_id=event.turn_id, output=(), finish_reason="stop")
    return Turn(started, now_us, ended, now_us, is_added=True)
