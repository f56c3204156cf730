"""What of the list of sessions a client asks for: filters, and a page by offset or by cursor."""

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated

import msgspec

from api.problem import Problem
from api.wire.headers import CHARACTERS_MAX, UNPRINTABLE
from projections.session_list import After, Wanted
from projections.sessions import SessionRow

LIMIT_DEFAULT = 50
LIMIT_MAX = 200
OFFSET_MAX = 1_000_000
MESSAGES_MAX = 500

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off", ""})
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
        source=_text(query, "source"),
        user_id=_text(query, "user"),
        session_key=_text(query, "session_key"),
        has_children=flag(query, "include_children"),
        after=_after(cursor) if cursor else None,
        offset=whole_number(query, "offset", 0, OFFSET_MAX),
    )
    return Page(wanted, whole_number(query, "limit", LIMIT_DEFAULT, LIMIT_MAX))


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


def whole_number(query: Mapping[str, str], name: str, default: int, maximum: int) -> int:
    """A query parameter from 0 to `maximum`; raises `Problem`. More than the maximum is the maximum."""
    text = query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit():
        raise Problem(f"{name} must be a whole number from 0, got '{text}'.", param=name, code="invalid_value")
    return min(int(text[:20]), maximum)


def flag(query: Mapping[str, str], name: str) -> bool:
    """A query parameter that is on or off, off where it lacks; raises `Problem`."""
    text = query.get(name, "").strip().lower()
    if text not in _TRUE | _FALSE:
        raise Problem(f"{name} must be true or false, got '{text}'.", param=name, code="invalid_value")
    return text in _TRUE


def _text(query: Mapping[str, str], name: str) -> str:
    """A query parameter that is compared with what clients say of themselves in headers; empty is absent."""
    text = query.get(name, "")
    if len(text) > CHARACTERS_MAX or UNPRINTABLE.search(text):
        raise Problem(
            f"{name} must be at most {CHARACTERS_MAX} characters, without control characters.",
            param=name,
            code="invalid_value",
        )
    return text
