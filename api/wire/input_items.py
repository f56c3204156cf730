"""A turn's input as Responses items, whichever API it came in by: what the Responses and Conversations APIs show of it.

Lenient like everything that reads facts: an item of a kind that is not known here is shown as it came in.
"""

from collections.abc import Iterator
from typing import Any

from msgspec import to_builtins

from api.wire.items import output_items
from eventstore.events import TurnStarted
from projections.items import input_item_id, input_place, message_id, output_id
from projections.messages import fields

_STATUSES = frozenset({"in_progress", "completed", "incomplete"})
_OUTPUTS = frozenset({"function_call_output", "custom_tool_call_output"})
_TOOL_ROLES = frozenset({"tool", "function"})
_TEXTS = frozenset({"text", "input_text", "output_text"})


def items_of_input(started: TurnStarted) -> Iterator[dict[str, Any]]:
    """The new input of a turn as items, each with its id and all that the API's types say it has."""
    for number, data in enumerate(started.items):
        item = fields(data)
        if started.api == "chat":
            yield from _from_chat(input_place(started.turn_id, number), data, item)
        elif item:
            yield shown(item, input_item_id(started.turn_id, number, item))


def shown(item: dict[str, Any], item_id: str) -> dict[str, Any]:
    """An item that came in, under that id."""
    given = {name: value for name, value in item.items() if value is not None and name not in ("id", "type", "status")}
    kind, status = _text(item.get("type")) or "message", _text(item.get("status"))
    head = {"id": item_id, "type": kind, "status": status if status in _STATUSES else "completed"}
    if kind == "message":
        return head | given | {"content": parts_of(item.get("content"), is_model=item.get("role") == "assistant")}
    if kind in _OUTPUTS:
        return head | given | {"output": _output(item.get("output"))}
    if kind == "reasoning":
        return head | {"summary": []} | given
    return head | given


def _from_chat(place: str, data: bytes, message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    role, content = _text(message.get("role")), message.get("content")
    if role == "assistant":
        yield from map(to_builtins, output_items(place, data))
    elif role in _TOOL_ROLES:
        yield {
            "id": output_id(place),
            "type": "function_call_output",
            "status": "completed",
            "call_id": _text(message.get("tool_call_id") or message.get("name")),
            "output": _output(content),
        }
    elif message:
        item_id, parts = message_id(place), parts_of(content)
        yield {"id": item_id, "type": "message", "status": "completed", "role": role, "content": parts}


def _output(content: Any) -> Any:
    """What a tool says: a text, or parts."""
    return parts_of(content) if isinstance(content, list) else _text(content)


def parts_of(content: Any, *, is_model: bool = False) -> list[dict[str, Any]]:
    """A message's content as parts: what a client says is input, what a model says is output."""
    if isinstance(content, str):
        return [_text_part({"text": content}, is_model=is_model)]
    parts = content if isinstance(content, list) else []
    return [_part(part, is_model=is_model) for part in parts if isinstance(part, dict)]


def _part(part: dict[str, Any], *, is_model: bool) -> dict[str, Any]:
    """A part of either dialect, as the Responses API has it."""
    kind = _text(part.get("type"))
    if kind in _TEXTS:
        return _text_part(part, is_model=is_model)
    if kind == "image_url":
        image = part.get("image_url")
        image = image if isinstance(image, dict) else {"url": image}
        return {"type": "input_image", "detail": image.get("detail") or "auto", "image_url": image.get("url")}
    if kind == "input_image":
        return part | {"detail": part.get("detail") or "auto"}
    if kind == "file":
        file = part.get("file")
        return {"type": "input_file"} | (file if isinstance(file, dict) else {})
    return part


def _text_part(part: dict[str, Any], *, is_model: bool) -> dict[str, Any]:
    if not is_model:
        return part | {"type": "input_text", "text": _text(part.get("text"))}
    lists = {name: part.get(name) or [] for name in ("annotations", "logprobs")}
    return {"type": "output_text", "text": _text(part.get("text")), **lists}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
