"""First come, first served: one turn at a time for each lineage, within this process.

Between processes the open turn in the log is the lock; this line only keeps the order and spares the log the
conflicts.
"""

import asyncio
from collections import deque

from api.turns.refusals import LineageBusy

WAITING_MAX = 256


class Line:
    """The lineages that have a turn at work, each with those that wait for it."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def enter(self, lineage: str, *, is_patient: bool = False) -> None:
        """Hold the lineage until `leave`; raises `LineageBusy` after `wait_s`, or where too many wait already.

        One that `is_patient` waits for all that were there before, each of which ends in its own time.
        """
        waiting = self._waiting.get(lineage)
        if waiting is None:
            self._waiting[lineage] = deque()
            return
        if len(waiting) >= WAITING_MAX:
            raise LineageBusy(f"{WAITING_MAX} turns wait for this session already")
        place = asyncio.get_running_loop().create_future()
        waiting.append(place)
        try:
            async with asyncio.timeout(None if is_patient else self._wait_s):
                await place
        except TimeoutError:
            self._give_up(lineage, place)
            raise LineageBusy(f"another turn of this session has run for {self._wait_s:g} s") from None
        except asyncio.CancelledError:
            self._give_up(lineage, place)
            raise

    def leave(self, lineage: str) -> None:
        """Hand the lineage to the one that has waited longest."""
        waiting = self._waiting[lineage]
        while waiting:
            place = waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        del self._waiting[lineage]

    def _give_up(self, lineage: str, place: asyncio.Future[None]) -> None:
        if not place.cancelled():
            self.leave(lineage)  # the lineage was handed over in the same moment
        elif (waiting := self._waiting.get(lineage)) and place in waiting:
            waiting.remove(place)
