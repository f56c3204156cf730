"""Server-sent events, written: one whole frame at a time, LF only."""

from typing import Any

from api.wire.decode import encode

DONE = b"data: [DONE]\n\n"


def frame(payload: dict[str, Any], event: str = "") -> bytes:
    """One event with a JSON payload; with its name where it has one."""
    head = b"event: " + event.encode() + b"\n" if event else b""
    return head + b"data: " + encode(payload) + b"\n\n"
