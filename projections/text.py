"""What was said in a message, as plain text: what is searched, found and shown of it.

Lenient like everything that reads facts: what can not be read says nothing. Bounded: of a message the beginning counts,
of a turn its last messages.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

MESSAGE_CHARACTERS_MAX = 20_000
TURN_CHARACTERS_MAX = 100_000
TOOL_CHARACTERS_MAX = 1_000  # a longer output of a tool is data, and nothing that anybody said


class Said(NamedTuple):
    """Who said what; both empty where nothing readable was said."""

    role: str
    text: str


class _Message(msgspec.Struct):
    role: Any = ""
    content: Any = None


NOTHING = Said("", "")
_SPEAKERS = frozenset({"user", "assistant", "tool"})
_decode = msgspec.json.Decoder(_Message).decode


def said_in(message: bytes) -> Said:
    """What a stored chat message says, cut to `MESSAGE_CHARACTERS_MAX`."""
    try:
        decoded = _decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return NOTHING
    role, content = decoded.role, decoded.content
    if not isinstance(role, str) or role not in _SPEAKERS:
        return NOTHING
    text = content if isinstance(content, str) else _joined(content)
    if role == "tool" and len(text) > TOOL_CHARACTERS_MAX:
        return NOTHING
    return Said(role, text[:MESSAGE_CHARACTERS_MAX])


def spoken(messages: Sequence[bytes]) -> str:
    """What the messages say, one below the other; of more than `TURN_CHARACTERS_MAX` the last ones."""
    if len(messages) == 1:
        return said_in(messages[0]).text
    texts: list[str] = []
    left = TURN_CHARACTERS_MAX
    for message in reversed(messages):
        if text := said_in(message).text[:left]:
            texts.append(text)
            left -= len(text)
        if not left:
            break
    return "\n".join(reversed(texts))


def _joined(content: Any) -> str:
    if not isinstance(content, list):
        return ""
    texts = (part.get("text") for part in content if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str))
