"""Every fact turnlog ever stores, and their bytes.

A fact is a frozen tagged struct in the past tense, stored as a MessagePack map whose `type` is the class name: any
MessagePack reader can show it without this file. The names of classes and fields are the storage format. They never
change; fields are only added, with defaults. A change of meaning gets a new name with a version behind a colon
(`TurnStarted:2`), so that an older reader says which version it lacks instead of guessing.

Streams are named `lineage/TENANT/ROOT_SESSION_ID`, `conversation/TENANT/NAME` and `queue/TENANT/TURN_ID`.

Facts hold no time: the log stamps `recorded_us` on each as it is recorded, once. Items, parameters and usage are kept
as the JSON bytes they came in: nothing is lost by a schema that was too narrow.
"""

from functools import lru_cache
from typing import Literal, NamedTuple, TypeAlias, get_args

import msgspec

Api: TypeAlias = Literal["chat", "responses", "runs"]
CancelReason: TypeAlias = Literal["client", "disconnect", "shutdown", "crash"]
EvictReason: TypeAlias = Literal["lru", "expired", "deleted"]
Trigger: TypeAlias = Literal["threshold", "request", "manual"]


class Identity(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Who speaks, as the client's identity headers say it. Recorded and echoed, never interpreted."""

    user_id: str = ""
    user_name: str = ""
    chat_id: str = ""
    chat_name: str = ""
    chat_type: str = ""
    thread_id: str = ""


class ForkPoint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Where a fork left its parent: everything up to and with `turn_id`, in the lineage of `root_id`, is inherited.

    `messages` is how many messages the inherited transcript has.
    """

    session_id: str
    root_id: str
    turn_id: str
    messages: int = 0


class Recalled(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A passage of another session that a turn was given as context: a stretch of one of its turns' messages.

    `message` counts the turn's messages from 0, input first; `first` and `length` are characters of that one's text.
    """

    root_id: str
    turn_id: str
    message: int
    first: int
    length: int


class Fact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False, tag=True):
    """What all facts share: how they are stored."""


class SessionStarted(Fact, frozen=True, kw_only=True):
    """A lineage began. Always the first event of its stream; again in it only behind a `SessionDeleted`.

    `system_prompt` precedes the instructions of every turn. `model` is that of turns that name none.
    """

    session_id: str
    forked_from: ForkPoint | None = None
    session_key: str = ""
    identity: Identity = Identity()
    source: str = ""
    title: str = ""
    model: str = ""
    system_prompt: str = ""


class TurnStarted(Fact, frozen=True, kw_only=True):
    """A turn is open: its input is durable, the model is about to be called, the lineage is locked.

    `items` are the turn's new input items only, each one JSON object as the client sent it: chat messages or Responses
    items, as `api` says. `instructions` are chat messages (system, developer) that hold for this turn alone.
    `parameters` is a JSON object of everything else in the body. The lock ends with the turn, or `lease_ms` after it
    was recorded. `session_key` and `identity` are None where they are the session's own.

    `idempotency_scope` is the route and the session as the client named it, within which the key is one. `recalled` are
    the passages of other sessions that the model was given. `uncompressed` says why a rotation that was due did not
    happen. A `background` turn goes on without its client.

    `upstream_api` is what the model's server spoke, where that was not the chat dialect (see `api/models/model.py`),
    `upstream_model` its own name for the model, where it has another. A turn was `sent_alone` that was answered while
    the log was out of reach: the model saw its last so many items, and nothing else.
    """

    turn_id: str
    api: Api
    model: str
    items: tuple[bytes, ...]
    instructions: tuple[bytes, ...] = ()
    parameters: bytes = b"{}"
    stream: bool = False
    owner: str
    lease_ms: int
    conversation: str = ""
    previous_response_id: str = ""
    idempotency_key: str = ""
    body_digest: bytes = b""
    session_key: str | None = None
    identity: Identity | None = None
    idempotency_scope: str = ""
    recalled: tuple[Recalled, ...] = ()
    uncompressed: str = ""
    background: bool = False
    upstream_api: str = ""
    upstream_model: str = ""
    sent_alone: int = 0


class TurnRestarted(Fact, frozen=True, kw_only=True):
    """An open background turn that its owner had left was taken over by another, from its beginning."""

    turn_id: str
    owner: str
    lease_ms: int


