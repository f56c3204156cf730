"""The current session: one lineage's stream, folded.

The same fold decides what may happen next and answers what happened, so there is one truth about a transcript. It
reads nothing but facts: no clock, no I/O, no chance. It checks nothing either: what is in the log has happened.

A fork inherits turns of another lineage. Whoever folds a stream that begins with a fork folds the parent first and
hands over what is inherited (`Session.up_to`).
"""

from collections.abc import Iterable, Sequence
from typing import Literal, Self, TypeAlias, assert_never

import msgspec

from eventstore.events import (
    ConversationAdvanced,
    ConversationCreated,
    EvictReason,
    ResponseEvicted,
    SessionStarted,
    TurnCancelled,
    TurnCompleted,
    TurnFailed,
    TurnStarted,
    parse_stream,
)
from eventstore.log import Recorded
from projections.messages import input_messages

Ended: TypeAlias = TurnCompleted | TurnFailed | TurnCancelled
Status: TypeAlias = Literal["in_progress", "completed", "incomplete", "failed", "cancelled"]

_TURN_OVERHEAD_BYTES = 900  # of the objects around a turn's content, measured
_SESSION_OVERHEAD_BYTES = 1_500


class Turn(msgspec.Struct, gc=False):
    """One turn: how it began, how it ended, and whether its response is still addressable."""

    started: TurnStarted
    started_us: int
    ended: Ended | None = None
    ended_us: int = 0
    evicted: EvictReason | None = None

    @property
    def turn_id(self) -> str:
        return self.started.turn_id

    @property
    def status(self) -> Status:
        """As OpenAI names it; a turn cut short by a limit or a filter is incomplete, and part of the transcript."""
        match self.ended:
            case None:
                return "in_progress"
            case TurnCompleted(finish_reason="length" | "content_filter"):
                return "incomplete"
            case TurnCompleted():
                return "completed"
            case TurnFailed():
                return "failed"
            case TurnCancelled():
                return "cancelled"

    @property
    def messages(self) -> tuple[bytes, ...]:
        """Input and output as chat messages, each the bytes of one JSON object."""
        return input_messages(self.started) + (self.ended.output if self.ended else ())

    @property
    def weight_bytes(self) -> int:
        """About how much memory the turn takes."""
        content = sum(map(len, self.started.items)) + sum(map(len, self.started.instructions))
        output = sum(map(len, self.ended.output)) if self.ended else 0
        return _TURN_OVERHEAD_BYTES + content + output + len(self.started.parameters)


class Session:
    """A lineage's current state. `version` is its stream's; 0 means that nothing has been recorded yet."""

    __slots__ = (
        "_messages",
        "_messages_bytes",
        "_rendered",
        "_weighed",
        "_weight_bytes",
        "inherited",
        "open",
        "started",
        "stream",
        "tenant",
        "turns",
        "version",
    )

    def __init__(self, stream: str, inherited: Sequence[Turn] = ()) -> None:
        self.stream = stream
        self.tenant = parse_stream(stream).tenant
        self.version = 0
        self.started: SessionStarted | None = None
        self.inherited = tuple(inherited)
        self.turns: list[Turn] = []
        self.open: Turn | None = None
        self._weighed = 0  # how many turns, inherited ones first, are in `_weight_bytes`
        self._weight_bytes = _SESSION_OVERHEAD_BYTES
        self._messages: list[bytes] = []
        self._messages_bytes = 0
        self._rendered = 0  # how many turns, inherited ones first, are in `_messages`

    @classmethod
    def fold(cls, stream: str, events: Iterable[Recorded], inherited: Sequence[Turn] = ()) -> Self:
        """The state that `events`, all of the stream's from its first, lead to."""
        session = cls(stream, inherited)
        for recorded in events:
            session.apply(recorded)
        return session

    def apply(self, recorded: Recorded) -> None:
        """Take in the stream's next event."""
        event = recorded.event
        self.version = recorded.version
        match event:
            case TurnStarted():
                self.open = turn = Turn(event, recorded.recorded_us)
                self.turns.append(turn)
            case TurnCompleted() | TurnFailed() | TurnCancelled():
                self._end(event, recorded.recorded_us)
            case ResponseEvicted():
                self._evict(event)
            case SessionStarted():
                self.started = event
            case ConversationAdvanced():
                pass  # a conversation leads to the lineage, whichever turn is its newest
            case ConversationCreated():
                pass  # lives in the conversation's own stream
            case _:
                assert_never(event)

    def _end(self, event: Ended, recorded_us: int) -> None:
        turn = self.open
        assert turn is not None  # noqa: S101 (only an open turn can end, and there is one at a time)
        turn.ended = event
        turn.ended_us = recorded_us
        self.open = None

    def _evict(self, event: ResponseEvicted) -> None:
        turn = self.find(event.turn_id)
        assert turn is not None  # noqa: S101 (a response is evicted in the stream of its turn)
        turn.evicted = event.reason

    @property
    def root_id(self) -> str:
        """The session id the lineage began with, which names its stream."""
        return parse_stream(self.stream).name

    @property
    def session_id(self) -> str:
        """The effective id: the lineage's tip."""
        return self.started.session_id if self.started else self.root_id

    @property
    def newest(self) -> Turn | None:
        """The newest turn of the transcript: completed here, or inherited."""
        for turn in reversed(self.turns):
            if isinstance(turn.ended, TurnCompleted):
                return turn
        return self.inherited[-1] if self.inherited else None

    def find(self, turn_id: str) -> Turn | None:
        """The turn of that id, begun in this lineage. Mostly one of the newest is asked for, so they come first."""
        return next((turn for turn in reversed(self.turns) if turn.started.turn_id == turn_id), None)

    def up_to(self, turn_id: str) -> tuple[Turn, ...]:
        """The transcript's turns up to and with `turn_id`: what a fork from there inherits."""
        turns = self._transcript_turns()
        position = next(index for index, turn in enumerate(turns) if turn.turn_id == turn_id)
        return tuple(turns[: position + 1])

    @property
    def transcript(self) -> Sequence[bytes]:
        """The chat messages of all completed turns, oldest first: all of the past that the model is ever sent.

        Grows in place from turn to turn. Copy it to keep it.
        """
        settled = self._settled(self._rendered)
        self._rendered += len(settled)
        for turn in settled:
            if isinstance(turn.ended, TurnCompleted):
                messages = turn.messages
                self._messages += messages
                self._messages_bytes += sum(map(len, messages))
        return self._messages

    @property
    def transcript_bytes(self) -> int:
        """The size of the transcript's messages."""
        _ = self.transcript
        return self._messages_bytes

    @property
    def weight_bytes(self) -> int:
        """About how much memory the session takes, without an open turn."""
        settled = self._settled(self._weighed)
        self._weighed += len(settled)
        self._weight_bytes += sum(turn.weight_bytes for turn in settled)
        return self._weight_bytes

    def _transcript_turns(self) -> list[Turn]:
        return [*self.inherited, *(turn for turn in self.turns if isinstance(turn.ended, TurnCompleted))]

    def _settled(self, after: int) -> list[Turn]:
        """The turns that have ended, inherited ones first, without the first `after` of them."""
        if after == len(self.inherited) + len(self.turns) - (self.open is not None):
            return []
        own = self.turns[max(0, after - len(self.inherited)) :]
        return [*self.inherited[after:], *(turn for turn in own if turn.ended)]
