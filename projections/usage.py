"""What a turn cost, read from the usage object that its model server sent."""

from functools import lru_cache
from typing import NamedTuple

import msgspec

TOKENS_MAX = 1 << 40  # of one turn; beyond reason, and far from overflowing a sum
REMEMBERED_BYTES_MAX = 1_000


class Tokens(NamedTuple):
    """Numbers of tokens; zeros where the model server said nothing that can be read."""

    input: int = 0
    output: int = 0
    cached: int = 0
    reasoning: int = 0


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = 0


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = 0


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


_decode = msgspec.json.Decoder(_Usage, strict=False).decode


def tokens_of(usage: bytes) -> Tokens:
    """The tokens that a chat usage object (JSON, or nothing) counts. Asked twice a turn: by a view, and by the next
    turn, which wants to know how long its prompt is.
    """
    return _remembered(usage) if len(usage) <= REMEMBERED_BYTES_MAX else _read(usage)


def _read(usage: bytes) -> Tokens:
    try:
        said = _decode(usage)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Tokens()
    prompt, completion = said.prompt_tokens_details, said.completion_tokens_details
    return Tokens(
        input=_count(said.prompt_tokens),
        output=_count(said.completion_tokens),
        cached=_count(prompt.cached_tokens) if prompt else 0,
        reasoning=_count(completion.reasoning_tokens) if completion else 0,
    )


_remembered = lru_cache(maxsize=1_024)(_read)


def _count(tokens: int | None) -> int:
    """A number that can be added up, whatever a model server says."""
    return min(max(tokens or 0, 0), TOKENS_MAX)