class TurnCompleted(Fact, frozen=True, kw_only=True):
    """The model answered, or stopped at its token limit: from now on the turn is part of every later prompt.

    `output` is what joins the transcript, `alternatives` the other choices where the client asked for several, each
    one assistant message (JSON) as the model server gave it. `usage` is the server's own object, `extra` whatever
    else its answer held (log probabilities, fingerprints), both JSON or empty. `delta_lengths` counts the characters
    of each piece of text as it was streamed. `history_digest` is that of all that was said up to and with this turn, by
    which a client that resends it is known again.

    Where something else than content was streamed too, `delta_fields` says of each piece what it was a piece of, by the
    numbers of `projections/pieces.py`, and where it was streamed with log probabilities, `delta_tokens` how many of
    them came with it.

    A prompt was `resent` whose thoughts the model's server had refused: what it answered was the same without them.
    """

    turn_id: str
    output: tuple[bytes, ...]
    finish_reason: str
    usage: bytes = b""
    model: str = ""
    alternatives: tuple[bytes, ...] = ()
    extra: bytes = b""
    delta_lengths: tuple[int, ...] = ()
    history_digest: bytes = b""
    delta_fields: tuple[int, ...] = ()
    delta_tokens: tuple[int, ...] = ()
    resent: bool = False


class TurnFailed(Fact, frozen=True, kw_only=True):
    """The model did not answer. Nothing of the turn is in a later prompt. `output` is what had come until then; `extra`
    has its log probabilities, where there were any.
    """

    turn_id: str
    code: str
    message: str
    status: int
    output: tuple[bytes, ...] = ()
    delta_lengths: tuple[int, ...] = ()
    delta_fields: tuple[int, ...] = ()
    delta_tokens: tuple[int, ...] = ()
    extra: bytes = b""


class TurnCancelled(Fact, frozen=True, kw_only=True):
    """The turn was stopped, by whom or what `reason` says. Nothing of it is in a later prompt."""

    turn_id: str
    reason: CancelReason
    output: tuple[bytes, ...] = ()
    delta_lengths: tuple[int, ...] = ()
    delta_fields: tuple[int, ...] = ()
    delta_tokens: tuple[int, ...] = ()
    extra: bytes = b""


class CompressionRotated(Fact, frozen=True, kw_only=True):
    """The session ended with reason `compression`; its lineage goes on in a child, whose transcript is shorter.

    The child begins with the first `head` messages of the old transcript, the `summary` (one chat message, JSON), and
    the last `tail` messages; `first_kept_turn_id` is the turn that the tail begins in, empty where there is no tail.
    Tokens are estimates of the whole prompt. `summariser` is the model that wrote the summary, or "deterministic".
    """

    old_session_id: str
    session_id: str
    summary: bytes
    head: int
    tail: int
    first_kept_turn_id: str = ""
    trigger: Trigger
    tokens_before: int
    tokens_after: int
    summariser: str
    usage: bytes = b""
    title: str = ""


class ConversationAdvanced(Fact, frozen=True, kw_only=True):
    """A conversation's newest response changed. Recorded in one append with the turn's `TurnCompleted`."""

    conversation: str
    session_id: str
    turn_id: str


class ResponseEvicted(Fact, frozen=True, kw_only=True):
    """A response is no longer addressable by its id. Its turn, its session and its conversation are untouched."""

    turn_id: str
    reason: EvictReason


class ResponseAnnotated(Fact, frozen=True, kw_only=True):
    """The client's own notes on a stored response were replaced: a JSON object of strings."""

    turn_id: str
    metadata: bytes


class ItemsAdded(Fact, frozen=True, kw_only=True):
    """Items joined the transcript without a model being asked: a turn of their own, which nobody answers.

    `items` are Responses items, each one JSON object as the client sent it.
    """

    turn_id: str
    items: tuple[bytes, ...]


class ItemRemoved(Fact, frozen=True, kw_only=True):
    """An item is no longer part of the transcript. The turn that it came in with stays, without it.

    Where a compression has kept its message, that is number `base` of the messages that the session begins with, and
    `rest` is what remains of it: one chat message (JSON), empty where nothing does.
    """

    turn_id: str
    item_id: str
    base: int = -1
    rest: bytes = b""


class SessionRenamed(Fact, frozen=True, kw_only=True):
    """The lineage's newest session has another title."""

    title: str


class SessionAnnotated(Fact, frozen=True, kw_only=True):
    """The client's own notes on the session were replaced: a JSON object of strings."""

    metadata: bytes


class SessionEnded(Fact, frozen=True, kw_only=True):
    """A client says that it is done with the session. The first reason counts; a new turn opens it again."""

    reason: str


class SessionDeleted(Fact, frozen=True, kw_only=True):
    """The lineage is gone for its clients: nothing of it can be read, found or continued. Its ids are free again."""


class SessionErased(Fact, frozen=True, kw_only=True):
    """The content of a lineage that had been deleted was taken out of the log for good: its events keep the digests of
    what they held.

    `ranges` are the positions that lost their content, first and last of each run: the lineage's own, those of its
    conversations and of its queued turns. `by` says who asked for it, `why` for what reason.
    """

    ranges: tuple[tuple[int, int], ...]
    by: str
    why: str


