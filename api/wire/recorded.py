"""An event of the log as JSON: what every MessagePack reader could make of it, and where it stands."""

import datetime
from typing import Any

import msgspec

from eventstore.events import Erased, type_name
from eventstore.log import Recorded


class EventObject(msgspec.Struct, frozen=True, omit_defaults=True):
    """One event. `data` are its fields; JSON that was kept as bytes is shown as the JSON it is, other bytes in
    hexadecimal. What was `erased` has none.
    """

    position: int
    stream: str
    version: int
    recorded_at: str
    type: str
    data: dict[str, Any]
    hash: str
    erased: bool = False


def event_object(recorded: Recorded) -> EventObject:
    """The event as it is shown."""
    return EventObject(
        position=recorded.position,
        stream=recorded.stream,
        version=recorded.version,
        recorded_at=rfc3339(recorded.recorded_us),
        type=type_name(recorded.event),
        data=fields_of(recorded),
        hash=recorded.hash.hex(),
        erased=isinstance(recorded.event, Erased),
    )


def fields_of(recorded: Recorded) -> dict[str, Any]:
    """The event's fields, for people to read."""
    if isinstance(recorded.event, Erased):
        return {}
    fields: dict[str, Any] = msgspec.to_builtins(recorded.event, builtin_types=(bytes,))
    del fields["type"]
    return {name: _shown(value) for name, value in fields.items()}


def rfc3339(recorded_us: int) -> str:
    """The moment, in microseconds UTC since 1970, as RFC 3339 has it."""
    moment = datetime.datetime.fromtimestamp(recorded_us // 1_000_000, datetime.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{recorded_us % 1_000_000:06d}Z"


def _shown(value: Any) -> Any:
    if isinstance(value, bytes):
        try:
            return msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # a digest may well begin like a string
            return value.hex()
    if isinstance(value, list | tuple):
        return [_shown(entry) for entry in value]
    return value
