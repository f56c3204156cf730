"""The continuity headers, in and out. Names and limits are those of the system whose clients must work unchanged."""

import re
from collections.abc import Mapping
from typing import Self

import msgspec

from api.problem import Problem
from api.turns.open_turn import PLAIN, Marks
from eventstore.events import Identity

SESSION_ID = "X-Hermes-Session-Id"
SESSION_KEY = "X-Hermes-Session-Key"
IDENTITY = {
    "X-Hermes-User-Id": "user_id",
    "X-Hermes-User-Name": "user_name",
    "X-Hermes-Chat-Id": "chat_id",
    "X-Hermes-Chat-Name": "chat_name",
    "X-Hermes-Chat-Type": "chat_type",
    "X-Hermes-Thread-Id": "thread_id",
}
IDEMPOTENCY_KEY = "Idempotency-Key"
IDEMPOTENCY_REPLAYED = "Idempotency-Replayed"
MEMORY = "X-Turnlog-Memory"
COMPRESSION = "X-Turnlog-Compression"
RECALLED = "X-Turnlog-Recalled"
HISTORY = "X-Turnlog-History"
CONTINUITY = (SESSION_ID, SESSION_KEY, *IDENTITY)
REMARKS = (IDEMPOTENCY_REPLAYED, COMPRESSION, RECALLED, HISTORY)  # only ever in answers
CHARACTERS_MAX = 256
# Control characters, and the lone surrogates that aiohttp makes of bytes that are not UTF-8.
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def _remarks(marks: Marks) -> dict[str, str]:
    remarks = {
        IDEMPOTENCY_REPLAYED: "true" if marks.is_replayed else "",
        COMPRESSION: marks.compression,
        RECALLED: str(marks.recalled or ""),
        HISTORY: "" if marks.has_history else "unavailable",
    }
    return {name: value for name, value in remarks.items() if value}


class Continuity(msgspec.Struct, frozen=True):
    """What a request's headers say about where it belongs. Empty is absent."""

    session_id: str = ""
    session_key: str = ""
    identity: Identity = Identity()
    idempotency_key: str = ""
    uses_memory: bool = True

    def echo(self, session_id: str, marks: Marks = PLAIN) -> dict[str, str]:
        """The headers of the answer: the effective session id, what the client said of itself, and what is remarkable
        about the turn.
        """
        headers = {SESSION_ID: session_id} if session_id else {}
        if self.session_key:
            headers[SESSION_KEY] = self.session_key
        if self.identity != _NOBODY:
            headers |= {name: value for name, field in IDENTITY.items() if (value := getattr(self.identity, field))}
        return headers if marks is PLAIN else headers | _remarks(marks)

    def standing_in(self, user: str | None) -> Self:
        """The same, with the body's `user` where no header names one, and where it could have been one."""
        if not user or self.identity.user_id or len(user) > CHARACTERS_MAX or UNPRINTABLE.search(user):
            return self
        return msgspec.structs.replace(self, identity=msgspec.structs.replace(self.identity, user_id=user))


_NOBODY = Identity()
_NOTHING = Continuity()
_READ = frozenset(name.lower() for name in (*CONTINUITY, IDEMPOTENCY_KEY, MEMORY))


def continuity(headers: Mapping[str, str], *, has_keys: bool) -> Continuity:
    """Read the continuity headers; raises `Problem` where one is malformed, or where there are no keys to tell
    clients apart by.
    """
    found: dict[str, str] = {}
    for name, padded in headers.items():
        known, value = name.lower(), padded.strip()
        if known in _READ and value and found.setdefault(known, value) != value:
            raise Problem(f"{name} is sent twice, with different values.", param=str(name), code="duplicate_header")
    if not found:
        return _NOTHING
    for name in CONTINUITY:
        if said := found.get(name.lower()):
            if not has_keys:
                raise Problem(
                    f"{name} requires API key authentication, and this server has no API key configured.",
                    status=403,
                    code="session_requires_key",
                )
            _check_text(name, said)
    session_id = found.get(SESSION_ID.lower(), "")
    check_session_id(session_id, SESSION_ID)
    return Continuity(
        session_id=session_id,
        session_key=found.get(SESSION_KEY.lower(), ""),
        identity=Identity(**{field: found.get(name.lower(), "") for name, field in IDENTITY.items()}),
        idempotency_key=_idempotency_key(found.get(IDEMPOTENCY_KEY.lower(), "")),
        uses_memory=_is_on(MEMORY, found.get(MEMORY.lower(), "on")),
    )


def check_session_id(session_id: str, param: str) -> None:
    """Refuse an id that could be taken for a path; raises `Problem`."""
    if ".." in session_id or "/" in session_id or "\\" in session_id:
        raise Problem(
            f"Invalid session ID in {param}: '..', '/' and '\\' are not allowed.",
            param=param,
            code="invalid_session_id",
        )


def _check_text(name: str, value: str) -> None:
    if len(value) > CHARACTERS_MAX:
        raise Problem(
            f"{name} is too long: at most {CHARACTERS_MAX} characters, got {len(value)}.",
            param=name,
            code="header_too_long",
        )
    if UNPRINTABLE.search(value):
        raise Problem(f"{name} holds control characters or is not UTF-8.", param=name, code="invalid_header")


def _is_on(name: str, value: str) -> bool:
    if value not in ("on", "off"):
        raise Problem(f"{name} must be 'on' or 'off', got '{value[:20]}'.", param=name, code="invalid_value")
    return value == "on"


def _idempotency_key(value: str) -> str:
    if len(value) > 255 or any(not "!" <= character <= "~" for character in value):
        raise Problem(
            "Idempotency-Key must be 1 to 255 visible ASCII characters.",
            param=IDEMPOTENCY_KEY,
            code="invalid_idempotency_key",
        )
    return value
