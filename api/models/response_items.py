"""Chat messages as input items of the Responses API: the way back from `projections/messages.py`.

What only one of the two APIs has a word for is left out: the `name` of a speaker, and what a model thought where no
Responses server said it (`reasoning_content`), for none can be known to take it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from projections.messages import fields, text_of

Item = dict[str, Any]

# What a call is stored as, by the item that it is: the two names of its input.
_CALLS = {"function": ("function_call", "arguments"), "custom": ("custom_tool_call", "input")}


def input_items(messages: Sequence[bytes], *, with_thoughts: bool) -> list[Item]:
    """The items of chat messages (JSON); reasoning items among them only `with_thoughts`."""
    items: list[Item] = []
    custom_calls: set[str] = set()
    for data in messages:
        message = fields(data)
        role = message.get("role")
        if role == "assistant":
            spoken = list(_from_assistant(message, f"msg_{len(items)}", with_thoughts=with_thoughts))
            custom_calls |= {item["call_id"] for item in spoken if item["type"] == "custom_tool_call"}
            items += spoken
        elif role in ("tool", "function"):
            items.append(_output(message, custom_calls))
        else:
            items.append({"type": "message", "role": role, "content": _content(message.get("content"))})
    return items


def _from_assistant(message: dict[str, Any], item_id: str, *, with_thoughts: bool) -> Iterator[Item]:
    if with_thoughts:
        yield from _thoughts(message.get("reasoning_items"))
    text, refused = text_of(message.get("content")), message.get("refusal")
    said: list[Item] = [{"type": "output_text", "text": text, "annotations": []}] if text else []
    if isinstance(refused, str) and refused:
        said.append({"type": "refusal", "refusal": refused})
    if said:
        # A whole output message, with an id: what the strictest servers expect of one that comes back.
        yield {"type": "message", "id": item_id, "role": "assistant", "status": "completed", "content": said}
    for call in _objects(message.get("tool_calls")):
        kind = "custom" if isinstance(call.get("custom"), dict) else "function"
        yield _call(kind, call.get("id"), call.get(kind))
    if isinstance(called := message.get("function_call"), dict):
        yield _call("function", called.get("name"), called)


def _thoughts(reasoning_items: Any) -> Iterator[Item]:
    """Reasoning items as they came, where there is something in them that a server can read."""
    for item in _objects(reasoning_items):
        if item.get("encrypted_content") or item.get("content"):
            yield {name: value for name, value in item.items() if name != "index"}


def _call(kind: str, call_id: Any, called: Any) -> Item:
    item_type, text = _CALLS[kind]
    called = called if isinstance(called, dict) else {}
    return {"type": item_type, "call_id": str(call_id or ""), "name": called.get("name"), text: called.get(text) or ""}


def _output(message: dict[str, Any], custom_calls: set[str]) -> Item:
    call_id = str(message.get("tool_call_id") or message.get("name") or "")
    kind = "custom_tool_call_output" if call_id in custom_calls else "function_call_output"
    return {"type": kind, "call_id": call_id, "output": _content(message.get("content"))}


def _content(content: Any) -> Any:
    """A message's content: a string stays one, parts are renamed."""
    if isinstance(content, list):
        return [_part(part) for part in _objects(content)]
    return "" if content is None else content


def _part(part: dict[str, Any]) -> Item:
    kind = part.get("type")
    if kind == "text":
        return {"type": "input_text", "text": part.get("text") or ""}
    if kind == "image_url" and isinstance(image := part.get("image_url"), dict):
        named = {"image_url" if name == "url" else name: value for name, value in image.items()}
        return {"type": "input_image", "detail": "auto"} | named
    if kind == "file" and isinstance(file := part.get("file"), dict):
        return {"type": "input_file"} | file
    return part  # `input_audio` is the same in both; of the rest the server is to judge


def _objects(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []
