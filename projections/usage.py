"""What a turn cost, read from the usage object that its model server sent."""

from typing import NamedTuple

import msgspec

TOKENS_MAX = 1 << 40  # of one turn; beyond reason, and far from overflowing a sum


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
    """The tokens that a chat usage object (JSON, or nothing) counts."""
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


def _count(tokens: int | None) -> int:
    """A number that can be added up, whatever a model server says."""
    return min(max(tokens or 0, 0), TOKENS_MAX)
