"""Counts the pieces of a streamed answer as they come, for the record: see `projections/pieces.py`."""

from typing import Any

from projections.pieces import CALL, CODES, CONTENT, PLACES_MAX, SUMMARY, TEXTS, Pieces


class Counted:
    """The pieces of an answer so far."""

    __slots__ = ("_fields", "_lengths", "_opened", "_tokens", "_waiting")

    def __init__(self) -> None:
        self._lengths: list[int] = []
        self._fields: list[int] = []
        self._tokens: list[int] = []
        self._opened: set[int] = set()
        self._waiting = [0] * len(TEXTS)  # log probabilities that came without a text; they go with the next one

    @property
    def pieces(self) -> Pieces:
        """All of them."""
        return Pieces(tuple(self._lengths), tuple(self._fields), tuple(self._tokens))

    def content(self, length: int) -> None:
        """A piece of content, without log probabilities."""
        if self._tokens or self._waiting[CONTENT]:
            self._add(CONTENT, length)
        else:
            self._lengths.append(length)
            if self._fields:
                self._fields.append(CONTENT)

    def add(self, delta: dict[str, Any], logprobs: dict[str, Any] | None) -> None:
        """What one tidy delta brings, in the order in which it stands there."""
        if logprobs:
            for name, code in TEXTS.items():
                self._waiting[code] += len(logprobs.get(name) or ())
        for name, value in delta.items():
            if not value:
                continue
            if name in CODES:
                self._add(CODES[name], len(value))
            elif name == "tool_calls":
                for call in value:
                    called = call.get("function") or call.get("custom") or {}
                    self._grow(CALL, call["index"], called.get("arguments") or called.get("input") or "")
            elif name == "reasoning_summary":
                for part in value:
                    self._grow(SUMMARY, part["index"], part["text"])

    def _grow(self, base: int, place: int, text: str) -> None:
        """A piece of the entry at that place of a list. The first of them counts without text too."""
        if place < PLACES_MAX and (text or base + place not in self._opened):
            self._opened.add(base + place)
            self._add(base + place, len(text))

    def _add(self, code: int, length: int) -> None:
        if code != CONTENT and not self._fields:
            self._fields = [CONTENT] * len(self._lengths)
        tokens = 0
        if code < len(self._waiting):
            tokens, self._waiting[code] = self._waiting[code], 0
        if tokens and not self._tokens:
            self._tokens = [0] * len(self._lengths)
        if tokens or self._tokens:
            self._tokens.append(tokens)
        if code != CONTENT or self._fields:
            self._fields.append(code)
        self._lengths.append(length)
