"""What of the list of sessions a client asks for: filters, and a page by offset or by cursor."""

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated

import msgspec

from api.problem import Problem
from api.wire.query import Flag, Parameter, Text, Whole
from projections.session_list import After, Wanted
from projections.sessions import SessionRow

LIMIT_DEFAULT = 50
LIMIT_MAX = 200
OFFSET_MAX = 1_000_000
MESSAGES_MAX = 500

LIMIT = Whole("limit", LIMIT_DEFAULT, LIMIT_MAX, "How many sessions a page has at most; 200 and no more.")
OFFSET = Whole("offset", 0, OFFSET_MAX, "How many sessions come before the page.")
SOURCE = Text("source", "Only sessions of this source.")
USER = Text("user", "Only sessions of this user id.")
SESSION_KEY = Text("session_key", "Only sessions under this session key.")
INCLUDE_CHILDREN = Flag("include_children", "Each session of a lineage by itself, not the newest alone.")
CURSOR = Parameter("cursor", "`next_cursor` of the page before, instead of an offset.", {"type": "string"})
PAGE = (
    *(LIMIT.parameter, OFFSET.parameter, CURSOR),
    *(SOURCE.parameter, USER.parameter, SESSION_KEY.parameter, INCLUDE_CHILDREN.parameter),
)
MESSAGES_LIMIT = Whole("limit", MESSAGES_MAX, MESSAGES_MAX, "How many messages a page has at most; 500 and no more.")
MESSAGES_OFFSET = Whole("offset", 0, OFFSET_MAX, "How many messages come before the page; without it, the newest page.")

_Whole = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]  # as SQLite can take it
_cursor = msgspec.json.Decoder(tuple[_Whole, str, _Whole])
_encode = msgspec.json.Encoder().encode


class Page(msgspec.Struct, frozen=True):
    """A page of the sessions that are `wanted`, of at most `limit`."""

    wanted: Wanted
    limit: int


def page_of(query: Mapping[str, str]) -> Page:
    """The page that the query asks for; raises `Problem`."""
    cursor = query.get("cursor", "")
    if cursor and "offset" in query:
        raise Problem(
            "Cannot use both 'cursor' and 'offset': send the one that says where to go on.",
            param="cursor",
            code="mutually_exclusive_parameters",
        )
    wanted = Wanted(
        source=SOURCE.of(query),
        user_id=USER.of(query),
        session_key=SESSION_KEY.of(query),
        has_children=INCLUDE_CHILDREN.of(query),
        after=_after(cursor) if cursor else None,
        offset=OFFSET.of(query),
    )
    return Page(wanted, LIMIT.of(query))


def cursor_behind(row: SessionRow) -> str:
    """What leads to the page that begins behind the row."""
    return base64.urlsafe_b64encode(_encode((row.active_us, row.root_id, row.generation))).decode().rstrip("=")


def _after(cursor: str) -> After:
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return After(*_cursor.decode(text))
    except (binascii.Error, ValueError, msgspec.DecodeError, RecursionError):
        raise Problem(
            "The cursor is none that this server gave: send 'next_cursor' of the page before as it is.",
            param="cursor",
            code="invalid_cursor",
        ) from None
