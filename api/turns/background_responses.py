"""Responses that are made in the background: asked for, told of at once, looked at, cancelled.

Theory of operation. A response in the background is a run (`api/turns/background.py`) whose client is told at once.
Mostly its turn is open within a moment, and so it is durable when its client is told: it is in progress. Where it has
to wait for its session, the response is queued: until its turn has come, this process alone knows of it, under the id
that its turn will have. What ends before it has begun, cancelled or refused, was never a turn: it is kept here for a
while, to be read, and no longer than the process.
"""

import asyncio
import time
from functools import partial
from typing import TypeAlias

from msgspec import structs

from api.ids import new_id
from api.turns import decide, decide_runs
from api.turns.background import Background
from api.turns.directory import RESPONSE
from api.turns.eviction import Eviction
from api.turns.lineages import Lineages
from api.turns.open_turn import PLAIN, Marks
from api.turns.refusals import NotInBackground, PreviousInProgress, ResponseInProgress
from api.turns.request import TurnRequest
from api.turns.run import Found, Run
from api.turns.service import Turns

OPEN_WITHIN_S = 0.5  # what has not begun by then is queued
STOP_S = 5.0  # for the end of a cancelled one to be recorded
UNBEGUN_MAX = 1_000  # of those that ended before they began, the newest

_Name: TypeAlias = tuple[str, str]  # tenant, response id


class BackgroundResponses:
    """The responses of all tenants, and those that are queued in this process."""

    def __init__(self, lineages: Lineages, turns: Turns, background: Background, eviction: Eviction) -> None:
        self._lineages = lineages
        self._turns = turns
        self._background = background
        self._eviction = eviction
        self._queued: dict[_Name, tuple[Run, TurnRequest]] = {}
        self._unbegun: dict[_Name, Run] = {}

    async def ask(self, request: TurnRequest) -> tuple[Found, Marks]:
        """Begin a response and leave it to itself: durable when this returns, unless it is queued.

        Raises as `Background.start` does; what is raised only later ends the queued one.
        """
        self._background.ensure_room()
        told = structs.replace(request, turn_id=new_id())
        run = Run(request.tenant, decide_runs.asked(told, time.time_ns() // 1_000))
        self._background.launch(self._turns.turn(told), run)
        if opened := await run.begins(OPEN_WITHIN_S):
            work = self._background.at_work(request.tenant, opened.turn.turn_id)
            return Found(opened.session_id, opened.turn, work), opened.marks
        if twin := self._twin(request):
            run.abandon()
            return Found("", twin.turn, twin), Marks(is_replayed=True)
        self._queue((request.tenant, RESPONSE + told.turn_id), run, request)
        return Found("", run.turn, run), PLAIN

    async def find(self, tenant: str, response_id: str) -> Found:
        """A response of any age, made in the background or not: a use of it. Raises `ResponseNotFound`."""
        if run := self._waiting((tenant, response_id)):
            return Found("", run.turn, run)
        found = await self._find(tenant, response_id)
        may_have_ended = not (found.run or found.turn.ended) and found.turn.started.background
        return await self._find(tenant, response_id) if may_have_ended else found

    async def cancel(self, tenant: str, response_id: str) -> Found:
        """Have a response end here, with what was said so far; one that has ended stays as it is.

        Raises `ResponseNotFound`, `NotInBackground`, `LogError`.
        """
        found = await self.find(tenant, response_id)
        if not found.turn.started.background:
            raise NotInBackground("Cannot cancel a synchronous response.")
        if found.turn.ended:
            return found
        if found.run and found.run.task:
            found.run.stop()
            await asyncio.wait((found.run.task,), timeout=STOP_S)
        else:  # left open for the next start, by a process that is about to stop
            session, turn = await self._eviction.read(tenant, response_id)
            await self._lineages.commit(session, partial(decide.cancel, turn_id=turn.turn_id, reason="client"))
        return await self.find(tenant, response_id)

    async def delete(self, tenant: str, response_id: str) -> None:
        """Make a response unaddressable; raises `ResponseNotFound`, `ResponseInProgress`, `LogError`."""
        name = (tenant, response_id)
        if (run := self._waiting(name)) is None:
            await self._turns.delete_response(tenant, response_id)
        elif run.is_queued:
            raise ResponseInProgress(f"{response_id} is queued: cancel it first, or wait for it")
        else:
            self._unbegun.pop(name, None)
            self._queued.pop(name, None)

    def ensure_over(self, request: TurnRequest) -> None:
        """Raise `PreviousInProgress` where the turn is to go on from what is still made in the background."""
        previous = request.names.previous_response_id
        if not previous:
            return
        at_work = self._background.at_work(request.tenant, previous.removeprefix(RESPONSE))
        waiting = self._waiting((request.tenant, previous))
        if (at_work and at_work.turn.started.api == "responses") or (waiting and waiting.is_queued):
            raise PreviousInProgress(
                f"Previous response '{previous}' is still in progress: go on from it once it is completed."
            )

    def _waiting(self, name: _Name) -> Run | None:
        """The one of that name that is queued, or ended before it began."""
        run, _ = self._queued.get(name, (None, None))
        run = run or self._unbegun.get(name)
        return run if run and run.opened is None else None

    def _queue(self, name: _Name, run: Run, request: TurnRequest) -> None:
        run.opening.cancel()  # its client is told now, and whoever asks later finds it here
        self._queued[name] = run, request
        assert run.task is not None  # noqa: S101 (it was launched)
        run.task.add_done_callback(lambda _: self._over(name))

    def _over(self, name: _Name) -> None:
        run, _ = self._queued.pop(name, (None, None))
        if run and run.opened is None:
            self._unbegun[name] = run
            if len(self._unbegun) > UNBEGUN_MAX:
                del self._unbegun[next(iter(self._unbegun))]

    def _twin(self, request: TurnRequest) -> Run | None:
        """The queued one that the same request has made, sent before under the same idempotency key."""
        if not request.idempotency_key:
            return None
        twins = (run for run, earlier in self._queued.values() if run.is_queued and earlier == request)
        return next(twins, None)

    async def _find(self, tenant: str, response_id: str) -> Found:
        session, turn = await self._eviction.read(tenant, response_id)
        return Found(session.session_id, turn, self._background.at_work(tenant, turn.turn_id))
