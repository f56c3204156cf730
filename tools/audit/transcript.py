"""What was said in a session, for people to read: its messages, and the compressions between them."""

import re
from collections.abc import Iterator
from typing import Any, TypeAlias

import msgspec

from api.turns.summary import without_heading
from api.wire.sessions import MessageEntry, message_list
from eventstore.events import CompressionRotated
from projections.session import Session

_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_ALL = 1 << 62


class Rotation(msgspec.Struct):
    """A compression: where the session ended, and which one goes on with what summary."""

    session_id: str
    parent_session_id: str
    summary: str
    summariser: str
    tokens_before: int
    tokens_after: int


Entry: TypeAlias = MessageEntry | Rotation


def entries(session: Session | None) -> Iterator[Entry]:
    """All of it, oldest first."""
    if session is None:
        return
    messages = iter(message_list(session, _ALL, 0).data)
    held = next(messages, None)
    for generation in session.past:
        while held and held.session_id == generation.session_id:
            yield held
            held = next(messages, None)
        if generation.rotated:
            yield _rotation(generation.rotated)
    if held:
        yield held
    yield from messages


def _rotation(rotated: CompressionRotated) -> Rotation:
    return Rotation(
        session_id=rotated.session_id,
        parent_session_id=rotated.old_session_id,
        summary=without_heading(rotated.summary),
        summariser=rotated.summariser,
        tokens_before=rotated.tokens_before,
        tokens_after=rotated.tokens_after,
    )


def lines(entry: Entry) -> list[str]:
    """An entry as it is shown: who, and what was said; of a turn that did not complete, how it ended."""
    if isinstance(entry, Rotation):
        head = f"compressed: {entry.parent_session_id} -> {entry.session_id}, {entry.tokens_before:,} -> "
        head += f"{entry.tokens_after:,} tokens, summary by {entry.summariser}: "
        return _laid_out(head + entry.summary)
    how = "" if entry.status == "completed" else f" ({_how(entry)})"
    told = [_text(entry.content)] if entry.content not in (None, "", []) else []
    told += [f"calls {_json(call)}" for call in entry.tool_calls or ()]
    if entry.tool_call_id:
        told.insert(0, f"[{_json(entry.tool_call_id)}]")
    return _laid_out(f"{entry.role}{how}: {' '.join(told)}")


def plain(text: str) -> str:
    """The text without what would make a terminal do something else than show it."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


def _how(entry: MessageEntry) -> str:
    words = entry.status.replace("_", " ")
    return f"{words}: {entry.error}" if entry.error else words


def _laid_out(text: str) -> list[str]:
    first, *others = plain(text).rstrip().splitlines() or [""]
    return [first, *(f"    {other}" for other in others)]


def _text(content: Any) -> str:
    """A message's content: text as it is, several parts one behind the other."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return " ".join(
            part["text"] if isinstance(part, dict) and isinstance(part.get("text"), str) else _json(part)
            for part in content
        )
    return _json(content)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
