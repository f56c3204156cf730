"""An assistant message as Responses output items.

Ids follow from the turn's id, so that a stream, its final response and every later read name the same items.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from projections.items import call_item_id, message_id, reasoning_id
from projections.messages import fields
from projections.pieces import ORDER

_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Typed(msgspec.Struct, tag_field="type"):
    """One of several kinds, which its `type` tells."""

    @property
    def type(self) -> str:
        """The kind."""
        return str(self.__struct_config__.tag)


class OutputText(Typed, tag="output_text"):
    """A text part of a message."""

    text: str
    annotations: list[Any] = []
    logprobs: list[Any] = []


class Refusal(Typed, tag="refusal"):
    """A part in which the model says no."""

    refusal: str


class ReasoningText(Typed, tag="reasoning_text"):
    """A part of what the model thought."""

    text: str


class SummaryText(Typed, tag="summary_text"):
    """A part of the summary of what the model thought."""

    text: str


class MessageItem(Typed, tag="message"):
    """What the model says."""

    id: str
    content: list[OutputText | Refusal] = []
    status: str = "completed"
    role: Literal["assistant"] = "assistant"


class ReasoningItem(Typed, tag="reasoning"):
    """What the model thought before it spoke. `encrypted_content` is there where its server gave it."""

    id: str
    content: list[ReasoningText] = []
    status: str = "completed"
    summary: list[SummaryText] = []
    encrypted_content: str | msgspec.UnsetType = msgspec.UNSET

    def complete_from(self, originals: Any) -> None:
        """Take what was said in no other way from the reasoning items of a Responses server, whole as it gave them."""
        items = [item for item in originals if isinstance(item, dict)] if isinstance(originals, list) else []
        self.summary = self.summary or [SummaryText(text) for item in items for text in _texts(item.get("summary"))]
        self.content = self.content or [ReasoningText(text) for item in items for text in _texts(item.get("content"))]
        for item in items:
            self.encrypted_content = string_of(item.get("encrypted_content")) or self.encrypted_content


class FunctionCallItem(Typed, tag="function_call"):
    """A function that the model wants called."""

    id: str
    call_id: str
    name: str
    arguments: str = ""
    status: str = "completed"

    @property
    def is_whole(self) -> bool:
        """Whether its arguments are a whole JSON object, to which nothing can be added."""
        try:
            _decode_object(self.arguments)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return False
        return True


class CustomToolCallItem(Typed, tag="custom_tool_call"):
    """A free-form tool that the model wants called."""

    id: str
    call_id: str
    name: str
    input: str = ""
    status: str = "completed"


Item = MessageItem | ReasoningItem | FunctionCallItem | CustomToolCallItem


def output_items(
    turn_id: str,
    message: bytes,
    status: str = "completed",
    *,
    by_arrival: bool = False,
    logprobs: Sequence[Any] = (),
) -> list[Item]:
    """One whole assistant message as items: reasoning, message and tool calls, or in the order that the message has.

    `status` is that of a message that was cut short. Reads what it knows and passes over the rest: what a model server
    once sent must always be shown. Of a recorded turn, see `api.wire.output.items_of`.
    """
    said = fields(message)
    items: dict[str, Item] = {}
    for name in dict.fromkeys((*(name for name in said if by_arrival and name in ORDER), *ORDER)):
        for item in _items(turn_id, name, said.get(name)):
            items[item.id] = _joined(items.get(item.id), item)
    for number, item in enumerate(items.values(), 1):
        if isinstance(item, MessageItem):
            _add_beside(item, annotations_of(said.get("annotations")), logprobs)
        elif isinstance(item, ReasoningItem):
            item.complete_from(said.get("reasoning_items"))
        item.status = status_of(item, status, is_last=number == len(items))
    return list(items.values())


def status_of(item: Item, status: str, *, is_last: bool) -> str:
    """The status of an item in an answer that ended with `status`: only what was being said then was cut."""
    is_cut = is_last or (isinstance(item, FunctionCallItem) and not item.is_whole)
    return status if is_cut else "completed"


def _add_beside(item: MessageItem, annotations: Sequence[Any], logprobs: Sequence[Any]) -> None:
    """Give the message's text what came beside it."""
    text = next((part for part in item.content if isinstance(part, OutputText)), None)
    if text:
        text.annotations, text.logprobs = list(annotations), list(logprobs)


def annotations_of(value: Any) -> list[dict[str, Any]]:
    """A message's annotations as the Responses API has them; a chat server's are an object deeper."""
    return [_flat(entry) for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def string_of(value: Any) -> str:
    """The text that a field of a model server's message holds; none where it holds something else."""
    return value if isinstance(value, str) else ""


def _flat(entry: dict[str, Any]) -> dict[str, Any]:
    kind = string_of(entry.get("type"))
    inner = entry.get(kind)
    return {"type": kind, **inner} if kind and isinstance(inner, dict) else entry


def _items(turn_id: str, name: str, value: Any) -> Iterator[Item]:
    """The items that one field of an assistant message makes."""
    entries = [_fields(entry) for entry in value] if isinstance(value, list) else []
    match name:
        case "reasoning_content" | "reasoning" if string_of(value):
            yield ReasoningItem(reasoning_id(turn_id), [ReasoningText(value)])
        case "reasoning_summary" if any(entries):
            summary = [SummaryText(string_of(entry.get("text"))) for entry in entries if entry]
            yield ReasoningItem(reasoning_id(turn_id), summary=summary)
        case "reasoning_items" if any(entries):
            yield ReasoningItem(reasoning_id(turn_id))
        case "content":
            texts = [string_of(value), *(string_of(part.get("text")) for part in entries)]
            if parts := [OutputText(text) for text in texts if text]:
                yield MessageItem(message_id(turn_id), [*parts])
        case "refusal" if string_of(value):
            yield MessageItem(message_id(turn_id), [Refusal(value)])
        case "tool_calls":
            yield from (_call(call_item_id(turn_id, index), call) for index, call in enumerate(entries) if call)


def _joined(known: Item | None, item: Item) -> Item:
    """What two fields say of one item. A thought that is said in two of them is said once."""
    if isinstance(known, MessageItem) and isinstance(item, MessageItem):
        known.content = [*known.content, *item.content]
    elif isinstance(known, ReasoningItem) and isinstance(item, ReasoningItem):
        known.content = known.content or item.content
        known.summary = known.summary or item.summary
    return known or item


def _texts(parts: Any) -> list[str]:
    """The texts of the parts of an item that came from elsewhere."""
    texts = [string_of(_fields(part).get("text")) for part in parts] if isinstance(parts, list) else []
    return [text for text in texts if text]


def _fields(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _call(item_id: str, call: dict[str, Any]) -> Item:
    call_id = string_of(call.get("id"))
    if custom := _fields(call.get("custom")):
        return CustomToolCallItem(item_id, call_id, string_of(custom.get("name")), string_of(custom.get("input")))
    function = _fields(call.get("function"))
    return FunctionCallItem(item_id, call_id, string_of(function.get("name")), string_of(function.get("arguments")))