class ConversationCreated(Fact, frozen=True, kw_only=True):
    """A name was claimed, with the root session id that it leads to; again in its stream once that was deleted.

    `metadata` are the client's own notes: a JSON object of strings, or empty.
    """

    name: str
    session_id: str
    metadata: bytes = b""


class ConversationUpdated(Fact, frozen=True, kw_only=True):
    """The client's own notes on the conversation were replaced: a JSON object of strings."""

    metadata: bytes


class ConversationDeleted(Fact, frozen=True, kw_only=True):
    """The name leads nowhere any more. The session that it led to goes on under its own ids."""


class TurnQueued(Fact, frozen=True, kw_only=True):
    """A turn was asked for in the background while its session was busy: it is to begin once its time has come.

    It will have this id, which its client was told. `items` is what opens a session, of which the last `new_items` are
    new where one goes on, and the first `history` may be known; the names are those that the client used, and `root_id`
    is the lineage that the conversation led to, as it still must. The rest is as in `TurnStarted`, with what only its
    beginning needs.
    """

    turn_id: str
    api: Api
    model: str
    items: tuple[bytes, ...]
    new_items: int
    history: int = 0
    instructions: tuple[bytes, ...] = ()
    parameters: bytes = b"{}"
    stream: bool = False
    session_id: str = ""
    conversation: str = ""
    previous_response_id: str = ""
    session_key: str = ""
    identity: Identity = Identity()
    idempotency_key: str = ""
    body_digest: bytes = b""
    compact_threshold_tokens: int = 0
    uses_memory: bool = True
    root_id: str = ""


class TurnDequeued(Fact, frozen=True, kw_only=True):
    """A queued turn waits no more: it has begun, its client has cancelled it, or it was refused, as `reason` says."""

    turn_id: str
    reason: str


class Erased(Fact, frozen=True, kw_only=True):
    """What is read where a fact was erased, and never stored: all that is known of the fact is its type."""

    kind: str


Stored: TypeAlias = (
    SessionStarted
    | TurnStarted
    | TurnRestarted
    | TurnCompleted
    | TurnFailed
    | TurnCancelled
    | CompressionRotated
    | ConversationAdvanced
    | ResponseEvicted
    | ResponseAnnotated
    | ItemsAdded
    | ItemRemoved
    | SessionRenamed
    | SessionAnnotated
    | SessionEnded
    | SessionDeleted
    | SessionErased
    | ConversationCreated
    | ConversationUpdated
    | ConversationDeleted
    | TurnQueued
    | TurnDequeued
)
Event: TypeAlias = Stored | Erased

STORED_TYPES: tuple[type[Stored], ...] = get_args(Stored)
_NAMES = {cls: cls.__name__ for cls in STORED_TYPES}
_KNOWN = frozenset(_NAMES.values())

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Stored] = msgspec.msgpack.Decoder(Stored)


def type_name(event: Event) -> str:
    """The stored name of the event's type."""
    return event.kind if isinstance(event, Erased) else _NAMES[type(event)]


def encode(event: Event) -> bytes:
    """The event as MessagePack bytes."""
    return _encoder.encode(event)


def decode(data: bytes) -> Stored:
    """The event in `data`; raises `msgspec.DecodeError`. `why_not` then tells what is wrong with it."""
    try:
        return _decoder.decode(data)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(str(error)) from None


def why_not(name: str, data: bytes) -> str | None:
    """Why an event of the type `name` can not be read; None where it can."""
    try:
        decode(data)
    except msgspec.DecodeError as error:
        return _reason(name, error)
    return None


def _reason(name: str, error: msgspec.DecodeError) -> str:
    base, _, version = name.partition(":")
    if name in _KNOWN:
        return f"its data is not a {name}: {error}"
    if base in _KNOWN:
        return f"{base} in version {version}; this turnlog reads version 1: use a newer turnlog"
    return f"unknown event type {name!r}; this turnlog knows {', '.join(sorted(_KNOWN))}: use a newer turnlog"


class StreamName(NamedTuple):
    """A stream's name in its parts."""

    category: str
    tenant: str
    name: str


def lineage_stream(tenant: str, root_id: str) -> str:
    """The stream of the lineage whose root session is `root_id`."""
    return f"lineage/{tenant}/{root_id}"


def conversation_stream(tenant: str, name: str) -> str:
    """The stream of the conversation called `name`."""
    return f"conversation/{tenant}/{name}"


def queue_stream(tenant: str, turn_id: str) -> str:
    """The stream of the turn of that id while it waits to begin."""
    return f"queue/{tenant}/{turn_id}"


@lru_cache(maxsize=1_024)  # a turn asks some ten times
def parse_stream(stream: str) -> StreamName:
    """The parts of a stream's name. A tenant never holds a slash; a conversation's name may."""
    category, tenant, name = stream.split("/", 2)
    return StreamName(category, tenant, name)
