"""What may be done to a stored completion. Pure, like `decide.py`.

`turn` is the completion's, as it was found: behind a rotation, the current session does not have it any more.
"""

from api.turns.refusals import CompletionNotFound
from eventstore.events import Event, ResponseAnnotated, ResponseEvicted, TurnCompleted
from projections.completions import is_stored
from projections.session import Session
from projections.turn import Turn


def is_addressable(turn: Turn | None) -> bool:
    """Whether the turn is a stored completion that clients can name."""
    return turn is not None and isinstance(turn.ended, TurnCompleted) and not turn.evicted and is_stored(turn.started)


def annotate(session: Session, turn: Turn, metadata: bytes) -> list[Event]:
    """Its metadata are these from now on."""
    _ensure_there(session, turn)
    return [ResponseAnnotated(turn_id=turn.turn_id, metadata=metadata)]


def delete(session: Session, turn: Turn) -> list[Event]:
    """It is no longer addressable; its turn stays in the session."""
    _ensure_there(session, turn)
    return [ResponseEvicted(turn_id=turn.turn_id, reason="deleted")]


def _ensure_there(session: Session, turn: Turn) -> None:
    if session.started is None or not is_addressable(session.find(turn.turn_id) or turn):
        raise CompletionNotFound("The chat completion was deleted meanwhile.")
