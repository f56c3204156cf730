"""An output item that is being streamed: what its growth means as events."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import msgspec

from api.wire.items import (
    CustomToolCallItem,
    FunctionCallItem,
    Item,
    MessageItem,
    OutputText,
    ReasoningItem,
    ReasoningText,
    Refusal,
    SummaryText,
    status_of,
)

Text: TypeAlias = OutputText | Refusal | ReasoningText | SummaryText


class Event(Protocol):
    """Makes the frame of an event: its kind, where it happened, and what."""

    def __call__(self, kind: str, place: Mapping[str, Any], /, **fields: Any) -> bytes: ...


class Part(msgspec.Struct):
    """A part of an item that grows: the pieces of its text, and its place as its events have it."""

    key: object
    part: Text
    place: dict[str, Any]
    pieces: list[str] = []

    @property
    def is_summary(self) -> bool:
        """Whether it stands in the item's summary, and not in its content."""
        return isinstance(self.part, SummaryText)


class OpenItem:
    """An item that has begun. Methods return the frames of what happened; `event` makes and numbers them."""

    __slots__ = (
        "_counts",
        "_current",
        "_event",
        "_index",
        "_input",
        "_parts",
        "_place",
        "is_done",
        "item",
        "originals",
    )

    def __init__(self, item: Item, output_index: int, event: Event) -> None:
        self.item = item
        self.originals: list[Any] = []  # a Responses server's own reasoning item
        self.is_done = False
        self._current: Part | None = None
        self._event = event
        self._index = {"output_index": output_index}
        self._place = {"item_id": item.id, **self._index}
        self._parts: list[Part] = []
        self._counts: dict[str, int] = {}
        self._input: list[str] = []

    def begin(self) -> bytes:
        """The item is there, with nothing in it."""
        self.item.status = "in_progress"
        return self._event("response.output_item.added", self._index, item=self.item)

    def at(self, key: object, new: Callable[[], Text]) -> tuple[bytes, Part]:
        """The part that the model is saying, where it is that of the key; else that is done, and a new one begins."""
        current = self._current
        if current and current.key == key:
            return b"", current
        frames = self._close_part(current) if current else b""
        part = new()
        index = "summary_index" if isinstance(part, SummaryText) else "content_index"
        number = self._counts.get(index, 0)
        self._counts[index] = number + 1
        self._current = current = Part(key, part, {**self._place, index: number})
        self._parts.append(current)
        kind = "reasoning_summary_part" if current.is_summary else "content_part"
        return frames + self._event(f"response.{kind}.added", current.place, part=part), current

    def grow(self, growing: Part, delta: str) -> bytes:
        """More of a part."""
        if not delta:
            return b""
        growing.pieces.append(delta)
        return self._event(f"response.{_name(growing)}.delta", growing.place, delta=delta)

    def grow_text(self, growing: Part, delta: str, logprobs: Sequence[Any]) -> bytes:
        """More of the part that is the message's text."""
        growing.pieces.append(delta)
        if logprobs and isinstance(growing.part, OutputText):
            growing.part.logprobs.extend(logprobs)
        return self._event("response.output_text.delta", growing.place, delta=delta, logprobs=logprobs)

    def grow_input(self, delta: str) -> bytes:
        """More of what a tool is called with."""
        if not delta:
            return b""
        self._input.append(delta)
        kind = "custom_tool_call_input" if isinstance(self.item, CustomToolCallItem) else "function_call_arguments"
        return self._event(f"response.{kind}.delta", self._place, delta=delta)

    def annotate(self, growing: Part, annotation: Any) -> bytes:
        """A text is annotated, at whatever time that comes."""
        part = growing.part
        assert isinstance(part, OutputText)  # noqa: S101 (only that is annotated)
        place = {**growing.place, "annotation_index": len(part.annotations)}
        part.annotations.append(annotation)
        return self._event("response.output_text.annotation.added", place, annotation=annotation)

    def leave(self) -> bytes:
        """The model moves on to another item: this one is done, unless more of it may come."""
        may_grow = isinstance(self.item, CustomToolCallItem) or (
            isinstance(self.item, FunctionCallItem) and not self._is_whole(self.item)
        )
        return b"" if may_grow else self.close("completed", is_last=False)

    def _is_whole(self, item: FunctionCallItem) -> bool:
        if not (self._input and self._input[-1].rstrip().endswith("}")):
            return False  # without a look at all of it, each time the model moves on
        self._take_input()
        return item.is_whole

    def close(self, status: str, *, is_last: bool) -> bytes:
        """The item is done, in an answer that ended with `status`; the last one is what was being said then."""
        item = self.item
        frames = self._close_part(self._current) if self._current else b""
        self._take_input()
        match item:
            case MessageItem():
                item.content = self._texts(is_summary=False)
            case ReasoningItem():
                item.content, item.summary = self._texts(is_summary=False), self._texts(is_summary=True)
                item.complete_from(self.originals)
            case FunctionCallItem():
                done = {"name": item.name, "arguments": item.arguments}
                frames = self._event("response.function_call_arguments.done", self._place, **done)
            case CustomToolCallItem():
                frames = self._event("response.custom_tool_call_input.done", self._place, input=item.input)
        item.status = status_of(item, status, is_last=is_last)
        self.is_done = True
        return frames + self._event("response.output_item.done", self._index, item=item)

    def _take_input(self) -> None:
        if isinstance(self.item, FunctionCallItem):
            self.item.arguments = "".join(self._input)
        elif isinstance(self.item, CustomToolCallItem):
            self.item.input = "".join(self._input)

    def _texts(self, *, is_summary: bool) -> list[Any]:
        return [growing.part for growing in self._parts if growing.is_summary == is_summary]

    def _close_part(self, growing: Part) -> bytes:
        part, text, place = growing.part, "".join(growing.pieces), growing.place
        said: dict[str, Any]
        if isinstance(part, Refusal):
            part.refusal = text
            said = {"refusal": text}
        else:
            part.text = text
            said = {"text": text} | ({"logprobs": part.logprobs} if isinstance(part, OutputText) else {})
        kind = "reasoning_summary_part" if growing.is_summary else "content_part"
        done = self._event(f"response.{_name(growing)}.done", place, **said)
        return done + self._event(f"response.{kind}.done", place, part=part)


def _name(growing: Part) -> str:
    return "reasoning_summary_text" if growing.is_summary else growing.part.type
