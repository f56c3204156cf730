"""Turns of which the log has nothing, and how one goes on from them all the same, while their connection lasts.

What such a turn leaves behind is where its chain began, and what was said since, as items that its client could send
itself. The next turn is asked with those before its own: so the model sees the whole, and one that is to be stored is
stored with all that led to it. A chain that began at the end of a session, not behind one of its responses, sees what
that session has got since then, before its own items.

A conversation's name holds for the turn that gives it. What goes on from that turn does not give it (the API takes one
or the other), so it neither makes nor moves the conversation: what was not to be stored does not get into one so. Where
the name leads to a conversation, the chain sees it, and what is stored goes where the connection's session header
leads, else into a session of its own, a fork behind all that was said there; where it leads nowhere, into a new one.
"""

import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator

import msgspec

from api.ids import new_id
from api.models.model import Chunk
from api.turns.decide import NOTHING_SAID, Said
from api.turns.open_turn import PLAIN, Marks
from api.turns.request import Names, TurnRequest
from api.turns.service import Turns
from eventstore.events import CancelReason, TurnCompleted, TurnStarted
from projections.messages import unpacked_bytes
from projections.turn import Turn


class Unstored(msgspec.Struct, frozen=True, kw_only=True):
    """A response that only its connection knows: the names under which its chain began, and all items since.

    A conversation among the names is what the chain sees, not where it goes.
    """

    response_id: str
    names: Names
    items: tuple[bytes, ...]
    model: str

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory, and what it is unpacked to."""
        return sum(map(len, self.items)) + unpacked_bytes(self.items)


def left_by(response_id: str, request: TurnRequest, done: Turn, output: tuple[bytes, ...]) -> Unstored:
    """What a turn leaves behind that was asked with `request`; `output` is what the model said, as items."""
    items = done.started.items + output
    names = msgspec.structs.replace(request.names, conversation=request.names.conversation or request.seen)
    return Unstored(response_id=response_id, names=names, items=items, model=request.model)


def behind(unstored: Unstored, request: TurnRequest) -> TurnRequest:
    """The turn that goes on from a response which is not in the log. It is bound to no conversation."""
    return msgspec.structs.replace(
        request,
        names=msgspec.structs.replace(unstored.names, conversation=""),
        seen=unstored.names.conversation,
        items=unstored.items + request.items,
        opening=unstored.items + request.opening,
        model=request.model or unstored.model,
        continues=unstored.response_id,
        history=0,
    )


class Kept:
    """The newest unstored response of each lane of a connection, no more than `bytes_max` of them together."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._newest: dict[str, Unstored] = {}

    def find(self, response_id: str) -> Unstored | None:
        """The response of that id, whichever lane it is of."""
        return next((kept for kept in self._newest.values() if kept.response_id == response_id), None)

    def keep(self, lane: str, unstored: Unstored) -> None:
        """Keep the lane's newest instead of the one before. Where there is no room, those of other lanes go first."""
        self._newest.pop(lane, None)
        self._newest[lane] = unstored
        while sum(kept.size_bytes for kept in self._newest.values()) > self._bytes_max:
            del self._newest[next(iter(self._newest))]

    def forget(self, lane: str) -> None:
        """The lane's newest response is a stored one now."""
        self._newest.pop(lane, None)

    def evict(self, lane: str, response_id: str) -> None:
        """A turn that went on from that response failed: the lane has it no more, as the specification says."""
        if (kept := self._newest.get(lane)) and kept.response_id == response_id:
            del self._newest[lane]


class Warm:
    """A turn that no model is asked for: its input is what the next one begins with."""

    session_id = ""
    marks: Marks = PLAIN
    cancel_reason: CancelReason = "disconnect"

    def __init__(self, turn: Turn) -> None:
        self.turn = turn

    async def answer(self) -> Turn:
        """The turn, which is complete."""
        return self.turn

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """One piece, with nothing in it."""
        yield Chunk()

    def partial(self) -> Said:
        """Nothing."""
        return NOTHING_SAID


@contextlib.asynccontextmanager
async def warmed_up(turns: Turns, request: TurnRequest) -> AsyncIterator[Warm]:
    """A turn without a model, of which nothing is stored. Raises `Refusal`, `LogError`."""
    with turns.work.going_on():
        session = await turns.look_in(request)
        yield Warm(_completed(request, request.items if session.newest else request.opening))


def _completed(request: TurnRequest, items: tuple[bytes, ...]) -> Turn:
    now_us = time.time_ns() // 1_000
    started = TurnStarted(
        turn_id=new_id(),
        api=request.api,
        model=request.model,
        items=items,
        instructions=request.instructions,
        parameters=request.parameters,
        stream=True,
        owner="",
        lease_ms=0,
        conversation=request.names.conversation,
        previous_response_id=request.continues or request.names.previous_response_id,
    )
    return Turn(started, now_us, TurnCompleted(turn_id=started.turn_id, output=(), finish_reason="stop"), now_us)
