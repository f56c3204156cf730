"""Parameters of a query: each says once what it is called, what it may be, and what it is without one.

Handlers read with them, and the API's description tells of them.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from api.problem import Problem
from api.wire.headers import CHARACTERS_MAX, UNPRINTABLE

Schema = dict[str, Any]
Direction: TypeAlias = Literal["asc", "desc"]

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off", ""})
DIGITS_MAX = 20
SAID_BACK_MAX = 100  # characters of a text that was not understood


class Parameter(NamedTuple):
    """A parameter as the API's description has it."""

    name: str
    about: str
    schema: Schema
    place: Literal["query", "header"] = "query"
    is_required: bool = False


class Whole(NamedTuple):
    """A whole number from 0; more than the maximum is the maximum."""

    name: str
    default: int
    maximum: int
    about: str

    def of(self, query: Mapping[str, str]) -> int:
        """The number that was sent; raises `Problem`."""
        text = query.get(self.name)
        if text is None:
            return self.default
        if not text.isascii() or not text.isdigit():
            raise Problem(
                f"{self.name} must be a whole number from 0, got '{text}'.", param=self.name, code="invalid_value"
            )
        return min(int(text[:DIGITS_MAX]), self.maximum)

    @property
    def parameter(self) -> Parameter:
        """As it is described."""
        return Parameter(self.name, self.about, {"type": "integer", "minimum": 0, "default": self.default})


class Between(NamedTuple):
    """A whole number from 1 to a maximum, and no other."""

    name: str
    default: int
    maximum: int
    about: str

    def of(self, query: Mapping[str, str]) -> int:
        """The number that was sent; raises `Problem`."""
        text = query.get(self.name, str(self.default))
        is_number = text.isascii() and text.isdigit() and len(text) <= len(str(self.maximum))
        if not (is_number and 1 <= int(text) <= self.maximum):
            raise Problem(
                f"{self.name} must be a whole number from 1 to {self.maximum}, got '{text[:SAID_BACK_MAX]}'.",
                param=self.name,
                code="invalid_value",
            )
        return int(text)

    @property
    def parameter(self) -> Parameter:
        """As it is described."""
        schema = {"type": "integer", "minimum": 1, "maximum": self.maximum, "default": self.default}
        return Parameter(self.name, self.about, schema)


class Order(NamedTuple):
    """Which end of a list comes first: the oldest (`asc`), or the newest (`desc`)."""

    default: Direction

    def of(self, query: Mapping[str, str]) -> Direction:
        """The one that was sent; raises `Problem`."""
        match query.get("order", self.default):
            case "asc" | "desc" as order:
                return order
            case other:
                raise Problem(
                    f"order must be 'asc' or 'desc', got '{other[:SAID_BACK_MAX]}'.",
                    param="order",
                    code="invalid_value",
                )

    @property
    def parameter(self) -> Parameter:
        """As it is described."""
        schema = {"enum": ["asc", "desc"], "default": self.default}
        return Parameter("order", "The oldest first, or the newest.", schema)


class Flag(NamedTuple):
    """Something that is on or off, off where it lacks."""

    name: str
    about: str

    def of(self, query: Mapping[str, str]) -> bool:
        """Whether it is on; raises `Problem`."""
        text = query.get(self.name, "").strip().lower()
        if text not in _TRUE | _FALSE:
            raise Problem(f"{self.name} must be true or false, got '{text}'.", param=self.name, code="invalid_value")
        return text in _TRUE

    @property
    def parameter(self) -> Parameter:
        """As it is described."""
        return Parameter(self.name, self.about, {"type": "boolean", "default": False})


class Text(NamedTuple):
    """A text that is compared with what clients say of themselves in headers; empty is absent."""

    name: str
    about: str

    def of(self, query: Mapping[str, str]) -> str:
        """The text that was sent; raises `Problem`."""
        text = query.get(self.name, "")
        if len(text) > CHARACTERS_MAX or UNPRINTABLE.search(text):
            raise Problem(
                f"{self.name} must be at most {CHARACTERS_MAX} characters, without control characters.",
                param=self.name,
                code="invalid_value",
            )
        return text

    @property
    def parameter(self) -> Parameter:
        """As it is described."""
        return Parameter(self.name, self.about, {"type": "string", "maxLength": CHARACTERS_MAX})
