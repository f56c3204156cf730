"""The items of an answer, assembled from its pieces: while they come, and from the record of them ever after.

An item begins with its first piece, and is done as the model moves on to another. A model that goes back to text or to
thought begins another item; only calls go on where they were, since several may come interleaved: a function call is
done when the model moves on and its arguments are whole, a custom tool's with the end of the answer.

Pieces are tidy (`api/models/tidy.py`), and those of a recorded turn are those that came live: so the items are the
same, and what is told of them is, byte for byte.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from api.models.model import Choice
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
    annotations_of,
    string_of,
)
from api.wire.open_item import Event, OpenItem, Part
from projections.items import call_item_id, message_id, reasoning_id


class Assembly:
    """Takes in the pieces of one answer. Methods return the frames of what happened, which `event` makes."""

    def __init__(self, turn_id: str, event: Event) -> None:
        self._turn_id = turn_id
        self._event = event
        self._items: list[OpenItem] = []
        self._calls: dict[int, OpenItem] = {}
        self._counts: dict[type[Item], int] = {}
        self._summaries: set[int] = set()
        self._current: OpenItem | None = None
        self._text: tuple[OpenItem, Part] | None = None  # the newest, which is what annotations are about
        self._is_saying = False  # more of that text
        self._thought = ""  # the field in which the model thinks: what another says is the same again
        self._annotations: list[Any] = []  # that came before any text
        self._logprobs: list[Any] = []  # that came without a text

    @property
    def items(self) -> list[Item]:
        """All that have begun."""
        return [opened.item for opened in self._items]

    def add(self, choice: Choice) -> bytes:
        """The next piece of the answer."""
        if choice.logprobs:
            self._logprobs += choice.logprobs.get("content") or ()
        elif self._is_saying and self._text and len(choice.delta) == 1 and not self._logprobs:
            text = choice.delta.get("content")
            if text:  # more of the same, by the shortest way
                opened, part = self._text
                return opened.grow_text(part, text, ())
        return b"".join([self._said(name, value) for name, value in choice.delta.items() if value])

    def close(self, status: str) -> bytes:
        """The answer has ended with that status: what is not done yet is."""
        left = [opened for opened in self._items if not opened.is_done]
        return b"".join([opened.close(status, is_last=opened is self._current) for opened in left])

    def _said(self, name: str, value: Any) -> bytes:
        """What one field of a delta brings."""
        self._is_saying = name == "content"
        match name:
            case "content":
                return self._say(value)
            case "refusal":
                frames, opened = self._message()
                opening, part = opened.at(Refusal, partial(Refusal, ""))
                return frames + opening + opened.grow(part, value)
            case "reasoning_content" | "reasoning":
                return self._think(name, value)
            case "reasoning_summary":
                return b"".join([self._summarise(part["index"], part["text"]) for part in value])
            case "reasoning_items":
                return b"".join([self._original(item) for item in value])
            case "annotations":
                self._annotations += annotations_of(value)
                return self._annotate()
            case "tool_calls":
                return b"".join([self._call(call) for call in value])
            case _:
                return b""

    def _say(self, delta: str) -> bytes:
        frames, opened = self._message()
        opening, part = opened.at(OutputText, partial(OutputText, ""))
        if self._text is None or self._text[1] is not part:  # frames tell nothing: they may be left out
            self._text = opened, part
            frames += opening + self._annotate()
        logprobs, self._logprobs = self._logprobs, []
        said = opened.grow_text(part, delta, logprobs)
        return frames + said if frames else said

    def _annotate(self) -> bytes:
        """What the text was annotated with, once there is one."""
        if not self._text:
            return b""
        opened, part = self._text
        annotations, self._annotations = self._annotations, []
        return b"".join([opened.annotate(part, annotation) for annotation in annotations])

    def _think(self, name: str, delta: str) -> bytes:
        self._thought = self._thought or name
        if name != self._thought:
            return b""
        frames, opened = self._reasoning()
        opening, part = opened.at(ReasoningText, partial(ReasoningText, ""))
        return frames + opening + opened.grow(part, delta)

    def _summarise(self, place: int, delta: str) -> bytes:
        if not delta and place in self._summaries:
            return b""
        self._summaries.add(place)
        frames, opened = self._reasoning()
        opening, part = opened.at(place, partial(SummaryText, ""))
        return frames + opening + opened.grow(part, delta)

    def _original(self, item: dict[str, Any]) -> bytes:
        """A reasoning item of a Responses server, whole: what comes behind it is of another one."""
        frames, opened = self._reasoning()
        opened.originals.append(item)
        return frames

    def _call(self, call: dict[str, Any]) -> bytes:
        place = call["index"]
        kind, text = ("custom", "input") if "custom" in call else ("function", "arguments")
        said = call.get(kind) or {}
        call_id, name, delta = string_of(call.get("id")), string_of(said.get("name")), string_of(said.get(text))
        opened = self._calls.get(place)
        if opened is None:
            cls = CustomToolCallItem if kind == "custom" else FunctionCallItem
            frames, opened = self._begin(cls(call_item_id(self._turn_id, place), call_id, name))
            self._calls[place] = opened
            return frames + opened.grow_input(delta)
        if opened.is_done:
            return b""  # nothing can stand behind a whole JSON object
        item = opened.item
        if isinstance(item, FunctionCallItem | CustomToolCallItem):
            item.call_id, item.name = item.call_id or call_id, item.name + name
        return self._go_to(opened) + opened.grow_input(delta) if delta else b""

    def _message(self) -> tuple[bytes, OpenItem]:
        current = self._current
        if current and isinstance(current.item, MessageItem):
            return b"", current
        return self._begin(MessageItem(self._id(MessageItem, message_id)))

    def _reasoning(self) -> tuple[bytes, OpenItem]:
        current = self._current
        if current and isinstance(current.item, ReasoningItem) and not current.originals:
            return b"", current
        return self._begin(ReasoningItem(self._id(ReasoningItem, reasoning_id)))

    def _id(self, kind: type[Item], made: Callable[[str], str]) -> str:
        """The id of the next item of a kind of which there is mostly one."""
        number = self._counts.get(kind, 0)
        self._counts[kind] = number + 1
        return made(self._turn_id) + (f"_{number}" if number else "")

    def _begin(self, item: Item) -> tuple[bytes, OpenItem]:
        opened = OpenItem(item, len(self._items), self._event)
        frames = self._go_to(opened)
        self._items.append(opened)
        return frames + opened.begin(), opened

    def _go_to(self, opened: OpenItem) -> bytes:
        """What the model is saying now; what it was saying before is done."""
        current, self._current = self._current, opened
        return current.leave() if current and current is not opened else b""
