"""Erasing, on the wire: what is to be erased, and what was."""

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from api.problem import Problem
from api.turns.erasure import ErasedLineage, Order
from api.turns.erasure_scope import KINDS, Selection
from api.wire.decode import body_of
from api.wire.headers import UNPRINTABLE
from api.wire.query import Flag, Text

VALUE_CHARACTERS_MAX = 256

ERASE = Flag("erase", "Erase what was said, too: from the log, the views and their files, for good.")
WHY = Text("why", "The reason, which is recorded with the erasure.")


class ErasureRequest(msgspec.Struct):
    """Whose words are to be erased: exactly one of the four, and why."""

    session: str | None = None
    conversation: str | None = None
    user: str | None = None
    session_key: str | None = None
    why: str | None = None


class ErasedSession(msgspec.Struct):
    """A session that was erased, by the id of its first: all `session_ids` that compressions gave it, and how many of
    its events have lost their content. An empty id: a turn was queued that never began.
    """

    id: str
    session_ids: tuple[str, ...]
    events: int


class ErasureObject(msgspec.Struct):
    """What was erased."""

    object: Literal["hermes.erasure"]
    events: int
    sessions: list[ErasedSession]


class DeletedSession(msgspec.Struct):
    """A session that is gone, and what was erased of it, if that was asked for."""

    id: str
    object: Literal["hermes.session.deleted"]
    deleted: Literal[True] = True
    erased: ErasureObject | UnsetType = UNSET


_decoder = msgspec.json.Decoder(ErasureRequest)


def order_of(body: bytes, tenant: str, by: str) -> Order:
    """The erasure that a body asks for; raises `Problem`."""
    asked = body_of(_decoder, body)
    given = [(kind, value) for kind in KINDS if (value := getattr(asked, kind))]
    if len(given) != 1:
        raise Problem(
            f"Send exactly one of {', '.join(KINDS)}, and not empty; got {len(given)}.",
            param="session",
            code="invalid_selection",
        )
    kind, value = given[0]
    return Order(tenant, Selection(kind, _checked(value, kind)), by, _checked(asked.why or "", "why"))


def erasure_object(erased: list[ErasedLineage]) -> ErasureObject:
    """What was erased, as it is told."""
    sessions = [ErasedSession(found.root_id, found.session_ids, found.events) for found in erased]
    return ErasureObject("hermes.erasure", sum(found.events for found in erased), sessions)


def _checked(text: str, name: str) -> str:
    if len(text) > VALUE_CHARACTERS_MAX or UNPRINTABLE.search(text):
        raise Problem(
            f"{name} must be at most {VALUE_CHARACTERS_MAX} characters, without control characters.",
            param=name,
            code="invalid_value",
        )
    return text
