"""A recorded turn, streamed again: the chunks of a model's answer, made from the turn's facts alone.

The text comes in the very pieces it first came in, whose lengths are recorded; everything else comes whole, each thing
in a chunk of its own, in the order in which it was first said. An answer that was not streamed is one piece of text.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import msgspec

from api.models.model import Choice, Chunk
from eventstore.events import TurnCompleted
from projections.messages import fields
from projections.turn import Turn

_ORDER = ("reasoning_content", "reasoning", "content", "refusal", "tool_calls")  # of an answer that came at once


def chunks_of(turn: Turn) -> list[Chunk]:
    """What the model said in a turn that has ended; of one that did not complete, what had come, without a finish."""
    ended = turn.ended
    if ended is None:
        return []
    choices = [choice for data in ended.output for choice in _said(turn, data, 0, ended.delta_lengths)]
    if not isinstance(ended, TurnCompleted):
        return [Chunk([choice], model=turn.started.model) for choice in choices]
    extra = fields(ended.extra) if ended.extra else {}
    choices.append(Choice(0, {}, ended.finish_reason, extra.get("logprobs")))
    others = [*extra.get("choices", ()), *({} for _ in ended.alternatives)]
    for index, (data, other) in enumerate(zip(ended.alternatives, others, strict=False), 1):
        finish = Choice(index, {}, other.get("finish_reason", "stop"), other.get("logprobs"))
        choices += [*_said(turn, data, index), finish]
    chunk = partial(
        Chunk,
        model=ended.model or turn.started.model,
        system_fingerprint=extra.get("system_fingerprint"),
        service_tier=extra.get("service_tier"),
    )
    chunks = [chunk([choice]) for choice in choices]
    if moderation := extra.get("moderation"):
        chunks.append(chunk(moderation=moderation))
    return [*chunks, chunk(usage=msgspec.Raw(ended.usage))] if ended.usage else chunks


def _said(turn: Turn, data: bytes, index: int, lengths: Sequence[int] = ()) -> Iterator[Choice]:
    """One assistant message, bit by bit."""
    message = fields(data)
    yield Choice(index, {"role": "assistant", "content": "" if message.get("content") else None})
    # A streamed message was put together in the order in which its parts came.
    first = () if turn.started.stream else _ORDER
    names = dict.fromkeys((*(name for name in first if name in message), *message))
    for name in names:
        if name != "role":
            yield from (Choice(index, {name: piece}) for piece in _pieces(name, message[name], lengths))


def _pieces(name: str, value: Any, lengths: Sequence[int]) -> Iterator[Any]:
    if name == "content" and isinstance(value, str):
        yield from _cut(value, lengths)
    elif name == "content" and isinstance(value, list):
        yield from (part["text"] for part in value if isinstance(part, dict) and part.get("text"))
    elif name == "tool_calls" and isinstance(value, list):
        calls = [call for call in value if isinstance(call, dict)]
        yield from ([{"index": place, **call}] for place, call in enumerate(calls))
    elif value:
        yield value


def _cut(text: str, lengths: Sequence[int]) -> Iterator[str]:
    """The text in pieces of those lengths, and what is left of it in one."""
    begin = 0
    for length in lengths:
        if piece := text[begin : begin + length]:
            yield piece
        begin += length
    if rest := text[begin:]:
        yield rest
