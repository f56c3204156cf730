"""The WebSocket of /v1/responses on the wire: what a client may send, and the events that only a socket has.

Every frame is one event as JSON text. The Open Responses specification (2026-04-24) and OpenAI's guide to its WebSocket
mode say what they are; the events of a response are those of a stream over HTTP.
"""

import re
from typing import Any

import msgspec

from api.problem import Problem, error_of
from api.wire.decode import Fields, body_of, encode

LANES_MAX = 32
FRAME_BYTES_MAX = 10_000_000  # as much as a body may have

_LANE = re.compile(r"[A-Za-z0-9_.-]{1,256}")
_TRUE = msgspec.Raw(b"true")
# The event around the body of a create, and what the transport decides.
_ENVELOPE = frozenset({"type", "stream_id", "generate", "stream", "background"})
# Over HTTP the seeds of turnlog decide on 404.
_STATUSES = {"previous_response_not_found": 400}


class Create(msgspec.Struct, frozen=True):
    """A turn that a client asks for: its lane, empty for the default one, and the body that HTTP would be sent.

    Without `generates` no model is asked: the input waits for the turn that goes on from it.
    """

    lane: str
    body: bytes
    generates: bool
    previous_response_id: str


class Steer(msgspec.Struct, frozen=True):
    """An attempt to add to a response that is being made."""

    previous_response_id: str
    input: msgspec.Raw


class _Event(msgspec.Struct):
    type: str
    stream_id: str | None = None
    generate: bool | None = None
    background: bool | None = None
    stream: bool | None = None
    previous_response_id: str | None = None


_event_decoder = msgspec.json.Decoder(_Event)
_steer_decoder = msgspec.json.Decoder(Steer)
_decode_fields = msgspec.json.Decoder(Fields).decode


def decode(frame: bytes) -> Create | Steer:
    """What a client says in one frame; raises `Problem`."""
    if len(frame) > FRAME_BYTES_MAX:
        raise Problem("Frame too large: at most 10,000,000 bytes.", status=413, code="body_too_large")
    event = body_of(_event_decoder, frame)
    match event.type:
        case "response.create":
            return _create(event, frame)
        case "response.steer":
            return body_of(_steer_decoder, frame)
        case other:
            raise Problem(
                f"Unknown event type '{other}': send response.create.", param="type", code="unknown_event_type"
            )


def _create(event: _Event, frame: bytes) -> Create:
    if event.stream_id is not None and not _LANE.fullmatch(event.stream_id):
        raise Problem(
            "stream_id must be 1 to 256 letters, digits, underscores, hyphens and periods.",
            param="stream_id",
            code="invalid_stream_id",
        )
    if event.background:
        raise Problem(
            "Background responses are not available over a WebSocket: POST them, or send background=false.",
            param="background",
            code="unsupported_parameter",
        )
    body = {name: value for name, value in _decode_fields(frame).items() if name not in _ENVELOPE}
    return Create(
        lane=event.stream_id or "",
        body=encode(body | {"stream": _TRUE}),
        generates=event.generate is not False,
        previous_response_id=event.previous_response_id or "",
    )


def error_event(problem: Problem, lane: str = "") -> bytes:
    """The event that tells of a problem, with the lane that it came up in."""
    error: dict[str, Any] = msgspec.structs.asdict(error_of(problem))
    if problem.headers:
        error["headers"] = problem.headers
    event = {"type": "error", "status": _STATUSES.get(problem.code or "", problem.status), "error": error}
    return encode(event | ({"stream_id": lane} if lane else {}))


def steer_failed(steer: Steer) -> bytes:
    """The event that gives back what a response was to be steered with."""
    return encode(
        {
            "type": "response.steer.failed",
            "sequence_number": 0,
            "error": {
                "type": "invalid_request_error",
                "code": "steering_not_supported",
                "message": "Responses can not be steered here: send the input with the next response.create.",
            },
            "steer": steer,
        }
    )


def limit_reached() -> Problem:
    """The connection has lasted as long as one may."""
    return Problem(
        "Responses websocket connection limit reached (60 minutes). Create a new websocket connection to continue.",
        code="websocket_connection_limit_reached",
    )


def too_many_lanes() -> Problem:
    """The connection has named as many lanes as one may."""
    return Problem(
        f"This WebSocket connection has reached its maximum number of distinct stream IDs ({LANES_MAX}). Reuse an "
        "existing stream_id or open a new WebSocket connection.",
        param="stream_id",
        code="websocket_stream_limit_reached",
    )


def too_many_waiting() -> Problem:
    """As much is waiting for its turn on the connection as may."""
    return Problem(
        "Too much is waiting on this WebSocket connection: its turns run one after another. Send this again once one "
        "has ended.",
        status=429,
        type_="rate_limit_error",
        code="websocket_queue_full",
    )


def not_text() -> Problem:
    """A frame that is not text."""
    return Problem("Binary frames are not taken: send events as JSON text.", code="invalid_frame")
