"""An assistant message as Responses output items.

Ids follow from the turn's id, so that a stream, its final response and every later read name the same items.
"""

from typing import Any, Literal

import msgspec

from projections.items import call_item_id, message_id, reasoning_id
from projections.messages import fields


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


class MessageItem(Typed, tag="message"):
    """What the model says."""

    id: str
    content: list[OutputText | Refusal] = []
    status: str = "completed"
    role: Literal["assistant"] = "assistant"


class ReasoningItem(Typed, tag="reasoning"):
    """What the model thought before it spoke."""

    id: str
    content: list[ReasoningText] = []
    status: str = "completed"
    summary: list[Any] = []


class FunctionCallItem(Typed, tag="function_call"):
    """A function that the model wants called."""

    id: str
    call_id: str
    name: str
    arguments: str = ""
    status: str = "completed"


class CustomToolCallItem(Typed, tag="custom_tool_call"):
    """A free-form tool that the model wants called."""

    id: str
    call_id: str
    name: str
    input: str = ""
    status: str = "completed"


Item = MessageItem | ReasoningItem | FunctionCallItem | CustomToolCallItem


def output_items(turn_id: str, message: bytes, status: str = "completed", *, by_arrival: bool = False) -> list[Item]:
    """One assistant message as items: reasoning, message and tool calls in that order, or as the message has them.

    Reads what it knows and passes over the rest: what a model server once sent must always be shown.
    """
    said = fields(message)
    order = [name for name in said if name in _SPOKEN] if by_arrival else _SPOKEN
    items: dict[str, Item] = {}
    for name in order:
        for item in _items(turn_id, name, said.get(name)):
            known = items.setdefault(item.id, item)
            if isinstance(known, MessageItem) and isinstance(item, MessageItem) and known is not item:
                known.content = [*known.content, *item.content]
            known.status = status
    return list(items.values())


# The fields of an assistant message in which something is said.
_SPOKEN = ("reasoning_content", "reasoning", "content", "refusal", "tool_calls")


def _items(turn_id: str, name: str, value: Any) -> list[Item]:
    """The items that one field of an assistant message makes."""
    if name in ("reasoning_content", "reasoning"):
        return [ReasoningItem(reasoning_id(turn_id), [ReasoningText(value)])] if string_of(value) else []
    if name == "tool_calls":
        calls = [_fields(call) for call in value] if isinstance(value, list) else []
        return [_call(call_item_id(turn_id, index), call) for index, call in enumerate(calls) if call]
    if name == "refusal":
        return [MessageItem(message_id(turn_id), [Refusal(value)])] if string_of(value) else []
    texts = [string_of(_fields(part).get("text")) for part in value] if isinstance(value, list) else [string_of(value)]
    parts: list[OutputText | Refusal] = [OutputText(text) for text in texts if text]
    return [MessageItem(message_id(turn_id), parts)] if parts else []


def string_of(value: Any) -> str:
    """The text that a field of a model server's message holds; none where it holds something else."""
    return value if isinstance(value, str) else ""


def _fields(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _call(item_id: str, call: dict[str, Any]) -> Item:
    call_id = string_of(call.get("id"))
    if custom := _fields(call.get("custom")):
        return CustomToolCallItem(item_id, call_id, string_of(custom.get("name")), string_of(custom.get("input")))
    function = _fields(call.get("function"))
    return FunctionCallItem(item_id, call_id, string_of(function.get("name")), string_of(function.get("arguments")))
