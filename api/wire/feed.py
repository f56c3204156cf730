"""The log as a feed on the wire: which events are asked for, and how they are told."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import msgspec

from api.problem import Problem, envelope
from api.wire.decode import encode
from api.wire.query import DIGITS_MAX, SAID_BACK_MAX, Between, Parameter, Text, Whole
from api.wire.recorded import EventObject, event_object
from api.wire.run_stream import LAST_EVENT_ID
from eventstore.events import STORED_TYPES
from eventstore.log import EVENTS_MAX, Part, Recorded, Selected

NUMBER_MAX = (1 << 63) - 1  # as SQLite can take it
SLICE_EVENTS = 50  # made into JSON without a pause
TYPES = tuple(sorted(cls.__name__ for cls in STORED_TYPES))
STREAM_TYPE = "text/event-stream"

_AFTER = Whole("after", 0, NUMBER_MAX, "The position behind which to begin.")
_UNTIL = Whole("until", 0, NUMBER_MAX, "The position up to and with which to go; a stream ends there.")
_SESSION = Text("session", "Only events of the lineage that has a session of this id.")
_AFTER_VERSION = Whole("after_version", 0, NUMBER_MAX, "The version behind which to begin, with `session`.")
_UNTIL_VERSION = Whole(
    "until_version", 0, NUMBER_MAX, "The version up to and with which to go, with `session`; a stream ends there."
)
_LIMIT = Between("limit", 100, EVENTS_MAX, "How many events a page has at most.")
_TYPE = Parameter(
    "type",
    "Only events of these types: once for each, or with commas between them.",
    {"type": "array", "items": {"enum": list(TYPES)}},
)
_UNLIMITED = {"type": "integer", "minimum": 0}
PARAMETERS = (
    *(_AFTER.parameter, _UNTIL.parameter._replace(schema=_UNLIMITED), _SESSION.parameter, _TYPE),
    *(_AFTER_VERSION.parameter, _UNTIL_VERSION.parameter._replace(schema=_UNLIMITED), _LIMIT.parameter),
    Parameter(LAST_EVENT_ID, "The id of the last event that was seen, instead of `after`.", _UNLIMITED, "header"),
)


class Asked(NamedTuple):
    """Which events: a part of the log that has no stream yet, and the session whose stream is wanted, if any."""

    part: Part
    session_id: str
    limit: int


class EventList(msgspec.Struct, kw_only=True):
    """A page of events, oldest first. `next_after` is how far the log was looked through for it, and the `after` of the
    next page; while it `has_more`, a page may hold fewer events than its limit, or none. `head` is the log's newest
    position.
    """

    object: Literal["list"] = "list"
    data: list[EventObject]
    has_more: bool
    next_after: int
    head: int


def asked(tenant: str, query: Mapping[str, str], types: Sequence[str], headers: Mapping[str, str]) -> Asked:
    """What of a tenant's events a client wants; raises `Problem`."""
    session_id = _SESSION.of(query)
    for version in (_AFTER_VERSION, _UNTIL_VERSION):
        if version.name in query and not session_id:
            raise Problem(
                f"{version.name} counts the events of one session: send 'session' too.",
                param=version.name,
                code="missing_required_parameter",
            )
    part = Part(
        after_position=_last_seen(headers.get(LAST_EVENT_ID), _AFTER.of(query)),
        until_position=_limit(_UNTIL, query),
        tenant=tenant,
        after_version=_AFTER_VERSION.of(query),
        until_version=_limit(_UNTIL_VERSION, query),
        types=_types(types),
    )
    return Asked(part, session_id, _LIMIT.of(query))


def wants_stream(accepted: str) -> bool:
    """Whether an `Accept` header asks for server-sent events."""
    return any(media.partition(";")[0].strip().lower() == STREAM_TYPE for media in accepted.split(","))


async def event_list(found: Selected, head: int) -> EventList:
    """A page. Others have their turn while a long one is made."""
    data: list[EventObject] = []
    for first in range(0, len(found.events), SLICE_EVENTS):
        data += map(event_object, found.events[first : first + SLICE_EVENTS])
        await asyncio.sleep(0)
    return EventList(data=data, has_more=not found.is_all, next_after=found.looked_to, head=head)


def told(recorded: Recorded) -> bytes:
    """An event as a server-sent one."""
    event = event_object(recorded)
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.position, event.type.encode(), encode(event))


def failing(problem: Problem) -> bytes:
    """The last event of a stream that can not go on."""
    return b"event: error\ndata: %s\n\n" % encode(envelope(problem))


def _types(sent: Sequence[str]) -> frozenset[str]:
    names = [name.strip() for text in sent for name in text.split(",")]
    for name in names:
        if name not in TYPES:
            raise Problem(
                f"type must be of {', '.join(TYPES)}; got '{name[:SAID_BACK_MAX]}'.",
                param=_TYPE.name,
                code="invalid_value",
            )
    return frozenset(names)


def _limit(number: Whole, query: Mapping[str, str]) -> int | None:
    return number.of(query) if number.name in query else None


def _last_seen(said: str | None, otherwise: int) -> int:
    """The position that a client has seen last: who connects again says it beside the query that it began with."""
    text = (said or "").strip()
    if not text:
        return otherwise
    if not (text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX and int(text) <= NUMBER_MAX):
        raise Problem(
            f"{LAST_EVENT_ID} must be the id of an event of this feed: a position.",
            param=LAST_EVENT_ID,
            code="invalid_value",
        )
    return int(text)
