"""What comes before a turn whose place is held: what was said elsewhere, and a rotation where one is due."""

from collections.abc import Callable
from typing import NamedTuple

from api.turns.decide import Fork
from api.turns.decide_items import check_items
from api.turns.lineages import Lineages
from api.turns.memory import UNTOLD, Memory, Remembered, remember
from api.turns.open_turn import PLAIN, Marks
from api.turns.request import TurnRequest
from api.turns.rotation import NOT_DUE, Rotations
from eventstore.events import SessionStarted
from projections.session import Session


class Prepared(NamedTuple):
    """What was found out before a turn begins."""

    fork: Fork | None = None
    is_there: bool = False
    uncompressed: str = ""
    remembered: Remembered = UNTOLD
    marks: Marks = PLAIN


UNPREPARED = Prepared()


class Preparation:
    """Prepares turns; without a memory, nothing is recalled."""

    def __init__(self, lineages: Lineages, rotations: Rotations, memory: Memory | None) -> None:
        self._sessions = lineages.sessions
        self._rotations = rotations
        self._memory = memory

    async def of(
        self, session: Session, request: TurnRequest, fork: Fork | None, beginning: Callable[[], SessionStarted]
    ) -> Prepared:
        """Prepare a turn; `beginning` makes the fact that a session which is not there yet begins with."""
        is_there = session.started is not None
        remembered = UNTOLD
        if self._memory and request.session_key and request.uses_memory:
            remembered = await remember(self._memory, self._sessions, session, request, fork)
        outcome = NOT_DUE
        beside_bytes = sum(map(len, remembered.context)) if remembered.context else 0
        if due := self._rotations.due(session, request, beside_bytes):
            check_items(session, request)  # what is refused is to leave nothing behind, and no summary either
            outcome = await self._rotations.before_turn(session, due, None if is_there else beginning())
        marks = PLAIN
        if outcome.mark or remembered.recalled:
            marks = Marks(compression=outcome.mark, recalled=len(remembered.recalled))
        is_there = is_there or outcome.is_rotated  # a fork that begins compressed has started by now
        return Prepared(fork, is_there, outcome.uncompressed, remembered, marks)
