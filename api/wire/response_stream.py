"""A streamed response: chunks of a chat answer in, Responses events out.

Events are numbered from 0 without gaps. An item opens as its first piece comes; all of them close, in order, when the
answer has ended, so that a model may go back and forth between them. The terminal event comes only when the turn is
durable: its response is made from the facts, as every later read is.
"""

from typing import Any

import msgspec

from api.models.model import Chunk
from api.problem import Problem
from api.turns.open_turn import LiveTurn
from api.wire.frames import SENT_EVENTS, Framing
from api.wire.items import (
    CustomToolCallItem,
    FunctionCallItem,
    Item,
    MessageItem,
    OutputText,
    ReasoningItem,
    ReasoningText,
    Refusal,
    string_of,
)
from api.wire.response import ResponseError, response_object
from projections.items import call_item_id, message_id, reasoning_id
from projections.turn import Turn


class _Part(msgspec.Struct):
    """A part of an item that grows with each delta."""

    part: OutputText | Refusal | ReasoningText
    content_index: int
    pieces: list[str]


class _Open(msgspec.Struct):
    """An item that has begun: its parts by type, or the pieces of its arguments."""

    item: Item
    output_index: int
    parts: dict[str, _Part]
    pieces: list[str]


class ResponseStream:
    """Writes the events of one response. Each method returns the bytes of whole frames."""

    def __init__(self, opened: LiveTurn, *, store: bool, framing: Framing = SENT_EVENTS) -> None:
        self._turn = opened.turn
        self._store = store
        self._framing = framing
        self._sequence_number = 0
        self._open: dict[str, _Open] = {}

    def opening(self) -> bytes:
        """The two events that come before any output."""
        turn = self._turn
        begun = Turn(turn.started, turn.started_us) if turn.ended else turn  # one that the log answers has ended
        response = response_object(begun, store=self._store)
        created = self._event("response.created", response=response)
        return created + self._event("response.in_progress", response=response)

    def piece(self, chunk: Chunk) -> bytes:
        """What the next chunk of the model's answer brings."""
        return b"".join(self._delta(choice.delta) for choice in chunk.choices if choice.index == 0)

    def ending(self, turn: Turn) -> bytes:
        """The end of a turn that is durable."""
        is_whole = turn.status == "completed"
        closed = [self._close(opened, "completed" if is_whole else "incomplete") for opened in self._open.values()]
        kind = "response.completed" if is_whole else "response.incomplete"
        terminal = self._event(kind, response=response_object(turn, store=self._store))
        return b"".join((*closed, terminal, self._framing.done))

    def failing(self, problem: Problem) -> bytes:
        """The end of a turn that failed after the stream had begun: as the log has it, where the log has it."""
        opening = b"" if self._sequence_number else self.opening()
        response = response_object(self._turn, store=self._store)
        if response.error is None:
            response.status = "failed"
            response.error = ResponseError(problem.code or "server_error", problem.message)
        return opening + self._event("response.failed", response=response) + self._framing.done

    def _delta(self, delta: dict[str, Any]) -> bytes:
        turn_id = self._turn.turn_id
        frames = b""
        if thought := string_of(delta.get("reasoning_content")) or string_of(delta.get("reasoning")):
            frames += self._say(ReasoningItem(reasoning_id(turn_id)), ReasoningText(""), thought)
        if text := string_of(delta.get("content")):
            frames += self._say(MessageItem(message_id(turn_id)), OutputText(""), text)
        if refusal := string_of(delta.get("refusal")):
            frames += self._say(MessageItem(message_id(turn_id)), Refusal(""), refusal)
        for place, call in enumerate(delta.get("tool_calls") or ()):
            frames += self._call(call, call.get("index", place))
        return frames

    def _say(self, item: Item, part: OutputText | Refusal | ReasoningText, delta: str) -> bytes:
        frames, opened = self._opened(item)
        growing = opened.parts.get(part.type)
        if growing is None:
            growing = opened.parts[part.type] = _Part(part, len(opened.parts), [])
            frames += self._event("response.content_part.added", **_place(opened, growing), part=part)
        growing.pieces.append(delta)
        kind = f"response.{part.type}.delta"
        return frames + self._event(kind, **_place(opened, growing), delta=delta, **_logprobs(part))

    def _call(self, call: dict[str, Any], index: int) -> bytes:
        item_id = call_item_id(self._turn.turn_id, index)
        custom = call.get("custom")
        custom = custom if isinstance(custom, dict) else None
        said = custom or call.get("function") or {}
        cls = CustomToolCallItem if custom else FunctionCallItem
        frames, opened = self._opened(cls(item_id, string_of(call.get("id")), string_of(said.get("name"))))
        if delta := string_of(said.get("input" if custom else "arguments")):
            opened.pieces.append(delta)
            kind = "custom_tool_call_input" if custom else "function_call_arguments"
            frames += self._event(f"response.{kind}.delta", **_place(opened), delta=delta)
        return frames

    def _opened(self, item: Item) -> tuple[bytes, _Open]:
        """The open item of that id; with the event that opens it where it is new."""
        if opened := self._open.get(item.id):
            return b"", opened
        item.status = "in_progress"
        opened = self._open[item.id] = _Open(item, len(self._open), {}, [])
        return self._event("response.output_item.added", output_index=opened.output_index, item=item), opened

    def _close(self, opened: _Open, status: str) -> bytes:
        item = opened.item
        frames = b""
        if isinstance(item, MessageItem | ReasoningItem):
            frames = b"".join(self._close_part(opened, growing) for growing in opened.parts.values())
            item.content = [growing.part for growing in opened.parts.values()]  # type: ignore[assignment]
        elif isinstance(item, FunctionCallItem):
            item.arguments = "".join(opened.pieces)
            done = {"name": item.name, "arguments": item.arguments}
            frames = self._event("response.function_call_arguments.done", **_place(opened), **done)
        else:
            item.input = "".join(opened.pieces)
            frames = self._event("response.custom_tool_call_input.done", **_place(opened), input=item.input)
        item.status = status
        return frames + self._event("response.output_item.done", output_index=opened.output_index, item=item)

    def _close_part(self, opened: _Open, growing: _Part) -> bytes:
        part, text, place = growing.part, "".join(growing.pieces), _place(opened, growing)
        if isinstance(part, Refusal):
            part.refusal = text
            done = self._event("response.refusal.done", **place, refusal=text)
        else:
            part.text = text
            done = self._event(f"response.{part.type}.done", **place, text=text, **_logprobs(part))
        return done + self._event("response.content_part.done", **place, part=part)

    def _event(self, kind: str, **fields: Any) -> bytes:
        payload = {"type": kind, "sequence_number": self._sequence_number, **fields}
        self._sequence_number += 1
        return self._framing.frame(payload, kind)


def _logprobs(part: OutputText | Refusal | ReasoningText) -> dict[str, Any]:
    return {"logprobs": []} if isinstance(part, OutputText) else {}


def _place(opened: _Open, growing: _Part | None = None) -> dict[str, Any]:
    place: dict[str, Any] = {"item_id": opened.item.id, "output_index": opened.output_index}
    if growing:
        place["content_index"] = growing.content_index
    return place
