"""Every decision about a turn: the current session and a command in, new facts or a refusal out.

Pure: time, ids and the answer of the model are handed in. Tested as given(events).when(command).then(events).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from api.models.model import RESPONSES, Answer, Way
from api.turns.decide_items import check_items
from api.turns.history import Scope, digest_behind, scope_of
from api.turns.refusals import NothingNew, ResponseInProgress, ResponseNotFound, TurnInProgress, TurnNotOpen
from api.turns.request import TurnRequest
from api.turns.titles import next_title
from eventstore.events import (
    CancelReason,
    CompressionRotated,
    ConversationAdvanced,
    Event,
    EvictReason,
    ForkPoint,
    Recalled,
    ResponseEvicted,
    SessionStarted,
    TurnCancelled,
    TurnCompleted,
    TurnFailed,
    TurnStarted,
)
from projections.pieces import WHOLE, Pieces
from projections.session import Session
from projections.turn import Turn

NOTHING_NEW = "there is nothing new behind the last assistant message: send the next user or tool message"


class Said(NamedTuple):
    """What a model had said when it was cut short, the pieces in which it was streamed, and what came beside it."""

    output: tuple[bytes, ...] = ()
    pieces: Pieces = WHOLE
    extra: bytes = b""


NOTHING_SAID = Said()


class Fork(NamedTuple):
    """Where a session begins as a fork, and what it takes over: the session that it leaves, and its title."""

    point: ForkPoint
    source: SessionStarted | None = None
    title: str = ""


class Begin(msgspec.Struct, frozen=True, kw_only=True):
    """Open a turn. `is_gone` tells of an open turn whether whoever opened it no longer works on it."""

    request: TurnRequest
    turn_id: str
    session_id: str
    owner: str
    lease_ms: int
    now_us: int
    is_gone: Callable[[Turn], bool]
    fork: Fork | None = None
    recalled: tuple[Recalled, ...] = ()
    uncompressed: str = ""
    idempotency_scope: str = ""
    is_there: bool = False  # the session had started when the turn was let in
    way: Way = Way()


def begin(session: Session, command: Begin) -> list[Event]:
    """The turn opens, if its items fit in behind what was said."""
    events = opened(session, command)
    check_items(session, command.request)
    return events


def opened(session: Session, command: Begin) -> list[Event]:
    """The turn opens; a session that lacks starts first; a turn left open by a crash is cancelled first."""
    events: list[Event] = []
    if command.is_there and session.started is None:
        raise TurnNotOpen("the session was deleted meanwhile")
    events += closed(session, command.now_us, command.is_gone)
    started = session.started
    if started is None:
        started = session_started(command)
        events.append(started)
    events.append(started_by(command, session, started))
    return events


def closed(session: Session, now_us: int, is_gone: Callable[[Turn], bool]) -> list[Event]:
    """A turn that nobody works on any more ends; raises `TurnInProgress` where somebody does."""
    if session.open is None:
        return []
    if not (has_expired(session.open, now_us) or is_gone(session.open)):
        raise TurnInProgress("another turn of this session is still running")
    return [TurnCancelled(turn_id=session.open.turn_id, reason="crash")]


def session_started(command: Begin) -> SessionStarted:
    """The fact that begins a lineage. What held for all turns of the session that a fork leaves holds for its own."""
    request, fork = command.request, command.fork
    source = (fork.source if fork else None) or SessionStarted(session_id="")
    return SessionStarted(
        session_id=command.session_id,
        forked_from=fork.point if fork else None,
        session_key=request.session_key,
        identity=request.identity,
        source=source.source,
        title=next_title(fork.title) if fork else "",
        model=source.model,
        system_prompt=source.system_prompt,
    )


def started_by(command: Begin, session: Session, began: SessionStarted) -> TurnStarted:
    """The fact that a request makes of a session; raises `NothingNew`."""
    request = command.request
    # While nothing has completed, a session takes in all that the body holds: a failed first turn loses no history.
    items = request.items if session.newest else request.opening
    if not items:
        raise NothingNew(NOTHING_NEW)
    return TurnStarted(
        turn_id=command.turn_id,
        api=request.api,
        model=request.model,
        items=items,
        instructions=request.instructions,
        parameters=request.parameters,
        stream=request.stream,
        owner=command.owner,
        lease_ms=command.lease_ms,
        conversation=request.names.conversation,
        previous_response_id=request.continues or request.names.previous_response_id,
        idempotency_key=request.idempotency_key,
        idempotency_scope=command.idempotency_scope,
        body_digest=request.body_digest,
        session_key=None if request.session_key == began.session_key else request.session_key,
        identity=None if request.identity == began.identity else request.identity,
        recalled=command.recalled,
        uncompressed=command.uncompressed,
        background=request.background,
        upstream_api=command.way.api,
        upstream_model="" if command.way.model == request.model else command.way.model,
    )


def complete(session: Session, turn_id: str, answer: Answer, pieces: Pieces = WHOLE) -> list[Event]:
    """The model has answered: the turn joins the transcript, and its conversation moves on."""
    started = _open_turn(session, turn_id).started
    return completion(session, scope_of(session, started), started, answer, pieces)


def completion(session: Session, scope: Scope, started: TurnStarted, answer: Answer, pieces: Pieces) -> list[Event]:
    """The facts that an answer makes of the turn that `started` at the end of the session."""
    digest = digest_behind(session.newest, scope, started, (answer.message,))
    completed = completed_by(started, answer, pieces, digest)
    if not started.conversation:
        return [completed]
    name, session_id = started.conversation, session.session_id
    return [completed, ConversationAdvanced(conversation=name, session_id=session_id, turn_id=started.turn_id)]


def completed_by(
    started: TurnStarted, answer: Answer, pieces: Pieces = WHOLE, history_digest: bytes = b""
) -> TurnCompleted:
    """The fact that an answer makes of an open turn."""
    return TurnCompleted(
        turn_id=started.turn_id,
        output=(answer.message,),
        finish_reason=answer.finish_reason,
        usage=answer.usage,
        model="" if answer.model == started.model else answer.model,
        alternatives=answer.alternatives,
        extra=answer.extra,
        history_digest=history_digest,
        delta_lengths=pieces.lengths,
        delta_fields=pieces.fields,
        delta_tokens=pieces.tokens,
        resent=answer.without_thoughts and started.upstream_api == RESPONSES,
    )


class Failure(msgspec.Struct, frozen=True):
    """What went wrong with the model, as the client is told."""

    code: str
    message: str
    status: int


def fail(session: Session, turn_id: str, failure: Failure, said: Said = NOTHING_SAID) -> list[Event]:
    """The model did not answer. The turn is over and leaves nothing in later prompts."""
    _open_turn(session, turn_id)
    code, message, status = failure.code, failure.message, failure.status
    return [TurnFailed(turn_id=turn_id, code=code, message=message, status=status, **_fields(said))]


def cancel(session: Session, turn_id: str, reason: CancelReason, said: Said = NOTHING_SAID) -> list[Event]:
    """The turn was stopped. It leaves nothing in later prompts."""
    _open_turn(session, turn_id)
    return [TurnCancelled(turn_id=turn_id, reason=reason, **_fields(said))]


def _fields(said: Said) -> dict[str, Any]:
    """What the facts of a turn that was cut short keep of what was said."""
    lengths, fields, tokens = said.pieces
    extra = said.extra if tokens else b""  # the log probabilities, without which the pieces can not be told again
    return {
        "output": said.output,
        "delta_lengths": lengths,
        "delta_fields": fields,
        "delta_tokens": tokens,
        "extra": extra,
    }


def evict(session: Session, turn_id: str, reason: EvictReason, earlier: Turn | None = None) -> list[Event]:
    """The response is no longer addressable. The turn stays. `earlier` is the turn where it is behind a rotation."""
    turn = session.find(turn_id) or earlier
    if turn is None or turn.evicted:
        raise ResponseNotFound(f"no response resp_{turn_id}")
    if turn.ended is None:
        raise ResponseInProgress(f"resp_{turn_id} is still in progress: cancel it first, or wait for it")
    return [ResponseEvicted(turn_id=turn_id, reason=reason)]


def evict_ended(session: Session, turns: Sequence[Turn], reason: EvictReason) -> list[Event]:
    """Of these turns, those that have ended lose their responses, unless they have already."""
    now = [session.find(turn.turn_id) or turn for turn in turns]
    return [ResponseEvicted(turn_id=turn.turn_id, reason=reason) for turn in now if turn.ended and not turn.evicted]


class Rotate(msgspec.Struct, frozen=True, kw_only=True):
    """Compress a transcript of so many messages, which had last lost an item at that position.

    `started` begins the lineage where that is a fork without a turn.
    """

    messages: int
    removed_position: int = 0
    rotated: CompressionRotated
    started: SessionStarted | None = None


def rotate(session: Session, command: Rotate) -> list[Event]:
    """The session goes on in a child; nothing where its transcript is another by now, or where a turn is open in it.

    It may have been renamed meanwhile, and some of its responses evicted.
    """
    rotated, started = command.rotated, command.started
    tip_id = started.session_id if started else session.session_id
    is_there = session.started is None if started else session.started is not None
    if session.open or not is_there or tip_id != rotated.old_session_id:
        return []
    if (len(session.transcript), session.removed_position) != (command.messages, command.removed_position):
        return []
    title = next_title(started.title if started else session.title)
    return [*([started] if started else []), msgspec.structs.replace(rotated, title=title)]


def has_expired(turn: Turn, now_us: int) -> bool:
    """Whether the open turn's lease has run out."""
    return now_us >= turn.expires_us


def _open_turn(session: Session, turn_id: str) -> Turn:
    if session.open is None or session.open.turn_id != turn_id:
        raise TurnNotOpen("the turn was ended meanwhile: its lease had run out, or its session was deleted")
    return session.open
