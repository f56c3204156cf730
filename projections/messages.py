"""A turn as chat messages: what the model is sent, and what a session's messages show.

Turns are stored as their client sent them, in the dialect of the API it used. Chat messages are passed on byte for
byte; Responses items are translated here, once a turn. Translation never refuses: what may come in is decided at the
edge, and yesterday's facts must always read.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from eventstore.events import Api, TurnStarted
from projections import compaction

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_encode = msgspec.json.Encoder().encode

PAGE_BYTES = 4_000  # about a thousand tokens, which is what a picture takes
_IN_PLACE = re.compile(rb"data:[\w.+/-]*;base64,[A-Za-z0-9+/=_-]*")
_FILE = frozenset({"file_data", "file_id", "filename"})  # what a chat server knows of a file
_COMPACTION = b'"compaction"'
_ROLES = {"developer": "system"}  # the older word, which every chat server knows


def fields(data: bytes) -> dict[str, Any]:
    """The fields of a stored JSON object, whoever made it; none where it can not be read."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def text_of(content: Any) -> str:
    """The text of a chat message's content; its parts are joined, and what is not text is passed over."""
    if isinstance(content, list):
        return " ".join(str(part["text"]) for part in content if isinstance(part, dict) and part.get("text"))
    return content if isinstance(content, str) else ""


def size_bytes(message: bytes) -> int:
    """The size of a chat message as text: a file that is part of it counts as much as a page, whatever its length."""
    if len(message) < PAGE_BYTES or b";base64," not in message:
        return len(message)
    files = _IN_PLACE.findall(message)
    return len(message) - sum(map(len, files)) + PAGE_BYTES * len(files)


def unpacked_bytes(items: Iterable[bytes]) -> int:
    """What Responses items take as messages that hold more than the items themselves: compactions."""
    packed = (data for data in items if _COMPACTION in data)
    return sum(len(message) for data in packed for message in messages_of("responses", (data,)))


def input_messages(started: TurnStarted) -> tuple[bytes, ...]:
    """The turn's new input as chat messages, each the bytes of one JSON object."""
    return messages_of(started.api, started.items)


def messages_of(api: Api, items: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Items in the dialect of `api` as chat messages, each the bytes of one JSON object."""
    if api == "chat":
        return items
    return tuple(_encode(message) for message, _ in grouped(items))


def grouped(items: Iterable[bytes]) -> Iterator[tuple[dict[str, Any], list[int]]]:
    """Responses items as chat messages, each with the numbers of the items that it holds: thoughts first, calls last.

    Tool calls that stand together, or behind an assistant message, belong to one assistant message; so do the thoughts
    in front of it. Thoughts that nothing follows have no counterpart in a chat.
    """
    assistant: dict[str, Any] | None = None
    held: list[int] = []
    thoughts: dict[int, dict[str, Any]] = {}
    for number, data in enumerate(items):
        item = fields(data)
        if call := _tool_call(item):
            if assistant is None:
                assistant, held = {"role": "assistant", "content": None} | thought(thoughts.values()), [*thoughts]
            assistant.setdefault("tool_calls", []).append(call)
            held.append(number)
            continue
        if assistant:
            yield assistant, held
            assistant, held, thoughts = None, [], {}
        message = _message(item)
        if message and message["role"] == "assistant":
            assistant, held = message | thought(thoughts.values()), [*thoughts, number]
        elif message:
            thoughts = {}
            yield message, [number]
        elif item.get("type") == "reasoning":
            thoughts[number] = item
    if assistant:
        yield assistant, held


def thought(items: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The fields of an assistant message that hold reasoning items: their text, and all of them as they are."""
    kept = list(items)
    texts = [text_of(item.get("content")) for item in kept]
    text = "\n".join(filter(None, texts))
    said = {"reasoning_content": text} if text else {}
    return said | ({"reasoning_items": kept} if kept else {})


def _tool_call(item: dict[str, Any]) -> dict[str, Any] | None:
    if item.get("type") == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        return {"id": item.get("call_id"), "type": "function", "function": function}
    if item.get("type") == "custom_tool_call":
        custom = {"name": item.get("name"), "input": item.get("input")}
        return {"id": item.get("call_id"), "type": "custom", "custom": custom}
    return None


def _message(item: dict[str, Any]) -> dict[str, Any] | None:
    kind = item.get("type", "message")
    if kind == "message":
        role, content = str(item.get("role")), item.get("content")
        refusal = refusal_in(content) if role == "assistant" else ""
        if refusal and isinstance(content, list):
            said = [part for part in content if not _is_refusal(part)]
            return {"role": role, "content": chat_content(said) or None, "refusal": refusal}
        return {"role": _ROLES.get(role, role), "content": chat_content(content)}
    if kind in ("function_call_output", "custom_tool_call_output"):
        return {"role": "tool", "tool_call_id": item.get("call_id"), "content": chat_content(item.get("output"))}
    if kind == "compaction" and (summary := compaction.opened(item.get("encrypted_content"))):
        return {"role": "assistant", "content": summary}
    return None  # kept in the log, without a counterpart in a chat


def refusal_in(content: Any) -> str:
    """What the parts of a content refuse; a chat message has a field for that."""
    parts = content if isinstance(content, list) else []
    return "".join(str(part.get("refusal") or "") for part in parts if _is_refusal(part))


def _is_refusal(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "refusal"


def chat_content(content: Any) -> Any:
    """A message's content as chat servers take it.

    A string stays one; parts are renamed; a single text part becomes a string, which every server takes.
    """
    if not isinstance(content, list):
        return content
    parts = [_part(part) for part in content if isinstance(part, dict)]
    if len(parts) == 1 and parts[0]["type"] == "text":
        return parts[0]["text"]
    return parts


def _part(part: dict[str, Any]) -> dict[str, Any]:
    match part.get("type"):
        case "input_text" | "output_text" | "text":
            return {"type": "text", "text": part.get("text", "")}
        case "input_image":
            image = {"url": part.get("image_url"), "detail": part.get("detail")}
            return {"type": "image_url", "image_url": {key: value for key, value in image.items() if value}}
        case "input_file":
            return {"type": "file", "file": {key: value for key, value in part.items() if key in _FILE and value}}
        case _:
            return {"type": "unknown"} | part
