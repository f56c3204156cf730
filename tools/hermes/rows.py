"""What the two databases of the original hold, as far as it is moved. Whatever is malformed is said in `Notes`."""

import contextlib
import json
from typing import Any

import msgspec

_decode = msgspec.json.Decoder().decode


class Notes:
    """What could not be understood, named: sentences for whoever imports."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, sentence: str) -> None:
        """Say something once."""
        if sentence not in self.said:
            self.said.append(sentence)


class Message(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A row of `messages`. `chat` is the chat message that it holds (JSON).

    `mark` is equal in a row and its copies, which the original makes as it compresses and branches: it shortens what
    tools put out and takes pictures out of copies.
    """

    row_id: int
    session_id: str
    role: str
    at_us: int
    chat: bytes
    mark: tuple[str, ...]
    text: str = ""
    calls: tuple[str, ...] = ()
    answers: str = ""
    finish_reason: str = ""
    is_observed: bool = False
    is_active: bool = True
    is_compacted: bool = False


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `sessions`; times are microseconds UTC, 0 where there is none."""

    session_id: str
    source: str = ""
    user_id: str = ""
    session_key: str = ""
    chat_id: str = ""
    chat_type: str = ""
    thread_id: str = ""
    display_name: str = ""
    model: str = ""
    branched_from: str = ""
    delegated_from: str = ""
    system_prompt: str = ""
    parent_id: str = ""
    started_us: int = 0
    ended_us: int = 0
    end_reason: str = ""
    title: str = ""
    is_archived: bool = False
    input_tokens: int = 0
    output_tokens: int = 0


class Response(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `responses`: its user's words, its answer, and the whole history, all decoded.

    `turn_id` is its id without the prefix.
    """

    turn_id: str
    session_id: str = ""
    created_us: int = 0
    model: str = ""
    instructions: str = ""
    status: str = "completed"
    usage: bytes = b""
    asked: str = ""
    answer: str = ""
    history: tuple[Message, ...] = ()


class Original(msgspec.Struct, frozen=True):
    """Both databases. `messages` are those of each session, in the order of their rows; `slugs` lead to turn ids."""

    sessions: dict[str, Session]
    messages: dict[str, list[Message]]
    responses: dict[str, Response]
    slugs: dict[str, str]


def us(seconds: Any) -> int:
    """Microseconds of a time in seconds; 0 where it is none, or none that a log can hold."""
    if isinstance(seconds, int | float) and 0 < seconds < 1e11:
        return int(seconds * 1_000_000)
    return 0


def text(value: Any) -> str:
    """A column's text; what is no text is none."""
    return value if isinstance(value, str) else ""


def parsed(data: str) -> Any:
    """JSON as the original writes it, which may hold halves of a surrogate pair; raises `ValueError`."""
    with contextlib.suppress(msgspec.DecodeError, UnicodeError, RecursionError):
        return _decode(data)
    try:
        return _decode(json.dumps(json.loads(data), ensure_ascii=False).encode(errors="replace"))
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
