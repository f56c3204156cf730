"""A turn that was answered while the log was out of reach, and the decision about it."""

import msgspec

from api.models.model import Answer
from api.turns import decide
from api.turns.decide import Begin
from api.turns.history import asked_scope
from api.turns.request import TurnRequest
from eventstore.events import Event, TurnStarted
from projections.pieces import Pieces
from projections.session import Session


class Late(msgspec.Struct, frozen=True):
    """A finished turn that is not recorded yet."""

    request: TurnRequest
    turn_id: str
    answer: Answer
    pieces: Pieces
    items_sent: int = 0  # the last of those that the request holds

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        return self.request.size_bytes + sum(map(len, (self.answer.message, *self.answer.alternatives)))


def record(session: Session, command: Begin, late: Late) -> list[Event]:
    """The turn joins the end of its session, begun and completed at once; nothing where it is there already.

    What it brought is not checked any more: it has been answered. Raises what `decide.opened` does.
    """
    if session.find(command.turn_id):
        return []  # the log had taken it, and could not say so
    events = decide.opened(session, command)
    started = events[-1]
    assert isinstance(started, TurnStarted)  # noqa: S101 (what begins a turn ends with that)
    started = events[-1] = msgspec.structs.replace(started, sent_alone=late.items_sent)
    return events + decide.completion(session, asked_scope(command.request), started, late.answer, late.pieces)
