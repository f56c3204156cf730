"""Idempotency keys: a request that comes twice makes one turn.

A key is one within its tenant, its route and the session as the client named it, for a day. Theory of operation: in
this process the first request holds its key until its turn is over, and whoever comes with the same key meanwhile
waits; otherwise the log tells what became of the first, through a view that is level with it. Only a turn that
completed counts, or one that may yet: behind a failed or cancelled one the key is free, and the retry replaces it.
"""

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TypeAlias

import msgspec

from api.models.model import Chunk
from api.turns.decide import Said, has_expired
from api.turns.lineages import Lineages
from api.turns.open_turn import LiveTurn, Marks
from api.turns.refusals import KeyReused, LineageBusy
from api.turns.replayed import chunks_of, pieces_of
from api.turns.request import Names, TurnRequest
from eventstore.events import CancelReason, Identity, TurnCompleted, lineage_stream
from projections import idempotency
from projections.turn import Turn

POLL_S = 0.05
WAITING_MAX = 256
STILL_RUNNING = "the first request with this idempotency key is still running: try again with the same key"

_Name: TypeAlias = tuple[str, str, str]  # tenant, scope, key

_NOBODY = ("", Identity())
_encode = msgspec.msgpack.Encoder().encode


class Replayed:
    """A turn that is answered from the log: `turn` has ended. Only one of the background may still be in progress, with
    nothing to say yet.
    """

    def __init__(self, session_id: str, turn: Turn) -> None:
        self.session_id = session_id
        self.turn = turn
        self.marks = Marks(is_replayed=True)
        self.cancel_reason: CancelReason = "disconnect"

    async def answer(self) -> Turn:
        """The turn as it was recorded."""
        return self.turn

    async def chunks(self) -> AsyncGenerator[Chunk, None]:
        """The recorded answer, in the pieces it was first streamed in."""
        for chunk in chunks_of(self.turn):
            yield chunk

    def partial(self) -> Said:
        """All that was said."""
        ended = self.turn.ended
        return Said(ended.output, pieces_of(ended), ended.extra) if ended else Said()


class Claim:
    """A key, held by one request of this process until its turn is over."""

    __slots__ = ("_is_known", "_opened", "_over", "_turn", "_waiting", "request")

    def __init__(self, request: TurnRequest) -> None:
        self.request = request
        self._turn: LiveTurn | None = None
        self._is_known = False
        self._waiting = 0
        loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = loop.create_future()
        self._over: asyncio.Future[None] = loop.create_future()

    def opened(self, turn: LiveTurn) -> None:
        """The turn is open in the log."""
        self._turn = turn
        if not self._opened.done():
            self._opened.set_result(None)

    def known(self) -> None:
        """The log has the key, with this request's body: whoever sends another need not wait."""
        self._is_known = True
        if not self._opened.done():
            self._opened.set_result(None)

    def release(self) -> None:
        """The turn is over, however it ended; or there is none."""
        for future in (self._opened, self._over):
            if not future.done():
                future.set_result(None)

    async def first(self, request: TurnRequest, wait_s: float) -> Replayed | None:
        """The turn of the holder, for a later request with the same key; None where it came to nothing.

        Waits until it has ended, one of the background only until it is open. Raises `KeyReused`, `LineageBusy`.
        """
        is_same = self.request.body_digest == request.body_digest
        give_up = asyncio.get_running_loop().time() + wait_s
        # Another request is refused as soon as the key is the holder's: that one may yet be the wrong one itself.
        await self._wait_for(self._over if is_same and not request.background else self._opened, give_up)
        if self._is_known:
            _check_same(self.request.body_digest, request)
        turn = self._turn
        if turn is None or not _counts(turn.turn, is_over=self._over.done()):
            await self._wait_for(self._over, give_up)  # cancelled, and the holder has not let go yet
            return None
        _check_same(self.request.body_digest, request)
        return Replayed(turn.session_id, turn.turn)

    async def _wait_for(self, future: "asyncio.Future[None]", give_up: float) -> None:
        if self._waiting >= WAITING_MAX:
            raise LineageBusy(f"{WAITING_MAX} requests with this idempotency key wait already")
        self._waiting += 1
        try:
            await asyncio.wait((future,), timeout=_left(give_up))
        finally:
            self._waiting -= 1
        if not future.done():
            raise LineageBusy(STILL_RUNNING)


