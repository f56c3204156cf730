"""A recorded turn, streamed again: the chunks of a model's answer, made from the turn's facts alone.

What was said comes in the very pieces it first came in, in their order, which are recorded: the events that are made of
them are the same, byte for byte. What the record does not keep of a chat's chunks: of several things that came in one
chunk, each comes in its own; fields that nobody here knows, and the choices beyond the first, come whole. So does an
answer that was not streamed, or that was before the pieces of everything were recorded, except for its text.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import msgspec

from api.models.model import Choice, Chunk
from eventstore.events import TurnCompleted
from projections.messages import fields
from projections.pieces import CALL, LISTS, ORDER, SUMMARY, TEXTS, WHOLE, Pieces, name_of
from projections.turn import Ended, Turn


def pieces_of(ended: Ended) -> Pieces:
    """The pieces in which an answer was streamed."""
    return Pieces(ended.delta_lengths, ended.delta_fields, ended.delta_tokens)


def chunks_of(turn: Turn) -> list[Chunk]:
    """What the model said in a turn that has ended; of one that did not complete, what had come, without a finish."""
    ended = turn.ended
    if ended is None:
        return []
    extra = fields(ended.extra) if ended.extra else {}
    logprobs = _Logprobs(extra.get("logprobs"))
    choices = [choice for data in ended.output for choice in _said(turn, data, 0, pieces_of(ended), logprobs)]
    if not isinstance(ended, TurnCompleted):
        return [Chunk([choice], model=turn.started.model) for choice in choices]
    choices.append(Choice(0, {}, ended.finish_reason, logprobs.rest()))
    others = [*extra.get("choices", ()), *({} for _ in ended.alternatives)]
    for index, (data, other) in enumerate(zip(ended.alternatives, others, strict=False), 1):
        finish = Choice(index, {}, other.get("finish_reason", "stop"), other.get("logprobs"))
        choices += [*_said(turn, data, index, WHOLE, logprobs), finish]
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


def said_again(turn: Turn) -> Iterator[Choice]:
    """What the model said, in as few pieces as tell what it was and in which order."""
    if ended := turn.ended:
        logprobs = _Logprobs(fields(ended.extra).get("logprobs") if ended.delta_tokens else None)
        for data in ended.output:
            yield from _said(turn, data, 0, pieces_of(ended).runs(), logprobs)


class _Logprobs:
    """An answer's log probabilities, handed out with the pieces that they came with."""

    def __init__(self, whole: Any) -> None:
        self._left = whole
        self._is_whole = True

    def next(self, name: str, count: int) -> dict[str, Any] | None:
        """The next ones of the text of that name."""
        if count <= 0 or not isinstance(self._left, dict):
            return None
        self._is_whole = False
        entries = self._left.get(name)
        entries = entries if isinstance(entries, list) else []
        self._left = self._left | {name: entries[count:]}
        return dict.fromkeys(self._left) | {name: entries[:count]}

    def rest(self) -> Any:
        """What came with no piece; everything where nothing did."""
        is_left = self._is_whole or any(self._left.values())
        return self._left if is_left else None


def _said(turn: Turn, data: bytes, index: int, pieces: Pieces, logprobs: "_Logprobs") -> Iterator[Choice]:
    """One assistant message, bit by bit."""
    message = fields(data)
    announced = {name: value for name, value in message.items() if not value and name != "role"}
    is_called_first = bool(pieces.fields) and name_of(pieces.fields[0]) == "tool_calls"
    content = "" if message.get("content") and not is_called_first else None  # as servers begin such answers
    yield Choice(index, {"role": "assistant", "content": content} | announced)
    telling = _Telling(message)
    if pieces.fields:
        yield from telling.told(index, pieces, logprobs)
    first = () if turn.started.stream else ORDER  # a streamed message was put together as its parts came
    for name in dict.fromkeys((*(name for name in first if name in message), *message)):
        if name == "content" and not pieces.fields:
            yield from telling.told(index, pieces, logprobs)
        yield from (Choice(index, {name: left}) for left in telling.rest(name))


class _Telling:
    """An assistant message that is told in pieces, and how much of it has been told."""

    def __init__(self, message: dict[str, Any]) -> None:
        self._message = message
        self._told: dict[int | str, int] = {}

    def told(self, index: int, pieces: Pieces, logprobs: _Logprobs) -> Iterator[Choice]:
        """What is recorded piece by piece."""
        for code, length, tokens in pieces.each():
            if delta := self._piece(code, max(length, 0)):
                yield Choice(index, delta, logprobs=logprobs.next(name_of(code), tokens))

    def _piece(self, code: int, length: int) -> dict[str, Any] | None:
        """The next piece of what `code` stands for; nothing where the message has no such thing."""
        name = name_of(code)
        whole = self._message.get(name)
        if isinstance(whole, str) if name in TEXTS else isinstance(whole, list) and name in LISTS:
            piece = self._next(name, whole, length)
            return {name: piece} if piece else None
        entries = _objects(whole)
        if name == "tool_calls" and code - CALL < len(entries):
            return {name: [self._call(code - CALL, entries[code - CALL], length)]}
        if name == "reasoning_summary" and code - SUMMARY < len(entries):
            return {name: [self._part(code - SUMMARY, entries[code - SUMMARY], length)]}
        return None

    def rest(self, name: str) -> Iterator[Any]:
        """What has not been told yet of the field of that name, each thing whole."""
        value = self._message[name]
        if name == "tool_calls" and isinstance(value, list):
            yield from self._untold(CALL, _objects(value))
        elif name == "reasoning_summary" and isinstance(value, list):
            yield from self._untold(SUMMARY, _objects(value))
        elif name == "content" and isinstance(value, list):
            yield from (part["text"] for part in _objects(value) if part.get("text"))
        elif (name in TEXTS and isinstance(value, str)) or (name in LISTS and isinstance(value, list)):
            if left := self._next(name, value, len(value)):
                yield left
        elif value and name != "role":
            yield value

    def _untold(self, base: int, entries: list[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
        for place, entry in enumerate(entries):
            text, is_new = _text_of(entry), base + place not in self._told
            left = len(text) - self._told.get(base + place, 0)
            if left or is_new:
                tell = self._call if base == CALL else self._part
                yield [tell(place, entry, left)]

    def _next(self, key: int | str, whole: Any, length: int) -> Any:
        begin = self._told.get(key, 0)
        self._told[key] = begin + length
        return whole[begin : begin + length]

    def _call(self, place: int, call: dict[str, Any], length: int) -> dict[str, Any]:
        """The next piece of a tool call; the first one says which tool is called."""
        is_new = CALL + place not in self._told
        text = self._next(CALL + place, _text_of(call), length)
        kind, name = _kind_of(call)
        if is_new:
            called = call.get(kind)
            return {"index": place, **call, kind: {**(called if isinstance(called, dict) else {}), name: text}}
        return {"index": place, kind: {name: text}}

    def _part(self, place: int, part: dict[str, Any], length: int) -> dict[str, Any]:
        return {"index": place, "text": self._next(SUMMARY + place, _text_of(part), length)}


def _objects(value: Any) -> list[dict[str, Any]]:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else []


def _kind_of(call: dict[str, Any]) -> tuple[str, str]:
    return ("custom", "input") if isinstance(call.get("custom"), dict) else ("function", "arguments")


def _text_of(entry: dict[str, Any]) -> str:
    """The text of a tool call's input, or of a part of a summary."""
    kind, name = _kind_of(entry)
    called = entry.get(kind)
    text = called.get(name) if isinstance(called, dict) else entry.get("text")
    return text if isinstance(text, str) else ""
