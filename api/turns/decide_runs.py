"""Turns in the background: as they are asked for, and what becomes of those that their owner has left."""

from api.turns.refusals import TurnNotOpen
from api.turns.request import TurnRequest
from eventstore.events import Event, TurnRestarted, TurnStarted
from projections.session import Session
from projections.turn import Turn


def asked(request: TurnRequest, now_us: int) -> Turn:
    """The turn that a request will make once its time has come, as its client is told of it until then."""
    started = TurnStarted(
        turn_id=request.turn_id,
        api=request.api,
        model=request.model,
        items=request.items,
        instructions=request.instructions,
        parameters=request.parameters,
        stream=request.stream,
        owner="",
        lease_ms=0,
        conversation=request.names.conversation,
        previous_response_id=request.names.previous_response_id,
        background=True,
    )
    return Turn(started, now_us)


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
