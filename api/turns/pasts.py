"""Lists of sessions as they were, kept for those who page through one: few, made one after the other, shared.

Making one reads the log from its beginning, or from an earlier one that is kept. Whoever asks for a moment that is
being made waits for it with the others, and whoever has waited too long finds it made when he asks again.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

from api.turns.refusals import MomentsBusy
from eventstore.events import SessionErased
from eventstore.log import EventLog, LogError, Part
from projections.past import Past
from projections.store import ViewsUnusable

KEPT_MAX = 2
MAKING_MAX = 4  # the one that is made, and those behind it
WAIT_S = 30.0


class Pasts:
    """One for a server."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._kept: dict[int, Past] = {}  # by position, least recently used first
        self._making: dict[int, asyncio.Task[None]] = {}
        self._turn = asyncio.Lock()
        self._erasures = 0  # met so far, in the log up to the position `_looked_to`
        self._looked_to = log.head().position

    async def fetch(self, position: int, sql: str, parameters: Sequence[object]) -> list[Any]:
        """The rows that `sql` finds in the views as they were at `position`. Raises `MomentsBusy`, `LogError`."""
        await self._look_for_erasures()
        while True:
            past = await self._at(position)
            rows = await past.fetch(sql, parameters)
            if rows is not None:
                return rows

    async def stop(self) -> None:
        """Let go of everything."""
        tasks = list(self._making.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self._keep_newest(0)

    def forget(self) -> None:
        """What was erased is in no moment: all that are kept, or are being made, are made anew."""
        self._erasures += 1
        self._keep_newest(0)

    async def _at(self, position: int) -> Past:
        try:
            async with asyncio.timeout(WAIT_S):
                while position not in self._kept:
                    await self._made(position)
        except TimeoutError:
            raise MomentsBusy("That moment of the log is still being looked up: ask again in a moment.") from None
        past = self._kept[position] = self._kept.pop(position)
        return past

    async def _made(self, position: int) -> None:
        task = self._making.get(position)
        if task is None:
            if len(self._making) >= MAKING_MAX:
                raise MomentsBusy("Too many moments of the log are asked for at once: ask again in a moment.")
            task = self._making[position] = asyncio.create_task(self._make(position), name="a moment of the log")
            task.add_done_callback(lambda done: self._end(position, done))
        try:
            await asyncio.shield(task)
        except (LogError, ViewsUnusable) as error:
            # One instance is raised to all that wait: without its traceback, which would keep their requests.
            raise error.with_traceback(None) from None

    def _end(self, position: int, task: asyncio.Task[None]) -> None:
        del self._making[position]
        if not task.cancelled():
            task.exception()  # nobody may be left to ask

    async def _make(self, position: int) -> None:
        async with self._turn:
            erasures = -1
            while erasures != self._erasures:
                erasures = self._erasures
                earlier = max((kept for kept in self._kept if kept < position), default=None)
                past = Past() if earlier is None else await self._kept[earlier].copied()
                with contextlib.ExitStack() as unless_made:
                    unless_made.callback(past.close)
                    await past.go_on(self._log, position)
                    await self._look_for_erasures()
                    if erasures == self._erasures:
                        unless_made.pop_all()
            self._kept[position] = past
            self._keep_newest(KEPT_MAX)

    async def _look_for_erasures(self) -> None:
        """Whoever erases says so with `forget`; what nobody said is met here, before anything is answered."""
        while self._looked_to < self._log.head().position:
            part = Part(after_position=self._looked_to, types=frozenset({SessionErased.__name__}))
            found = await self._log.select(part, 1)
            self._looked_to = max(self._looked_to, found.looked_to)
            if found.events:
                self.forget()

    def _keep_newest(self, count: int) -> None:
        while len(self._kept) > count:
            self._kept.pop(next(iter(self._kept))).close()
