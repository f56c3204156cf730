"""Facts for tests, with everything that does not matter filled in."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from eventstore.events import (
    Event,
    SessionStarted,
    TurnCompleted,
    TurnStarted,
    lineage_stream,
)
from eventstore.log import Recorded

STREAM = lineage_stream("acme", "s1")
T0_US = 1_700_000_000_000_000


def user(text: str) -> bytes:
    """A user's chat message."""
    return msgspec.json.encode({"role": "user", "content": text})


def assistant(text: str) -> bytes:
    """An assistant's chat message."""
    return msgspec.json.encode({"role": "assistant", "content": text})


def started(turn_id: str, *texts: str, **fields: Any) -> TurnStarted:
    """A chat turn that opens with user messages."""
    defaults: dict[str, Any] = {"api": "chat", "model": "m", "owner": "me", "lease_ms": 60_000}
    return TurnStarted(turn_id=turn_id, items=tuple(map(user, texts or ("hello",))), **(defaults | fields))


def completed(turn_id: str, text: str = "hi", **fields: Any) -> TurnCompleted:
    """A turn that the model answered."""
    return TurnCompleted(turn_id=turn_id, output=(assistant(text),), finish_reason="stop", **fields)


def session_started(session_id: str = "s1", **fields: Any) -> SessionStarted:
    """The beginning of a lineage."""
    return SessionStarted(session_id=session_id, **fields)


def recorded(events: Iterable[Event], stream: str = STREAM, first_position: int = 1) -> list[Recorded]:
    """The events as a log would have recorded them in one stream, a second apart."""
    return [
        Recorded(position, stream, version, T0_US + version * 1_000_000, event, b"")
        for version, (position, event) in enumerate(enumerate(events, first_position), 1)
    ]


def texts(messages: Sequence[bytes]) -> list[str]:
    """The contents of chat messages."""
    return [msgspec.json.decode(message)["content"] for message in messages]
