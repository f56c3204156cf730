"""Compression rotation: before a turn whose prompt would be too long, or by hand.

Theory of operation. The lineage is held by the caller. What to keep is decided by `compress.py`, the summary is asked
of a model, and one fact moves the lineage on to its child before the turn begins: so the turn, whether streamed or not,
tells its effective session id from its first byte. Nothing is recorded before the summary is there. If the process dies
in between, the session is as it was.

Where the summary's model refuses turnlog, or can not be reached, nothing changes: what is left out of a transcript is
not to be had back, and the network will be. Where it answers with something else than a summary, a plain one is made.
"""

import asyncio
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import structlog

from api.ids import new_session_id
from api.models.model import (
    Answer,
    Model,
    ModelBroke,
    ModelError,
    ModelRefused,
    ModelTimeout,
    ModelUnreachable,
)
from api.turns import compress, decide, summary
from api.turns.compress import Compression, Cut, Size
from api.turns.decide import Rotate
from api.turns.directory import session_not_found
from api.turns.lineages import Lineages
from api.turns.refusals import NothingToCompress, TurnInProgress
from api.turns.request import TurnRequest
from api.turns.summary import Order
from eventstore.events import CompressionRotated, SessionStarted, Trigger, lineage_stream
from projections.session import Session

ANY_MODEL = "*"
# Refusals that say nothing of the summary that was asked for: of the key, of the quota, and of the way there.
PASSING_STATUSES = frozenset({401, 402, 403, 408, 429, 502, 503, 504})
PASSING_CODES = frozenset({"insufficient_quota"})
SUMMARY_S = 60.0  # for the whole of it: a turn waits for it, and its client
COOLING_S = 60.0  # after a time-out: not every turn is to wait for the same silence

_log = structlog.get_logger()


class Wanted(NamedTuple):
    """A rotation that is due: at how many tokens, by whose model and words, whose idea it was, and what to keep."""

    threshold_tokens: int
    limits: Compression
    model: str
    trigger: Trigger
    focus: str = ""


class Due(NamedTuple):
    """A rotation, as far as it is decided: what is wanted, how long the prompt would be, and where it is cut."""

    wanted: Wanted
    size: Size
    cut: Cut


class Summary(NamedTuple):
    """A summary's text, who wrote it, and what that took (a usage object, JSON)."""

    text: str
    summariser: str = summary.DETERMINISTIC
    usage: bytes = b""


class Compacted(NamedTuple):
    """A conversation's summary as the chat message that stands for it, and what that took (a usage object, JSON)."""

    message: bytes
    usage: bytes


class Outcome(NamedTuple):
    """What became of a rotation before a turn: done, or due and not done for a reason; mostly neither."""

    is_rotated: bool = False
    uncompressed: str = ""

    @property
    def mark(self) -> str:
        """As the client is told."""
        return "rotated" if self.is_rotated else f"skipped: {self.uncompressed}" if self.uncompressed else ""


NOT_DUE = Outcome()


