"""The current session: one lineage's stream, folded.

The same fold decides what may happen next and answers what happened, so there is one truth about a transcript. It
reads nothing but facts: no clock, no I/O, no chance. It checks nothing either: what is in the log has happened.

A fork inherits turns of another lineage. Whoever folds a stream that begins with a fork folds the parent first, as it
was when the fork left it, and hands over what is inherited (`Session.up_to`).

A rotation begins a new generation: a shorter transcript, of which the old turns' messages that were kept and their
summary are the `base`. The turns themselves are let go of, so that a session's memory is that of its newest generation;
a fold with `keeps_past` keeps them, to read or to fork from.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Self, TypeAlias, assert_never

from eventstore.events import (
    CompressionRotated,
    ConversationAdvanced,
    ConversationCreated,
    ConversationDeleted,
    ConversationUpdated,
    Erased,
    ItemRemoved,
    ItemsAdded,
    ResponseAnnotated,
    ResponseEvicted,
    SessionAnnotated,
    SessionDeleted,
    SessionEnded,
    SessionErased,
    SessionRenamed,
    SessionStarted,
    TurnCancelled,
    TurnCompleted,
    TurnDequeued,
    TurnFailed,
    TurnQueued,
    TurnRestarted,
    TurnStarted,
    parse_stream,
)
from eventstore.log import Recorded
from projections.generation import NOTHING, Generation, Inherited
from projections.items import NO_ITEM, Identified
from projections.messages import size_bytes
from projections.removal import Removal
from projections.turn import Ended, Turn, added

Rarer: TypeAlias = (
    SessionStarted
    | TurnRestarted
    | CompressionRotated
    | ResponseEvicted
    | ResponseAnnotated
    | ItemsAdded
    | ItemRemoved
    | SessionRenamed
    | SessionAnnotated
    | SessionEnded
    | SessionDeleted
    | SessionErased
    | ConversationCreated
    | ConversationUpdated
    | ConversationDeleted
    | TurnQueued
    | TurnDequeued
    | Erased
)

_SESSION_OVERHEAD_BYTES = 1_500
_IDS_BYTES = 400  # of a message in a base, measured


class Session:
    """A lineage's current state. `version` is its stream's; 0 means that nothing has been recorded yet."""

    __slots__ = (
        "_earlier",
        "_keeps_past",
        "_messages",
        "_messages_bytes",
        "_newest_here",
        "_rendered",
        "_weighed",
        "_weight_bytes",
        "current",
        "end_reason",
        "epoch",
        "generation",
        "metadata",
        "newest",
        "open",
        "past",
        "removed_position",
        "started",
        "stream",
        "tenant",
        "title",
        "version",
    )

    def __init__(self, stream: str, inherited: Inherited = NOTHING, *, keeps_past: bool = False) -> None:
        self.stream = stream
        self.tenant = parse_stream(stream).tenant
        self.version = 0
        self.epoch = 0  # for whoever keeps it: which reading of the log it is of
        self._keeps_past = keeps_past
        self._newest_here: Turn | None = None
        self.newest: Turn | None = None  # of the transcript, behind however many rotations
        self.removed_position = 0  # of the last event that took something out of the transcript
        self._reset(inherited)

    def _reset(self, inherited: Inherited) -> None:
        """Begin anew: a lineage that starts, or starts again once it was deleted."""
        self.started: SessionStarted | None = None
        self.title = ""
        self.metadata = b"{}"
        self.end_reason = ""
        self.open: Turn | None = None
        self.generation = 0
        self.past: list[Generation] = []
        self._earlier = inherited.earlier
        self._begin(self.root_id, 0, inherited.base, inherited.turns)
        self.newest = inherited.turns[-1] if inherited.turns else None
        self._newest_here = self.newest

    def inherit(self, inherited: Inherited) -> None:
        """Begin as a fork, before the stream's next event, its `SessionStarted`, is taken in."""
        self._reset(inherited)

    def _begin(
        self, session_id: str, now_us: int, base: tuple[Identified, ...], inherited: tuple[Turn, ...] = ()
    ) -> None:
        """A generation begins with the messages of `base`; whatever was rendered or weighed is not of it."""
        self.generation += 1
        self.current = Generation(session_id, now_us, base, inherited, [])
        self._newest_here = None
        self._forget_rendered()
        self._weighed = 0  # how many of them are in `_weight_bytes`
        self._weight_bytes = _SESSION_OVERHEAD_BYTES + sum(len(data) + _IDS_BYTES for data, _ in base)

    def _forget_rendered(self) -> None:
        self._messages = self.current.said_base
        self._messages_bytes = sum(map(size_bytes, self._messages))
        self._rendered = 0  # how many turns, inherited ones first, are in `_messages`

    @classmethod
    def fold(
        cls,
        stream: str,
        events: Iterable[Recorded],
        inherited: Inherited = NOTHING,
        *,
        keeps_past: bool = False,
    ) -> Self:
        """The state that `events`, all of the stream's from its first, lead to."""
        session = cls(stream, inherited, keeps_past=keeps_past)
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
                self.end_reason = ""
            case TurnCompleted() | TurnFailed() | TurnCancelled():
                self._end(event, recorded.recorded_us)
            case ConversationAdvanced():
                pass  # a conversation leads to the lineage, whichever turn is its newest
            case _:
                self._apply_rarer(event, recorded)

    def _apply_rarer(self, event: Rarer, recorded: Recorded) -> None:  # noqa: C901 (one case a fact)
        now_us = recorded.recorded_us
        match event:
            case ResponseEvicted():
                if turn := self.find(event.turn_id):
                    turn.evicted = event.reason
            case ResponseAnnotated():
                if turn := self.find(event.turn_id):
                    turn.annotated = event.metadata
            case ItemsAdded():
                self._add(event, now_us)
            case ItemRemoved():
                self._remove(event)
                self.removed_position = recorded.position
            case SessionStarted():
                self.started = event
                self.title = event.title
                self.current.session_id = event.session_id
                self.current.started_us = now_us
            case TurnRestarted():
                assert self.open is not None  # noqa: S101 (only an open turn is restarted)
                self.open.restarted, self.open.restarted_us = event, now_us
            case CompressionRotated():
                self._rotate(event, now_us)
            case SessionRenamed():
                self.title = event.title
            case SessionAnnotated():
                self.metadata = event.metadata
            case SessionEnded():
                self.end_reason = self.end_reason or event.reason
            case SessionDeleted():
                self._reset(NOTHING)
            case SessionErased() | Erased():
                pass  # what was erased had been deleted before
            case ConversationCreated() | ConversationUpdated() | ConversationDeleted():
                pass  # live in the conversation's own stream
            case TurnQueued() | TurnDequeued():
                pass  # live in a stream of their own
            case _:
                assert_never(event)

    def _end(self, event: Ended, recorded_us: int) -> None:
        turn = self.open
        assert turn is not None  # noqa: S101 (only an open turn can end, and there is one at a time)
        turn.ended = event
        turn.ended_us = recorded_us
        self.open = None
        if isinstance(event, TurnCompleted):
            self._newest_here = self.newest = turn

    def _add(self, event: ItemsAdded, now_us: int) -> None:
        model = self.newest.started.model if self.newest else self.started.model if self.started else ""
        self.turns.append(added(event, now_us, model))
        self._newest_here = self.newest = self.turns[-1]
        self.end_reason = ""

    def _remove(self, event: ItemRemoved) -> None:
        """Forks share the turns that they inherit: another takes the place of the one that loses an item."""
        removal = Removal(event, (turn for _, turn in self.said))
        self._earlier = tuple(map(removal.left_of, self._earlier))
        for generation in (*self.past, self.current):
            is_here = generation is self.current and event.base >= 0
            generation.base = removal.told(generation.base) if is_here else removal.known(generation.base)
            generation.inherited = tuple(map(removal.left_of, generation.inherited))
            generation.turns[:] = map(removal.left_of, generation.turns)
        self.newest = self.newest and removal.left_of_newest(self.newest)
        self._newest_here = None  # what its usage counted is another transcript
        self._forget_rendered()

    def _rotate(self, event: CompressionRotated, now_us: int) -> None:
        base = (*self.current.first(event.head), (event.summary, NO_ITEM), *self.current.last(event.tail))
        if self._keeps_past:
            self.current.rotated, self.current.rotated_us = event, now_us
            self.past.append(self.current)
        self.title = event.title
        self.end_reason = ""
        self._begin(event.session_id, now_us, base)

    @property
    def root_id(self) -> str:
        """The name of the lineage's stream: the id of its first session."""
        return parse_stream(self.stream).name

    @property
    def session_id(self) -> str:
        """The effective id: the lineage's tip."""
        return self.current.session_id

    @property
    def turns(self) -> list[Turn]:
        """The turns that began in the newest generation."""
        return self.current.turns

    @property
    def newest_here(self) -> Turn | None:
        """The newest turn of the transcript that is not behind a rotation: whose usage tells of this transcript."""
        return self._newest_here

    @property
    def said(self) -> Iterator[tuple[str, Turn]]:
        """Every turn, oldest first, with the id of the session it was said in: all of them in a fold that keeps the
        past, else those of the newest generation.
        """
        generations = [*self.past, self.current]
        yield from ((generations[0].session_id, turn) for turn in self._earlier)
        for generation in generations:
            yield from ((generation.session_id, turn) for turn in (*generation.inherited, *generation.turns))

    def find(self, turn_id: str) -> Turn | None:
        """The turn of that id, begun in this lineage. Mostly one of the newest is asked for, so they come first."""
        for generation in (self.current, *reversed(self.past)):
            for turn in reversed(generation.turns):
                if turn.started.turn_id == turn_id:
                    return turn
        return None

    def up_to(self, turn_id: str) -> Inherited | None:
        """What a fork behind the turn of that id inherits; None where it is no part of a transcript known here."""
        earlier = list(self._earlier)
        for generation in (*self.past, self.current):
            turns = generation.transcript_turns
            for number, turn in enumerate(turns, 1):
                if turn.turn_id == turn_id:
                    return Inherited(generation.base, tuple(turns[:number]), tuple(earlier))
            earlier += turns
        return None

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
                self._messages_bytes += sum(map(size_bytes, messages))
        return self._messages

    @property
    def transcript_bytes(self) -> int:
        """The size of the transcript's messages, as text."""
        _ = self.transcript
        return self._messages_bytes

    @property
    def weight_bytes(self) -> int:
        """About how much memory the session takes, without an open turn."""
        settled = self._settled(self._weighed)
        self._weighed += len(settled)
        self._weight_bytes += sum(turn.weight_bytes for turn in settled)
        return self._weight_bytes

    def _settled(self, after: int) -> list[Turn]:
        """The newest generation's turns that have ended, inherited ones first, without the first `after` of them."""
        inherited, turns = self.current.inherited, self.current.turns
        if after == len(inherited) + len(turns) - (self.open is not None):
            return []
        own = turns[max(0, after - len(inherited)) :]
        return [*inherited[after:], *(turn for turn in own if turn.ended)]
