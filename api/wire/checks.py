"""Types and checks that the chat API and the Responses API share."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec

from api.problem import Problem

Temperature = Annotated[float, msgspec.Meta(ge=0, le=2)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
Count = Annotated[int, msgspec.Meta(ge=1)]
TopLogprobs = Annotated[int, msgspec.Meta(ge=0, le=20)]
Metadata = Annotated[
    dict[Annotated[str, msgspec.Meta(max_length=64)], Annotated[str, msgspec.Meta(max_length=512)]],
    msgspec.Meta(max_length=16),
]

_TEXTS = frozenset({"text", "input_text", "output_text"})


class Part(msgspec.Struct):
    """A part of a message's content, as far as it is checked here."""

    type: str
    text: str | None = None


class Tool(msgspec.Struct):
    """A tool, as far as it is checked here."""

    type: str


def check_content(content: str | Sequence[Part] | None, where: str, *, is_required: bool) -> None:
    """Refuse text parts without text, and content without anything in it where there must be some."""
    for index, part in enumerate(content if isinstance(content, list) else ()):
        if part.type in _TEXTS and part.text is None:
            raise missing(f"{where}[{index}].text")
    is_blank = not content or (isinstance(content, str) and not content.strip())
    if is_required and is_blank:
        raise Problem(f"{where} must not be empty.", param=where, code="empty_message")


def check_kind(said: msgspec.Struct, kind: str, needed: Mapping[str, str], where: str) -> None:
    """Refuse what lacks the field that something of its kind is about: `needed` names it, by kind."""
    field = needed.get(kind)
    if field and getattr(said, field) is None:
        raise missing(f"{where}.{field}")


def missing(path: str) -> Problem:
    """The problem that nothing stands at `path`."""
    return Problem(f"Missing required parameter: '{path}'.", param=path, code="missing_required_parameter")
