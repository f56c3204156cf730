"""What tells one transcript from another: a digest that rolls over everything a client has seen of it.

A client that resends a whole history is known again by it, so the digest must not depend on what clients change on the
way: fields they add or drop (refusals, annotations, reasoning, audio, empty ones), white space around texts, texts cut
into parts, the spelling of a tool call's arguments, the API it is sent by. It depends on the sequence of messages and
on nothing else: not on how turns divide it, not on what a compression has made of it.

A history begins with whose it is, so that equal words of two users never meet. The empty digest is that of a transcript
which was recorded before there were digests; whatever continues it has none either.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from api.turns.request import TurnRequest
from eventstore.events import SessionStarted, TurnCompleted, TurnStarted
from projections.messages import input_messages, messages_of
from projections.session import Session
from projections.turn import Turn

DIGEST_BYTES = 16
UNKNOWN = b""


class Scope(NamedTuple):
    """Whose history it is. Within a tenant, nothing else of a request says so."""

    user_id: str = ""
    session_key: str = ""


class _Message(msgspec.Struct):
    """The fields of a chat message that count."""

    role: Any = None
    content: Any = None
    tool_calls: Any = None
    function_call: Any = None
    tool_call_id: Any = None
    name: Any = None


_decode = msgspec.json.Decoder(_Message).decode
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder(order="deterministic").encode

_TEXTS = frozenset({"text", "input_text", "output_text"})
_NAMED = frozenset({"user", "function"})  # where a name is said to the model; elsewhere clients add and drop it
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def scope_of(session: Session, started: TurnStarted) -> Scope:
    """Whose turn of the session it is: the turn's own word for it, else the session's."""
    whole = session.started or SessionStarted(session_id="")
    identity = whole.identity if started.identity is None else started.identity
    return Scope(identity.user_id, whole.session_key if started.session_key is None else started.session_key)


def asked_scope(request: TurnRequest) -> Scope:
    """Whose turn is asked for."""
    return Scope(request.identity.user_id, request.session_key)


def beginning(scope: Scope) -> bytes:
    """The digest of a history in which nothing has been said yet."""
    return hashlib.sha256(_encode(scope)).digest()[:DIGEST_BYTES]


def extended(digest: bytes, messages: Iterable[bytes]) -> bytes:
    """The digest once `messages` (chat messages, JSON) were said behind what `digest` stands for."""
    if digest == UNKNOWN:
        return UNKNOWN
    for data in messages:
        for said in _canonical(data):
            digest = hashlib.sha256(digest + said).digest()[:DIGEST_BYTES]
    return digest


def digest_asked(request: TurnRequest) -> bytes:
    """The digest of the history that a request resends."""
    resent = messages_of(request.api, request.opening[: request.history])
    return extended(beginning(asked_scope(request)), resent)


def digest_behind(newest: Turn | None, scope: Scope, started: TurnStarted, output: Iterable[bytes]) -> bytes:
    """The digest of all that was said up to and with a turn that completes behind `newest`."""
    if newest is None:
        before = beginning(scope)
    else:
        before = newest.ended.history_digest if isinstance(newest.ended, TurnCompleted) else UNKNOWN
    return extended(extended(before, input_messages(started)), output)


def _canonical(data: bytes) -> Iterator[bytes]:
    """What a message says: its text, and each tool call by itself, as the Responses API has them."""
    try:
        message = _decode(data)
        calls = _calls(message.tool_calls) if message.tool_calls else []
        if message.function_call:
            calls += _calls([message.function_call])
        content = _content(message.content)
        if content is not None or not calls:
            is_named = isinstance(message.role, str) and message.role in _NAMED
            name = message.name or None if is_named else None
            yield _encode((message.role, content, message.tool_call_id or None, name))
        for call in calls:
            yield _encode(call)
    except _UNREADABLE:
        yield data  # nobody's message, and equal to itself alone


def _content(content: Any) -> Any:
    """A text, or texts and other parts in their order; None where nothing is said."""
    if not isinstance(content, list):
        return (content.strip() or None) if isinstance(content, str) else content
    parts: list[Any] = []
    for part in content:
        if _is_text(part):
            if parts and isinstance(parts[-1], str):
                parts[-1] += part["text"]
            else:
                parts.append(part["text"])
        elif not isinstance(part, dict) or part.get("type") != "refusal":
            parts.append(part)
    said = [stripped for part in parts if (stripped := part.strip() if isinstance(part, str) else part)]
    if len(said) == 1 and isinstance(said[0], str):
        return said[0]
    return said or None


def _is_text(part: Any) -> bool:
    if not isinstance(part, dict) or not isinstance(part.get("text"), str):
        return False
    kind = part.get("type")
    return isinstance(kind, str) and kind in _TEXTS


def _calls(calls: Any) -> list[Any]:
    return [_call(call) for call in calls if call] if isinstance(calls, list) else []


def _call(call: Any) -> Any:
    if not isinstance(call, dict):
        return ["call", call]
    function = call.get("function") or call.get("custom") or call
    if not isinstance(function, dict):
        return ["call", call]
    arguments = function.get("arguments", function.get("input"))
    return ["call", call.get("id") or None, function.get("name"), _arguments(arguments)]


def _arguments(arguments: Any) -> Any:
    if not isinstance(arguments, str):
        return arguments
    try:
        return _decode_any(arguments)
    except _UNREADABLE:
        return arguments
