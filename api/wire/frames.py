"""Events, written: one whole frame at a time, LF only. As server-sent events, or as lines of JSON."""

from collections.abc import Callable
from typing import Any, NamedTuple

from api.wire.decode import encode

DONE = b"data: [DONE]\n\n"


def frame(payload: dict[str, Any], event: str = "") -> bytes:
    """One event with a JSON payload; with its name where it has one."""
    head = b"event: " + event.encode() + b"\n" if event else b""
    return head + b"data: " + encode(payload) + b"\n\n"


class Framing(NamedTuple):
    """How the events of one stream are written: each payload with the event's name, and what comes behind the last."""

    frame: Callable[[dict[str, Any], str], bytes]
    done: bytes


SENT_EVENTS = Framing(frame, DONE)


def lines(**more: Any) -> Framing:
    """One line of JSON an event, each with `more` fields. JSON as it is encoded here has no line feed in it."""
    return Framing(lambda payload, _: encode(payload | more) + b"\n", b"")
