"""Decisions about turns in the background that their owner has left."""

from api.turns.refusals import TurnNotOpen
from eventstore.events import Event, TurnRestarted
from projections.session import Session
from projections.turn import Turn


def can_restart(turn: Turn) -> bool:
    """Whether the open turn may be started again: one in the background, and once only."""
    return turn.started.background and turn.restarted is None


def restart(session: Session, turn_id: str, owner: str, lease_ms: int) -> list[Event]:
    """Another owner takes the turn over, from its beginning; raises `TurnNotOpen`.

    Its prompt is the one it had: the open turn has locked its lineage since.
    """
    turn = session.open
    if turn is None or turn.turn_id != turn_id or not can_restart(turn):
        raise TurnNotOpen("only an open turn in the background can be started again, and only once")
    return [TurnRestarted(turn_id=turn_id, owner=owner, lease_ms=lease_ms)]