class Rotations:
    """Compresses sessions. Without a `summariser` every summary is the deterministic one."""

    def __init__(
        self, lineages: Lineages, summariser: Model | None, default: Compression, models: Mapping[str, Compression]
    ) -> None:
        self._lineages = lineages
        self._summariser = summariser
        self._default = models.get(ANY_MODEL, default)
        self._models = models
        self._silent_until_s: dict[str, float] = {}
        self._going_on: dict[str, asyncio.Task[CompressionRotated | None]] = {}  # by stream

    async def stop(self) -> None:
        """Break off what is going on; what it was for is as it was."""
        tasks = list(self._going_on.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def due(self, session: Session, request: TurnRequest, beside_bytes: int) -> Due | None:
        """The rotation that must come before a turn, as its prompt would be too long; None where none must.

        `beside_bytes` of context from elsewhere are part of the prompt.
        """
        wanted, transcript = self._wanted(request), session.transcript
        if not wanted.threshold_tokens or not transcript or session.open:
            return None
        size = compress.size_of(session, compress.asked_bytes(session, request) + beside_bytes)
        if size.tokens <= wanted.threshold_tokens:
            return None
        cut = compress.cut_of(transcript, compress.new_messages(request, session), size, wanted.threshold_tokens)
        if cut is None or cut.tokens_saved <= summary.tokens_max(wanted.threshold_tokens):
            return None  # a summary might take as much as it saves
        return Due(wanted, size, cut)

    async def before_turn(self, session: Session, due: Due, started: SessionStarted | None) -> Outcome:
        """Rotate. `started` begins the lineage of a fork that is to begin compressed. Raises `LogError`."""
        if self._is_silent(due.wanted):
            return Outcome(uncompressed=ModelTimeout.code)  # said in the log when it was found out
        try:
            rotated = await self._once(session, due, started)
        except ModelError as error:
            why = {"tokens": due.size.tokens, "code": error.code, "reason": str(error)}
            _log.warning("the session was not compressed", session_id=session.session_id, **why)
            return Outcome(uncompressed=error.code)
        return Outcome(is_rotated=rotated is not None)

    async def by_hand(self, tenant: str, session_id: str, focus: str = "") -> CompressionRotated:
        """Compress a session between two turns, however long it is; `focus` says what to keep above all.

        Raises `SessionNotFound`, `NothingToCompress`, `LineageBusy`, `ModelError`, `LogError`.
        """
        root_id = await self._lineages.directory.session(tenant, session_id)
        async with self._lineages.held(lineage_stream(tenant, root_id)) as session:
            return await self._now(session, focus)

    async def _now(self, session: Session, focus: str) -> CompressionRotated:
        if session.started is None:
            raise session_not_found(session.root_id)
        model = session.newest.started.model if session.newest else session.started.model
        limits = self._limits(model)
        size = compress.size_of(session, 0)
        cut = compress.cut_of(session.transcript, (), size, limits.threshold_tokens)
        if cut is None:
            raise NothingToCompress("the session is too short: a summary would save too little")
        wanted = Wanted(limits.threshold_tokens or size.tokens, limits, model, "manual", focus)
        rotated = await self._once(session, Due(wanted, size, cut), None)
        if rotated is None:
            raise TurnInProgress("another turn of this session is still running")
        return rotated

    async def compact(self, messages: Sequence[bytes], model: str) -> Compacted:
        """Summarise a conversation for whoever keeps it: no session is asked or changed. Raises `ModelError`."""
        limits = self._limits(model)
        size = compress.size_without_usage(messages)
        per_character = compress.tokens_per_character(messages, size)
        order = Order(
            messages=messages,
            model=limits.summary_model or model,
            told=limits.summary_prompt,
            characters_max=summary.characters_max(limits.threshold_tokens or size.tokens, per_character),
            shown_characters_max=summary.shown_max(limits.context_tokens, per_character),
        )
        written = await self._summary(order)
        return Compacted(summary.message_of("assistant", written.text, order.characters_max), written.usage)

    def _is_silent(self, wanted: Wanted) -> bool:
        """Whether the model was too slow to summarise a moment ago."""
        return time.monotonic() < self._silent_until_s.get(_summariser_of(wanted), 0.0)

    def _wanted(self, request: TurnRequest) -> Wanted:
        limits = self._limits(request.model)
        if request.compact_threshold_tokens:
            return Wanted(request.compact_threshold_tokens, limits, request.model, "request")
        return Wanted(limits.threshold_tokens, limits, request.model, "threshold")

    def _limits(self, model: str) -> Compression:
        return self._models.get(model, self._default)

    async def _once(self, session: Session, due: Due, started: SessionStarted | None) -> CompressionRotated | None:
        """Rotate, or wait for who is at it. A client that hangs up meanwhile takes nothing with it: the summary is paid
        for, and its next request finds the session compressed.
        """
        stream = session.stream
        task = self._going_on.get(stream)
        if task is None:
            task = self._going_on[stream] = asyncio.create_task(self._rotate(session, due, started), name="rotation")
            task.add_done_callback(lambda done: self._ended(stream, done))
        return await asyncio.shield(task)

    def _ended(self, stream: str, task: "asyncio.Task[CompressionRotated | None]") -> None:
        del self._going_on[stream]
        if not task.cancelled():
            task.exception()  # told to whoever waited, if anybody still did

    async def _rotate(self, session: Session, due: Due, started: SessionStarted | None) -> CompressionRotated | None:
        """Have a summary made and move the lineage on; None where the session has moved on meanwhile."""
        wanted, size, cut = due
        removed_position = session.removed_position
        transcript = tuple(session.transcript)
        middle = transcript[cut.head : cut.tail_at]
        tokens_per_character = compress.tokens_per_character(middle, size)
        order = Order(
            messages=middle,
            model=_summariser_of(wanted),
            told=wanted.limits.summary_prompt,
            focus=wanted.focus,
            characters_max=summary.characters_max(wanted.threshold_tokens, tokens_per_character),
            shown_characters_max=summary.shown_max(wanted.limits.context_tokens, tokens_per_character),
        )
        written = await self._summary(order)
        began = started or session.started
        if began and began.forked_from and self._lineages.sessions.is_outdated(session):
            return None  # what was erased meanwhile may be in the summary
        head, tail = session.current.counted(cut.head, len(transcript) - cut.tail_at)
        message = summary.message_of(compress.summary_role(transcript, cut), written.text, order.characters_max)
        rotated = CompressionRotated(
            old_session_id=started.session_id if started else session.session_id,
            session_id=new_session_id(),
            summary=message,
            head=head,
            tail=tail,
            first_kept_turn_id=compress.first_kept_turn_id(session, cut),
            trigger=wanted.trigger,
            tokens_before=size.tokens,
            tokens_after=size.tokens - cut.tokens_saved + int(len(message) * size.tokens_per_byte),
            summariser=written.summariser,
            usage=written.usage,
        )
        command = Rotate(messages=len(transcript), removed_position=removed_position, rotated=rotated, started=started)
        await self._lineages.commit(session, partial(decide.rotate, command=command))
        if session.session_id != rotated.session_id:
            return None
        self._lineages.directory.learn(session.tenant, "session", rotated.session_id, session.root_id)
        _log.info("the session was compressed", session_id=rotated.session_id, **_told(rotated))
        return rotated

    async def _summary(self, order: Order) -> Summary:
        """Raises `ModelError` where nothing is to change."""
        if self._summariser is None:
            return Summary(summary.deterministic(order))
        try:
            answer = await self._ask(self._summariser, order)
        except ModelError as error:
            if _is_passing(error):
                raise
            _log.warning("no summary from the model: a plain one was made", model=order.model, reason=str(error))
            return Summary(summary.deterministic(order))
        text = summary.text_in(answer)
        return Summary(text, order.model, answer.usage) if text else Summary(summary.deterministic(order))

    async def _ask(self, summariser: Model, order: Order) -> Answer:
        try:
            async with asyncio.timeout(SUMMARY_S):
                return await summariser.complete(summary.prompt_for(order))
        except (ModelTimeout, TimeoutError) as error:
            self._silent_until_s = {order.model: time.monotonic() + COOLING_S}
            raise ModelTimeout(str(error) or f"no summary within {SUMMARY_S:g} s") from error


def _summariser_of(wanted: Wanted) -> str:
    return wanted.limits.summary_model or wanted.model


def _is_passing(error: ModelError) -> bool:
    """Whether the fault is in the way to the model, not in what was asked of it."""
    if isinstance(error, ModelRefused):
        return error.status in PASSING_STATUSES or error.code in PASSING_CODES
    return isinstance(error, ModelUnreachable | ModelTimeout | ModelBroke)


def _told(rotated: CompressionRotated) -> dict[str, object]:
    return {
        "old_session_id": rotated.old_session_id,
        "trigger": rotated.trigger,
        "tokens_before": rotated.tokens_before,
        "tokens_after": rotated.tokens_after,
        "summariser": rotated.summariser,
    }
