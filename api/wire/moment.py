"""A moment of the log, as people and programs name one: a position, or a time as RFC 3339 has it.

What is recorded at the position, or at the time, belongs to the moment. Times never fall from one position to the next,
so that both cut the log into a before and an after.
"""

import datetime
import re
from collections.abc import Mapping
from typing import NamedTuple, Self

from api.problem import Problem
from api.wire.query import DIGITS_MAX, SAID_BACK_MAX, Parameter
from api.wire.recorded import rfc3339

# https://www.rfc-editor.org/rfc/rfc3339#section-5.6; in a URL, the plus of an offset comes as a space unless it is
# escaped. Digits are named one by one: \d takes those of all scripts.
_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"(?:([Zz])|([-+ ])([0-9]{2}:[0-9]{2}))?"
)
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_US = datetime.timedelta(microseconds=1)
# What can be shown: a leap second and an offset lead out of it.
_FIRST_US = (datetime.datetime.min.replace(tzinfo=datetime.UTC) - _EPOCH) // _US
_LAST_US = (datetime.datetime.max.replace(tzinfo=datetime.UTC) - _EPOCH) // _US
EXAMPLE = "2026-11-20T12:00:00Z"


class Moment(NamedTuple):
    """A position or a time, in microseconds UTC since 1970; the other is None."""

    position: int | None = None
    recorded_us: int | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """The moment that `text` names; raises `ValueError` with a sentence that says what is wrong with it."""
        if text.isascii() and text.isdigit():
            return cls(position=int(text[:DIGITS_MAX]))  # more digits than these are the far future, or zeros
        return cls(recorded_us=_time_us(text))

    def is_after(self, position: int, recorded_us: int) -> bool:
        """Whether the event at that position, recorded then, came after the moment."""
        if self.position is not None:
            return position > self.position
        return self.recorded_us is not None and recorded_us > self.recorded_us

    def __str__(self) -> str:
        """The moment in a sentence."""
        if self.position is not None:
            return f"position {self.position}"
        if self.recorded_us is None:
            return "now"
        return rfc3339(min(max(self.recorded_us, _FIRST_US), _LAST_US))


class AsOf(NamedTuple):
    """The parameter that asks for things as they were at a moment."""

    name: str
    about: str

    def of(self, query: Mapping[str, str]) -> Moment | None:
        """The moment that was sent, None where none was; raises `Problem`."""
        text = query.get(self.name)
        if text is None:
            return None
        try:
            return Moment.parse(text)
        except ValueError as error:
            raise Problem(f"{self.name}: {error}.", param=self.name, code="invalid_value") from None

    @property
    def parameter(self) -> Parameter:
        """As it is described."""
        schema = {"anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "format": "date-time"}]}
        return Parameter(self.name, self.about, schema)


AS_OF = AsOf("as_of", "As it was at this position of the log, or at this time (RFC 3339); without it, as it is now.")


def _time_us(text: str) -> int:
    said = text if len(text) <= SAID_BACK_MAX else text[:SAID_BACK_MAX] + "…"
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"'{said}' is neither a position nor a time such as {EXAMPLE}")
    day, minute, second, fraction, zulu, sign, offset = found.groups()
    if not (zulu or offset):
        raise ValueError(f"'{said}' lacks a time zone: end it with Z or an offset, such as {EXAMPLE}")
    is_leap = second == "60"
    zone = "+00:00" if zulu else f"{sign.replace(' ', '+')}{offset}"
    try:
        moment = datetime.datetime.fromisoformat(f"{day}T{minute}:{'59' if is_leap else second}{zone}")
    except ValueError as error:
        raise ValueError(f"'{said}' is no time that there is: {error}") from None
    # What is finer than a microsecond comes after all that was recorded in it.
    return (moment - _EPOCH) // _US + int((fraction or "").ljust(6, "0")[:6]) + 1_000_000 * is_leap