class Keys:
    """The idempotency keys of all tenants. `is_gone` tells of an open turn whether nobody works on it any more."""

    def __init__(self, lineages: Lineages, *, wait_s: float, is_gone: Callable[[Turn], bool]) -> None:
        self._lineages = lineages
        self._wait_s = wait_s
        self._is_gone = is_gone
        self._held: dict[_Name, Claim] = {}

    @contextlib.asynccontextmanager
    async def once(self, request: TurnRequest) -> AsyncIterator[Claim | Replayed]:
        """The key, held for the body; or the turn that it has made already.

        Raises `KeyReused` where that was made by another request, `LineageBusy` where it runs for too long, `LogError`.
        """
        request = await self._scoped(request)
        name = (request.tenant, request.idempotency_scope, request.idempotency_key)
        give_up = asyncio.get_running_loop().time() + self._wait_s
        # Between finding that nobody holds the key and holding it there is no await: of two at once one is first.
        while holder := self._held.get(name):
            first = await holder.first(request, _left(give_up))
            if first:
                yield first
                return
        claim = self._held[name] = Claim(request)
        try:
            first = await self._recorded(claim, give_up)
            if first is None:
                yield claim
        finally:
            del self._held[name]
            claim.release()
        if first:
            yield first  # nobody needs to wait for what the log has

    async def _scoped(self, request: TurnRequest) -> TurnRequest:
        route = request.route or request.api
        named = await self._named(request.tenant, request.names)
        scope = f"{route} {named}" if named else route
        return msgspec.structs.replace(request, idempotency_scope=scope, body_digest=_digest(request))

    async def _named(self, tenant: str, names: Names) -> str:
        """The session as the client named it; any id of a lineage is that of its root, before and after a rotation."""
        if names.session_id:
            place = await self._lineages.directory.find(tenant, Names(session_id=names.session_id))
            return f"session:{place.root_id if place else names.session_id}"
        if names.conversation:
            return f"conversation:{names.conversation}"
        return f"response:{names.previous_response_id}" if names.previous_response_id else ""

    async def _recorded(self, claim: Claim, give_up: float) -> Replayed | None:
        """The turn that the log has under the key, once it has ended; None where there is none that counts."""
        request = claim.request
        since_us = time.time_ns() // 1_000 - idempotency.KEPT_US
        named = (request.tenant, request.idempotency_scope, request.idempotency_key, since_us)
        rows = await self._lineages.views.fetch(idempotency.FIND, named)
        if not rows:
            return None
        root_id, turn_id, digest = rows[0]
        sessions, stream = self._lineages.sessions, lineage_stream(request.tenant, root_id)
        while True:
            session = await sessions.get(stream)
            turn = await sessions.find(session, turn_id)
            if turn is None or not _counts(turn, is_over=self._is_left(turn)):
                return None
            _check_same(digest, request)
            if turn.ended or request.background:
                return Replayed(session.session_id, turn)
            claim.known()
            # Another process is at work on it, or nobody's request any more: the log tells when it is done.
            if not _left(give_up):
                raise LineageBusy(STILL_RUNNING)
            await asyncio.sleep(POLL_S)
            await sessions.catch_up(session)

    def _is_left(self, turn: Turn) -> bool:
        return self._is_gone(turn) or has_expired(turn, time.time_ns() // 1_000)


def _counts(turn: Turn, *, is_over: bool) -> bool:
    """Whether a turn stands for all requests with its key: it completed, or somebody is still at work on it."""
    return isinstance(turn.ended, TurnCompleted) or (turn.ended is None and not is_over)


def _digest(request: TurnRequest) -> bytes:
    """What tells one request from another: its body; and whoever speaks, where headers say that.

    Nobody is given the answer to a request of somebody else's, whose client counts its keys as this one does.
    """
    speaker = (request.session_key, request.identity)
    if speaker == _NOBODY:
        return request.body_digest
    return hashlib.sha256(request.body_digest + _encode(speaker)).digest()


def key_reused(request: TurnRequest) -> KeyReused:
    """The refusal of a request whose key belongs to another one."""
    return KeyReused(
        f"Idempotency-Key '{request.idempotency_key}' was used for another request here: send each with its own key"
    )


def _check_same(digest: bytes, request: TurnRequest) -> None:
    if digest != request.body_digest:
        raise key_reused(request)


def _left(give_up: float) -> float:
    return max(0.0, give_up - asyncio.get_running_loop().time())
