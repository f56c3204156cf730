"""Responses that are made in the background: asked for, told of at once, looked at, cancelled.

Theory of operation. A response in the background is a run (`api/turns/background.py`) whose client is told at once.
Mostly its turn is open within a moment, and so it is durable when its client is told: it is in progress. Where it has
to wait for its session, the response is queued under the id that its turn will have: in the log (`api/turns/queue.py`),
so that it waits on after a restart; and here, where it is found until its turn has come. What ends before it has begun,
cancelled or refused, was never a turn: it is kept for a while (`api/turns/unbegun.py`), to be read, and no longer than
the process.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from functools import partial

from msgspec import structs

from api.ids import new_id
from api.turns import decide, decide_runs
from api.turns.background import Background
from api.turns.directory import RESPONSE
from api.turns.eviction import LATER, Eviction
from api.turns.idempotency import key_reused
from api.turns.lineages import Lineages
from api.turns.open_turn import PLAIN, LiveTurn, Marks
from api.turns.queue import BEGUN, CANCELLED, Queue
from api.turns.refusals import NotInBackground, PreviousInProgress, ResponseInProgress, ShuttingDown
from api.turns.request import Names, TurnRequest
from api.turns.run import Found, Run
from api.turns.service import Turns
from api.turns.unbegun import Name, Unbegun
from projections.turn import Turn

OPEN_WITHIN_S = 0.5  # what has not begun by then is queued
STOP_S = 5.0  # for the end of a cancelled one to be recorded


class BackgroundResponses:
    """The responses of all tenants, and those that are queued in this process."""

    def __init__(
        self, lineages: Lineages, turns: Turns, background: Background, eviction: Eviction, queue: Queue
    ) -> None:
        self._lineages = lineages
        self._turns = turns
        self._background = background
        self._eviction = eviction
        self._queue = queue
        self._queued: dict[Name, tuple[Run, TurnRequest]] = {}
        self._unbegun = Unbegun()

    async def ask(self, request: TurnRequest) -> tuple[Found, Marks]:
        """Begin a response, or queue it, and leave it to itself; durable when this returns.

        Raises as `Background.start` does; what is raised only later ends the queued one.
        """
        if not self._background.has_room:
            return await self._made_before(request)
        told = structs.replace(request, turn_id=new_id())
        run = self._launch(told)
        if opened := await run.begins(OPEN_WITHIN_S):
            work = self._background.at_work(request.tenant, opened.turn.turn_id)
            return Found(opened.session_id, opened.turn, work), opened.marks
        if earlier := self._of_same_key(request):
            run.abandon()
            return _twin(request, *earlier)
        task = self._enlist(told, run)
        try:
            await self._queue.put(structs.replace(told, root_id=await self._root_of(told)))
        except LATER:
            task.cancel()
            raise
        return Found(run.opened.session_id if run.opened else "", run.turn, run), PLAIN

    async def ask_again(self) -> int:
        """Have what a process that is gone left queued wait on; returns how many there are.

        For the start, behind `Background.start_again`, before any request is let in.
        """
        left = await self._queue.left()
        for request in left:
            self._enlist(request, self._launch(request))
        return len(left)

    async def show_queued(self) -> None:
        """Have what is queued be found, and never begin: for the start of a server that only reads."""
        for request in await self._queue.left(takes_out=False):
            run = Run(request.tenant, decide_runs.asked(request, time.time_ns() // 1_000))
            run.end()
            self._queued[_name(request)] = run, request

    async def find(self, tenant: str, response_id: str) -> Found:
        """A response of any age, made in the background or not: a use of it. Raises `ResponseNotFound`."""
        if run := self._waiting((tenant, response_id)):
            return Found("", run.turn, run)
        found = await self._find(tenant, response_id)
        may_have_ended = not (found.run or found.turn.ended) and found.turn.started.background
        return await self._find(tenant, response_id) if may_have_ended else found

    async def said_until(self, tenant: str, response_id: str) -> list[Turn]:
        """What was said before a response, oldest first, and its turn; that alone where it has not begun.

        A use of it. Raises `ResponseNotFound`.
        """
        found = await self.find(tenant, response_id)
        if not found.has_begun:
            return [found.turn]
        session, turn = await self._eviction.read(tenant, response_id)
        return await self._lineages.reader.said_until(session, turn)

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
            await self._let_go(name)
            await self._turns.delete_response(tenant, response_id)
        elif run.is_queued:
            raise ResponseInProgress(f"{response_id} is queued: cancel it first, or wait for it")
        else:
            self._unbegun.drop(name)
            self._queued.pop(name, None)

    async def drop(self, tenant: str, turn_id: str) -> None:
        """Have one that waits to begin never begin, and know nothing of it any more; nothing of one that has begun."""
        name = (tenant, RESPONSE + turn_id)
        run, _ = self._queued.get(name, (None, None))
        if run and run.task and run.opened is None:
            run.stop()
            await asyncio.wait((run.task,), timeout=STOP_S)
        self._unbegun.drop(name)

    def ensure_over(self, request: TurnRequest) -> None:
        """Raise `PreviousInProgress` where the turn is to go on from what is still made in the background."""
        previous = request.names.previous_response_id
        if not previous:
            return
        run = self._waiting((request.tenant, previous))
        run = run or self._background.at_work(request.tenant, previous.removeprefix(RESPONSE))
        if run and run.turn.ended is None and run.turn.started.api == "responses":
            raise PreviousInProgress(
                f"Previous response '{previous}' is still in progress: go on from it once it is completed."
            )

    async def _made_before(self, request: TurnRequest) -> tuple[Found, Marks]:
        """What the request's idempotency key has made: that needs no room. Raises `TooManyRuns` where there is none."""
        if earlier := self._of_same_key(request):
            return _twin(request, *earlier)
        made = await self._background.made_before(request)
        work = self._background.at_work(request.tenant, made.turn.turn_id)
        return Found(made.session_id, made.turn, work), made.marks

    async def _root_of(self, request: TurnRequest) -> str:
        """The lineage that its conversation leads to now."""
        if not request.names.conversation:
            return ""
        place = await self._lineages.directory.find(request.tenant, request.names)
        return place.root_id if place else ""

    async def _let_go(self, name: Name) -> None:
        """Wait until one that has ended is out of the queue: once it is deleted, nothing else tells that it began."""
        run, _ = self._queued.get(name, (None, None))
        if run and run.task and run.turn.ended:
            await asyncio.wait((run.task,), timeout=STOP_S)

    def _launch(self, request: TurnRequest) -> Run:
        run = Run(request.tenant, decide_runs.asked(request, time.time_ns() // 1_000))
        self._background.launch(self._turn(request, run), run)
        return run

    @contextlib.asynccontextmanager
    async def _turn(self, request: TurnRequest, run: Run) -> AsyncIterator[LiveTurn]:
        """The turn. However it goes, it is queued no more, unless it is cut off before it has begun."""
        reason = BEGUN
        try:
            async with self._turns.turn(request) as opened:
                yield opened
        except BaseException as error:
            reason = _why_taken(run, error)
            raise
        finally:
            if reason and _name(request) in self._queued:
                await self._queue.take(request, reason)

    def _waiting(self, name: Name) -> Run | None:
        """The one of that name that is queued, or ended before it began."""
        run, _ = self._queued.get(name, (None, None))
        run = run or self._unbegun.get(name)
        return run if run and run.opened is None else None

    def _enlist(self, request: TurnRequest, run: Run) -> "asyncio.Task[None]":
        """Its client is told now, and whoever asks later finds it here."""
        run.opening.cancel()
        name = _name(request)
        self._queued[name] = run, request
        assert run.task is not None  # noqa: S101 (it was launched)
        run.task.add_done_callback(lambda _: self._over(name))
        return run.task

    def _over(self, name: Name) -> None:
        run, _ = self._queued.pop(name, (None, None))
        if run and run.opened is None:
            self._unbegun.keep(name, run)

    def _of_same_key(self, request: TurnRequest) -> tuple[Run, TurnRequest] | None:
        """The queued one that was asked for before, in the same place, under the request's idempotency key."""
        if request.idempotency_key:
            for run, earlier in self._queued.values():
                if run.is_queued and not run.is_stopping and _place(earlier) == _place(request):
                    return run, earlier
        return None

    async def _find(self, tenant: str, response_id: str) -> Found:
        session, turn = await self._eviction.read(tenant, response_id)
        return Found(session.session_id, turn, self._background.at_work(tenant, turn.turn_id))


def _name(request: TurnRequest) -> Name:
    return request.tenant, RESPONSE + request.turn_id


def _place(request: TurnRequest) -> tuple[str, Names, str]:
    """Within which an idempotency key is one, as far as it is known before the turn begins; and the key."""
    return request.tenant, request.names, request.idempotency_key


def _twin(request: TurnRequest, twin: Run, asked: TurnRequest) -> tuple[Found, Marks]:
    """The queued one, for another request with its key; raises `KeyReused` where that is for something else."""
    if structs.replace(asked, turn_id="", root_id="") != request:
        raise key_reused(request)
    return Found("", twin.turn, twin), Marks(is_replayed=True)


def _why_taken(run: Run, error: BaseException) -> str:
    """Why a turn that was left with `error` is queued no more; empty where it is to wait on after the next start."""
    if run.opened:
        return BEGUN
    if run.is_stopping:
        return CANCELLED
    return "" if isinstance(error, ShuttingDown | asyncio.CancelledError) else str(error) or repr(error)
