"""Stored chat completions on the wire: which are asked for, and what each shows."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from api.problem import Problem
from api.turns.directory import COMPLETION
from api.wire.chat import Choice, completion
from api.wire.checks import Metadata
from api.wire.decode import body_of, encode
from api.wire.query import Between, Order, Parameter
from projections.completions import Stored
from projections.messages import fields
from projections.turn import Turn

LIMIT_DEFAULT = 20
LIMIT_MAX = 100
NOTES_MAX = 16
VALUE_CHARACTERS_MAX = 512  # of metadata; no model's name is longer either

MODEL = Parameter(
    "model", "Only those that this model answered.", {"type": "string", "maxLength": VALUE_CHARACTERS_MAX}
)
LIMIT = Between("limit", LIMIT_DEFAULT, LIMIT_MAX, "How many the page has at most.")
ORDER = Order("asc")
PAGE = (
    Parameter("after", "The id behind which the page begins.", {"type": "string", "minLength": 1}),
    LIMIT.parameter,
    ORDER.parameter,
)

_KEY = re.compile(r"metadata\[(?P<key>.{1,64})\]", re.DOTALL)
_COMPLETION_ID = re.compile(rf"{COMPLETION}(?P<turn_id>[0-9a-z]{{1,64}})")


class Page(msgspec.Struct, frozen=True):
    """A page of the completions that are asked for."""

    stored: Stored
    limit: int


class Slice(msgspec.Struct, frozen=True):
    """A page of a completion's messages, counted from 0; `after` is None where it begins at the beginning."""

    after: int | None
    limit: int
    is_newest_first: bool


class StoredCompletion(msgspec.Struct):
    """A completion as it was answered, with what it was asked with. All keys, always."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: msgspec.Raw
    metadata: Any
    system_fingerprint: str | None
    service_tier: str | None
    moderation: Any
    input_user: Any
    tools: Any
    tool_choice: Any
    response_format: Any
    seed: Any
    temperature: Any
    top_p: Any
    presence_penalty: Any
    frequency_penalty: Any


class CompletionList(msgspec.Struct):
    """A page of completions."""

    object: Literal["list"]
    data: list[StoredCompletion]
    first_id: str | None
    last_id: str | None
    has_more: bool


class StoredMessage(msgspec.Struct, omit_defaults=True):
    """A message that a completion answered. What came in parts has these as `content_parts`, and no `content`."""

    id: str
    role: str
    content: str | None
    name: str | None
    content_parts: list[dict[str, Any]] | None
    refusal: Any = None
    tool_calls: Any = None
    tool_call_id: Any = None
    function_call: Any = None
    audio: Any = None
    annotations: Any = None


class MessageList(msgspec.Struct):
    """A page of messages."""

    object: Literal["list"]
    data: list[StoredMessage]
    first_id: str | None
    last_id: str | None
    has_more: bool


class UpdateRequest(msgspec.Struct):
    """What of a completion can be changed; null takes all of it away."""

    metadata: Metadata | None


_decode_update = msgspec.json.Decoder(UpdateRequest)
# What is shown of a request, and what holds where it does not say.
_ECHOED: dict[str, Any] = {
    "tools": None,
    "tool_choice": None,
    "response_format": None,
    "seed": None,
    "temperature": 1.0,
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
_REST = ("refusal", "tool_calls", "tool_call_id", "function_call", "audio", "annotations")


def page_of(query: Mapping[str, str]) -> Page:
    """The page of completions that the query asks for, `metadata[key]=value` among it; raises `Problem`."""
    after = _COMPLETION_ID.fullmatch(query.get("after", ""))
    if "after" in query and not after:
        raise _invalid("after", "must be the id of a chat completion")
    stored = Stored(
        model=_short("model", query.get("model", "")),
        metadata=_notes(query),
        after=after["turn_id"] if after else "",
        is_newest_first=ORDER.of(query) == "desc",
    )
    return Page(stored, LIMIT.of(query))


def slice_of(query: Mapping[str, str], completion_id: str) -> Slice:
    """The page of a completion's messages that the query asks for; raises `Problem`."""
    after = None
    if "after" in query:
        owner, _, number = query["after"].rpartition("-")
        if owner != completion_id or not re.fullmatch("[0-9]{1,9}", number):
            raise _invalid("after", "must be the id of one of this completion's messages")
        after = int(number)
    return Slice(after, LIMIT.of(query), ORDER.of(query) == "desc")


def new_metadata(body: bytes) -> bytes:
    """The metadata that an update asks for; raises `Problem`."""
    return encode(body_of(_decode_update, body).metadata or {})


def stored_completion(turn: Turn) -> StoredCompletion:
    """A stored turn that has completed."""
    said = completion(turn)
    asked = fields(turn.started.parameters)
    return StoredCompletion(
        id=said.id,
        object=said.object,
        created=said.created,
        model=said.model,
        choices=said.choices,
        usage=said.usage,
        metadata=fields(turn.annotated) if turn.annotated else asked.get("metadata") or {},
        system_fingerprint=said.system_fingerprint,
        service_tier=said.service_tier,
        moderation=said.moderation,
        input_user=asked.get("user"),
        **{name: asked.get(name, default) for name, default in _ECHOED.items()},
    )


def completion_list(turns: Sequence[Turn], *, has_more: bool) -> CompletionList:
    """A page of completions."""
    data = [stored_completion(turn) for turn in turns]
    return CompletionList("list", data, data[0].id if data else None, data[-1].id if data else None, has_more)


def message_list(completion_id: str, messages: Sequence[bytes], page: Slice) -> MessageList:
    """A page of a completion's messages."""
    numbers = range(len(messages))
    if page.is_newest_first:
        numbers = numbers[: page.after][::-1]
    elif page.after is not None:
        numbers = numbers[page.after + 1 :]
    data = [_message(f"{completion_id}-{number}", fields(messages[number])) for number in numbers[: page.limit]]
    has_more = len(numbers) > page.limit
    return MessageList("list", data, data[0].id if data else None, data[-1].id if data else None, has_more)


def _message(message_id: str, said: dict[str, Any]) -> StoredMessage:
    content = said.get("content")
    return StoredMessage(
        id=message_id,
        role=said.get("role", ""),
        content=content if isinstance(content, str) else None,
        name=said.get("name"),
        content_parts=content if isinstance(content, list) else None,
        **{name: said.get(name) for name in _REST},
    )


def _notes(query: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The pairs that a completion must have: `metadata[key]=value`."""
    notes = []
    for name, value in query.items():
        if not name.startswith("metadata"):
            continue
        key = _KEY.fullmatch(name)
        if not key:
            raise _invalid("metadata", "must be given as metadata[key]=value, keys of 1 to 64 characters")
        notes.append((key["key"], _short(name, value)))
    if len(notes) > NOTES_MAX:
        raise _invalid("metadata", f"must have at most {NOTES_MAX} pairs")
    return tuple(notes)


def _short(name: str, text: str) -> str:
    if len(text) > VALUE_CHARACTERS_MAX:
        raise _invalid(name, f"must have at most {VALUE_CHARACTERS_MAX} characters")
    return text


def _invalid(name: str, expected: str) -> Problem:
    return Problem(f"'{name}' {expected}.", param=name, code="invalid_value")
