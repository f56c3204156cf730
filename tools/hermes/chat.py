"""A row of the original's `messages`, and an entry of a stored history, as a chat message."""

from collections.abc import Mapping
from typing import Any

import msgspec

from projections.messages import text_of
from tools.hermes.rows import Message, Notes, parsed, text, us

CONTENT_IS_JSON = "\x00json:"  # before content that is not a text
ROLES = frozenset({"user", "assistant", "tool", "system", "developer"})

_encode = msgspec.json.Encoder().encode


def message_of(row: Mapping[str, Any], notes: Notes) -> Message | None:
    """The message in a row; None where it is nobody's, which is noted."""
    role, name = text(row.get("role")), _name(row)
    if role not in ROLES:
        notes.note(f"{name}: role {str(row.get('role'))[:40]!r} is none of a conversation: left out")
        return None
    content = _content(row.get("content"), name, notes)
    chat: dict[str, Any] = {"role": role, "content": content}
    calls: list[dict[str, Any]] = []
    if role == "assistant":
        calls = _calls(row.get("tool_calls"), name, notes)
        chat |= ({"tool_calls": calls} if calls else {}) | _thoughts(row, name, notes)
        chat["content"] = content or (None if calls else "")
    answers = text(row.get("tool_call_id")) if role == "tool" else ""
    if role == "tool":
        chat = {"role": "tool", "tool_call_id": answers, "content": content or ""}
    ids = tuple(str(call["id"]) for call in calls)
    return Message(
        row_id=_int(row.get("id")),
        session_id=text(row.get("session_id")),
        role=role,
        at_us=us(row.get("timestamp")),
        chat=_encode(chat),
        mark=_mark(role, content, ids, answers),
        text=text_of(content),
        calls=ids,
        answers=answers,
        finish_reason=text(row.get("finish_reason")),
        is_observed=bool(row.get("observed")),
        is_active=row.get("active") in (None, 1),  # a column that older versions lack
        is_compacted=bool(row.get("compacted")),
    )


def _name(row: Mapping[str, Any]) -> str:
    return f"message {row.get('id')} of session {row.get('session_id')!r}" if row.get("id") else "a stored history"


def _int(value: Any) -> int:
    return value if isinstance(value, int) else 0


def _content(content: Any, name: str, notes: Notes) -> Any:
    """As the original reads it back: what can not be decoded stays the text that it is."""
    if isinstance(content, bytes):
        content = content.decode(errors="replace")
    if isinstance(content, str) and content.startswith(CONTENT_IS_JSON):
        return _parsed(content.removeprefix(CONTENT_IS_JSON), f"{name}: its content", notes, content)
    if content is None or isinstance(content, str | list):
        return content or ""
    return str(content) if not isinstance(content, dict) else [content]


def _parsed(data: str, what: str, notes: Notes, instead: Any) -> Any:
    try:
        return parsed(data)
    except ValueError:
        notes.note(f"{what} is not the JSON that it should be: kept as text" if instead else f"{what} is not JSON")
        return instead


def _calls(calls: Any, name: str, notes: Notes) -> list[dict[str, Any]]:
    """Tool calls as a chat has them, with whatever else the model's server gave."""
    if isinstance(calls, str) and calls:
        calls = _parsed(calls, f"{name}: its tool calls: what it holds", notes, None)
    found: list[dict[str, Any]] = []
    for call in calls if isinstance(calls, list) else []:
        function = call.get("function") if isinstance(call, dict) else None
        if not isinstance(function, dict):
            notes.note(f"{name}: a tool call without a function: left out")
            continue
        arguments = function.get("arguments")
        said = arguments if isinstance(arguments, str) else _encode(arguments or {}).decode()
        id_ = call.get("id") or call.get("call_id") or f"call_{len(found)}"
        found.append(call | {"id": str(id_), "type": "function", "function": function | {"arguments": said}})
    return found


def _thoughts(row: Mapping[str, Any], name: str, notes: Notes) -> dict[str, Any]:
    thoughts: dict[str, Any] = {}
    if said := text(row.get("reasoning_content")) or text(row.get("reasoning")):
        thoughts["reasoning_content"] = said
    details = row.get("reasoning_details")
    if isinstance(details, str) and details:
        details = _parsed(details, f"{name}: its reasoning details: what it holds", notes, None)
    return thoughts | ({"reasoning_details": details} if details else {})


def _mark(role: str, content: Any, calls: tuple[str, ...], answers: str) -> tuple[str, ...]:
    if calls or answers:
        return (role, *calls, answers)
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        content = texts[0] if texts else ""
    return (role, str(content or "").strip())
