"""A streamed response: chunks of a chat answer in, Responses events out.

Events are numbered from 0 without gaps. The items and what is told of them are `api/wire/assembly.py`'s. The terminal
event comes only when the turn is durable: its response is made from the facts, as every later read is.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from msgspec import structs

from api.models.model import Chunk
from api.problem import Problem
from api.wire.assembly import Assembly
from api.wire.frames import SENT_EVENTS, Framing
from api.wire.response import ResponseObject, response_error, response_object
from projections.turn import Turn

_NOWHERE: dict[str, Any] = {}


class Told(Protocol):
    """Whatever has a turn to tell of."""

    @property
    def turn(self) -> Turn:
        """As it stands."""
        ...


class ResponseStream:
    """Writes the events of one response. Each method returns the bytes of whole frames.

    Whoever has read a part of them is given those behind event number `after` only; all are counted. One that is
    `queued` waited in the background for its turn to begin, and says so.
    """

    def __init__(
        self, opened: Told, *, store: bool, after: int = -1, queued: bool = False, framing: Framing = SENT_EVENTS
    ) -> None:
        self._turn = opened.turn
        self._store = store
        self._after = after
        self._queued = queued
        self._framing = framing
        self._sequence_number = 0
        self._assembly = Assembly(opened.turn.turn_id, self._event)

    def opening(self) -> bytes:
        """The events that come before any output."""
        response = self._begun()
        frames = b"" if self._sequence_number else self._created(response)
        return frames + self._event("response.in_progress", response=response)

    def waiting(self) -> bytes:
        """Those of them that come before its turn begins."""
        return self._created(self._begun())

    def jump(self, number: int) -> None:
        """Number the next event so: those before it may have been others."""
        self._sequence_number = number

    @property
    def next_number(self) -> int:
        """The number of the next event."""
        return self._sequence_number

    def piece(self, chunk: Chunk) -> bytes:
        """What the next chunk of the model's answer brings."""
        return b"".join([self._assembly.add(choice) for choice in chunk.choices if choice.index == 0])

    def ending(self, turn: Turn) -> bytes:
        """The end of a turn that is durable, however it ended."""
        response = response_object(turn, store=self._store)
        if response.status == "failed":
            return self._event("response.failed", response=response) + self._framing.done
        is_whole = response.status == "completed"
        closed = self._assembly.close("completed" if is_whole else "incomplete")
        kind = "response.completed" if is_whole else "response.incomplete"
        return closed + self._event(kind, response=response) + self._framing.done

    def failing(self, problem: Problem) -> bytes:
        """The end of a turn that failed after the stream had begun: as the log has it, where the log has it."""
        opening = b"" if self._sequence_number else self.opening()
        response = response_object(self._turn, store=self._store)
        if response.error is None:
            response.status = "failed"
            response.error = response_error(problem.code or "server_error", problem.message)
        return opening + self._event("response.failed", response=response) + self._framing.done

    def _begun(self) -> ResponseObject:
        turn = self._turn
        begun = Turn(turn.started, turn.started_us) if turn.ended else turn  # one that the log answers has ended
        return response_object(begun, store=self._store)

    def _created(self, response: ResponseObject) -> bytes:
        if not self._queued:
            return self._event("response.created", response=response)
        waiting = structs.replace(response, status="queued")
        return self._event("response.created", response=waiting) + self._event("response.queued", response=waiting)

    def _event(self, kind: str, place: Mapping[str, Any] = _NOWHERE, /, **fields: Any) -> bytes:
        number = self._sequence_number
        self._sequence_number = number + 1
        if number <= self._after:
            return b""
        return self._framing.frame({"type": kind, "sequence_number": number, **place, **fields}, kind)
