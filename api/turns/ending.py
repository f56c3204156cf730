"""How a turn that did not complete is closed in the log."""

import asyncio
from functools import partial

import structlog

from api.models.model import ModelError, ModelRefused
from api.turns import decide, decide_runs
from api.turns.decide import Failure
from api.turns.eviction import Eviction
from api.turns.lineages import Lineages
from api.turns.open_turn import OpenTurn
from api.turns.refusals import Refusal
from api.turns.work import Work
from eventstore.events import CancelReason
from eventstore.log import LogError
from projections.session import Session
from projections.turn import Turn

_log = structlog.get_logger()


class Ending:
    """Closes turns. With `restarts_runs`, one in the background that a stop has cut short stays open for the next
    start.
    """

    def __init__(self, lineages: Lineages, eviction: Eviction, work: Work, *, restarts_runs: bool) -> None:
        self._lineages = lineages
        self._eviction = eviction
        self._work = work
        self._restarts_runs = restarts_runs

    def can_restart(self, turn: Turn) -> bool:
        """Whether the open turn is to be started again instead of cancelled, where it was cut short."""
        return self._restarts_runs and decide_runs.can_restart(turn)

    def _why_cancelled(self, turn: OpenTurn) -> CancelReason:
        is_cut = self._work.is_draining and turn.cancel_reason != "client"
        return "shutdown" if is_cut else turn.cancel_reason

    async def close(self, session: Session, turn: OpenTurn, error: BaseException) -> None:
        """Record how a turn ended that was left with `error`."""
        turn_id, said = turn.turn.turn_id, turn.partial()
        if session.open is None or session.open.turn_id != turn_id:
            return  # it had ended before: only the way to the client was cut
        if isinstance(error, asyncio.CancelledError | ConnectionError):
            reason = self._why_cancelled(turn)
            if reason == "shutdown" and self.can_restart(turn.turn):
                return  # stays open in the log: the next start goes on with it, as after a crash
            ending = partial(decide.cancel, turn_id=turn_id, reason=reason, said=said)
        else:
            ending = partial(decide.fail, turn_id=turn_id, failure=_failure(error), said=said)
        try:
            await self._lineages.commit(session, ending)
            await self._eviction.made(session, turn.turn)
        except (LogError, Refusal) as problem:
            # Still open in the log, or ended by somebody else; the next turn of the session sees to it.
            _log.error("the end of a turn was not recorded", turn_id=turn_id, reason=str(problem))


def _failure(error: BaseException) -> Failure:
    if isinstance(error, ModelError):
        return Failure(error.code, str(error), error.status if isinstance(error, ModelRefused) else 0)
    return Failure("internal_error", f"{type(error).__name__}: {error}", 500)
