"""An assistant message as Responses output items.

Ids follow from the turn's id, so that a stream, its final response and every later read name the same items.
"""

from typing import Any, Literal

import msgspec


class OutputText(msgspec.Struct):
    """A text part of a message."""

    text: str
    type: Literal["output_text"] = "output_text"
    annotations: list[Any] = []
    logprobs: list[Any] = []


class Refusal(msgspec.Struct):
    """A part in which the model says no."""

    refusal: str
    type: Literal["refusal"] = "refusal"


class ReasoningText(msgspec.Struct):
    """A part of what the model thought."""

    text: str
    type: Literal["reasoning_text"] = "reasoning_text"


class MessageItem(msgspec.Struct):
    """What the model says."""

    id: str
    content: list[OutputText | Refusal] = []
    status: str = "completed"
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"


class ReasoningItem(msgspec.Struct):
    """What the model thought before it spoke."""

    id: str
    content: list[ReasoningText] = []
    status: str = "completed"
    type: Literal["reasoning"] = "reasoning"
    summary: list[Any] = []


class FunctionCallItem(msgspec.Struct):
    """A function that the model wants called."""

    id: str
    call_id: str
    name: str
    arguments: str = ""
    status: str = "completed"
    type: Literal["function_call"] = "function_call"


class CustomToolCallItem(msgspec.Struct):
    """A free-form tool that the model wants called."""

    id: str
    call_id: str
    name: str
    input: str = ""
    status: str = "completed"
    type: Literal["custom_tool_call"] = "custom_tool_call"


Item = MessageItem | ReasoningItem | FunctionCallItem | CustomToolCallItem


class _Function(msgspec.Struct):
    name: str = ""
    arguments: str = ""


class _Custom(msgspec.Struct):
    name: str = ""
    input: str = ""


class _ToolCall(msgspec.Struct):
    id: str = ""
    function: _Function | None = None
    custom: _Custom | None = None


class _Message(msgspec.Struct):
    content: str | list[dict[str, Any]] | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[_ToolCall] | None = None


_decode = msgspec.json.Decoder(_Message, strict=False).decode


def message_id(turn_id: str) -> str:
    """The id of the turn's message item."""
    return f"msg_{turn_id}"


def reasoning_id(turn_id: str) -> str:
    """The id of the turn's reasoning item."""
    return f"rs_{turn_id}"


def call_item_id(turn_id: str, index: int) -> str:
    """The id of the item of the turn's tool call number `index`."""
    return f"fc_{turn_id}_{index}"


def output_items(turn_id: str, message: bytes, status: str = "completed") -> list[Item]:
    """Reasoning, message and tool calls of one assistant message, in that order."""
    said = _decode(message)
    items: list[Item] = []
    if thought := said.reasoning_content or said.reasoning:
        items.append(ReasoningItem(reasoning_id(turn_id), [ReasoningText(thought)], status))
    if parts := _parts(said):
        items.append(MessageItem(message_id(turn_id), parts, status))
    for index, call in enumerate(said.tool_calls or ()):
        items.append(_call(call_item_id(turn_id, index), call, status))
    return items or [MessageItem(message_id(turn_id), [OutputText("")], status)]


def output_text(item: Item) -> str:
    """The text of a message item."""
    return (
        "".join(part.text for part in item.content if isinstance(part, OutputText))
        if isinstance(item, MessageItem)
        else ""
    )


def _parts(said: _Message) -> list[OutputText | Refusal]:
    parts: list[OutputText | Refusal] = []
    if isinstance(said.content, list):
        parts += [OutputText(str(part["text"])) for part in said.content if part.get("text")]
    elif said.content:
        parts.append(OutputText(said.content))
    if said.refusal:
        parts.append(Refusal(said.refusal))
    return parts


def _call(item_id: str, call: _ToolCall, status: str) -> Item:
    if call.custom:
        return CustomToolCallItem(item_id, call.id, call.custom.name, call.custom.input, status)
    function = call.function or _Function()
    return FunctionCallItem(item_id, call.id, function.name, function.arguments, status)
