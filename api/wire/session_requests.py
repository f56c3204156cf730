"""What clients ask for a session as a thing: to make one, to change one, to fork one."""

from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from api.problem import Problem
from api.turns.decide_session import Change, NewSession
from api.turns.titles import CHARACTERS_MAX as TITLE_CHARACTERS_MAX
from api.wire.checks import Metadata
from api.wire.decode import body_of, encode
from api.wire.headers import CHARACTERS_MAX, UNPRINTABLE, Continuity, check_session_id

RESERVED = frozenset({"search"})  # what stands in an id's place in a path


class CreateRequest(msgspec.Struct):
    """A session to be made. Whatever else a body holds is passed over, as the older system does."""

    id: str | None = None
    session_id: str | None = None
    title: str | None = None
    model: str | None = None
    system_prompt: str | None = None
    source: str | None = None
    metadata: Metadata | None = None
    user: str | None = None


class PatchRequest(msgspec.Struct):
    """What may be changed of a session. A null title and null metadata are cleared; a null reason is none."""

    title: str | UnsetType | None = UNSET
    metadata: Metadata | UnsetType | None = UNSET
    end_reason: str | None = None


class ForkRequest(msgspec.Struct):
    """Where a session is forked, and what the fork is called; all of it may lack."""

    id: str | None = None
    session_id: str | None = None
    turn_id: str | None = None
    title: str | None = None


_create_decoder = msgspec.json.Decoder(CreateRequest)
_patch_decoder = msgspec.json.Decoder(PatchRequest)
_fork_decoder = msgspec.json.Decoder(ForkRequest)
_fields_decoder = msgspec.json.Decoder(dict[str, Any])
_PATCHED = frozenset(PatchRequest.__struct_fields__)


def decode_create(body: bytes) -> CreateRequest:
    """The session that the body wants made; raises `Problem`."""
    return body_of(_create_decoder, body)


def new_session(asked: CreateRequest, tenant: str, headers: Continuity) -> NewSession:
    """The session that a request wants made; raises `Problem`."""
    return NewSession(
        tenant=tenant,
        session_id=wanted_id(asked),
        title=title_of(asked.title),
        model=_short(asked.model, "model"),
        system_prompt=asked.system_prompt or "",
        source=_short(asked.source, "source"),
        metadata=encode(asked.metadata) if asked.metadata else b"",
        session_key=headers.session_key,
        identity=headers.identity,
    )


def change_of(body: bytes) -> Change:
    """What the body wants changed; raises `Problem`."""
    unknown = sorted(body_of(_fields_decoder, body).keys() - _PATCHED)
    if unknown:
        raise Problem(
            f"Unsupported session fields: {', '.join(unknown)[:CHARACTERS_MAX]}",
            param=unknown[0][:CHARACTERS_MAX],
            code="unsupported_session_field",
        )
    asked = body_of(_patch_decoder, body)
    return Change(
        title=None if asked.title is UNSET else title_of(asked.title),
        metadata=None if asked.metadata is UNSET else encode(asked.metadata or {}),
        end_reason=_short(asked.end_reason, "end_reason") or None,
    )


def decode_fork(body: bytes) -> ForkRequest:
    """Where the body wants a fork; an empty body leaves it all open. Raises `Problem`."""
    return body_of(_fork_decoder, body or b"{}")


def wanted_id(asked: CreateRequest | ForkRequest) -> str:
    """The id that the new session is to have; empty where the server is to choose. Raises `Problem`."""
    param = "id" if asked.id else "session_id"
    session_id = (asked.id or asked.session_id or "").strip()
    if len(session_id) > CHARACTERS_MAX:
        raise Problem(
            f"Session ID too long: at most {CHARACTERS_MAX} characters, got {len(session_id)}.",
            param=param,
            code="invalid_session_id",
        )
    if UNPRINTABLE.search(session_id):
        raise Problem("Invalid session ID: it holds control characters.", param=param, code="invalid_session_id")
    check_session_id(session_id, param)
    if session_id in RESERVED:
        raise Problem(f"'{session_id}' is a route's name: choose another.", param=param, code="invalid_session_id")
    return session_id


def title_of(title: str | None) -> str:
    """A title without spaces around it; raises `Problem`."""
    title = (title or "").strip()
    if len(title) > TITLE_CHARACTERS_MAX or UNPRINTABLE.search(title):
        raise Problem(
            f"title must be at most {TITLE_CHARACTERS_MAX} characters, without control characters.",
            param="title",
            code="invalid_title",
        )
    return title


def turn_id_of(turn_id: str | None) -> str:
    """The id of a turn or of its response; raises `Problem`."""
    return _short(turn_id, "turn_id")


def _short(text: str | None, name: str) -> str:
    text = (text or "").strip()
    if len(text) > CHARACTERS_MAX or UNPRINTABLE.search(text):
        raise Problem(
            f"{name} must be at most {CHARACTERS_MAX} characters, without control characters.",
            param=name,
            code="invalid_value",
        )
    return text
