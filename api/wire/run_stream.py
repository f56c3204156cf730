"""A run's events: the chunks of its model's answer in, server-sent events out.

The same run has the same events, byte for byte, while it is at work and ever after: nothing in them is known to the
log only later, and what the log does not keep is not in them. Their ids count from 1; a run that was started again
counts on from the next million, and so does a crash that ended one, since nobody knows how far it had come.
"""

from typing import Any

from api.models.model import Chunk
from api.problem import Problem
from api.turns.directory import RUN
from api.wire.decode import encode
from api.wire.items import string_of
from api.wire.runs import US_PER_S, event_fields, run_end
from eventstore.events import TurnCancelled, TurnCompleted, TurnFailed
from projections.messages import fields
from projections.turn import Turn

ATTEMPT = 1_000_000
CLOSED = b": stream closed\n\n"
LAST_EVENT_ID = "Last-Event-ID"
_DIGITS_MAX = 18


class RunStream:
    """Writes the events of one run that come after the one of the id `after`. Each method gives whole frames."""

    def __init__(self, turn: Turn, after: int = 0) -> None:
        self._run_id = RUN + turn.turn_id
        self._after = after
        self._id = ATTEMPT if turn.restarted else 0
        self._is_restarted = turn.restarted is not None
        self._now_us = turn.restarted_us or turn.started_us  # of all that came before the end: when is not recorded

    def opening(self) -> bytes:
        """What comes before any output: whether what an earlier attempt had said no longer holds."""
        return self._frame("run.restarted") if self._is_restarted else b""

    def piece(self, chunk: Chunk) -> bytes:
        """What a chunk of the model's answer brings."""
        texts = [string_of(choice.delta.get("content")) for choice in chunk.choices if choice.index == 0]
        return b"".join(self._next("message.delta", delta=text) for text in texts if text)

    def ending(self, turn: Turn) -> bytes:
        """The end of a run that is durable; nothing where it has none, since it goes on after the next start."""
        self._now_us = turn.ended_us
        match turn.ended:
            case None:
                return b""
            case TurnCompleted():
                return self._thought(turn.ended) + self._completed(turn, turn.ended) + CLOSED
            case TurnFailed(code=code, message=message):
                return self._next("run.failed", error=message, code=code) + CLOSED
            case TurnCancelled(reason=reason):
                if reason == "crash":
                    self._id += ATTEMPT - self._id % ATTEMPT - 1
                return self._next("run.cancelled", reason=reason) + CLOSED

    def _thought(self, done: TurnCompleted) -> bytes:
        said = [fields(data) for data in done.output]
        thoughts = [
            string_of(message.get("reasoning_content")) or string_of(message.get("reasoning")) for message in said
        ]
        return b"".join(self._next("reasoning.available", text=text) for text in thoughts if text)

    def _completed(self, turn: Turn, done: TurnCompleted) -> bytes:
        more = {"conversation": turn.started.conversation} if turn.started.conversation else {}
        return self._next("run.completed", **event_fields(run_end(turn, done)), **more)

    def _next(self, name: str, **more: Any) -> bytes:
        self._id += 1
        return self._frame(name, **more)

    def _frame(self, name: str, **more: Any) -> bytes:
        if self._id <= self._after:
            return b""
        payload = {"event": name, "run_id": self._run_id, "timestamp": self._now_us / US_PER_S, **more}
        return b"id: %d\ndata: %s\n\n" % (self._id, encode(payload))


def last_event_id(said: str | None) -> int:
    """The id of the last event that a client has, 0 where it has none; raises `Problem`."""
    text = (said or "").strip()
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX):
        raise Problem(
            f"{LAST_EVENT_ID} must be the id of an event of this run: a whole number.",
            param=LAST_EVENT_ID,
            code="invalid_value",
        )
    return int(text)
