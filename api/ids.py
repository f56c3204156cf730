"""Ids that are minted at the edges."""

import os
import re
import time

_POOL_BYTES = 8_192
_TIME_DIGITS = 12
_ID = re.compile(r"[0-9a-f]{28}")


class _Chance:
    """Random bytes from the operating system, fetched many at a time: a system call an id would be felt."""

    def __init__(self) -> None:
        self._pool = b""
        self._taken = 0

    def hex(self, bytes_: int) -> str:
        if self._taken + bytes_ > len(self._pool):
            self._pool, self._taken = os.urandom(_POOL_BYTES), 0
        begin, self._taken = self._taken, self._taken + bytes_
        return self._pool[begin : self._taken].hex()


_chance = _Chance()


def new_id() -> str:
    """28 hexadecimal digits that sort by time: 12 of milliseconds, 16 of chance."""
    return f"{time.time_ns() // 1_000_000:012x}{_chance.hex(8)}"


def made_s(id_: str) -> int | None:
    """When an id was minted, seconds since 1970 UTC; None where it is none of `new_id`."""
    made = made_ms(id_)
    return None if made is None else made // 1_000


def made_ms(id_: str) -> int | None:
    """The same in milliseconds."""
    return int(id_[:_TIME_DIGITS], 16) if _ID.fullmatch(id_) else None


def new_session_id() -> str:
    """The id of a session that the client did not name."""
    return f"ses_{new_id()}"


def new_request_id() -> str:
    """An id that a client can tell an operator."""
    return f"req_{_chance.hex(12)}"
