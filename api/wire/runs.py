"""Runs on the wire: what a request holds, and a run as it stands."""

from typing import Any, Literal

import msgspec

from api.problem import Problem
from api.turns.directory import RUN
from api.turns.request import TurnRequest
from api.turns.run import Found
from api.wire import responses
from api.wire.decode import body_of, rest_of
from api.wire.headers import CHARACTERS_MAX, SESSION_ID, UNPRINTABLE, Continuity, check_session_id
from api.wire.items import CustomToolCallItem, FunctionCallItem, MessageItem, OutputText, Refusal, output_items
from api.wire.responses import ResponsesRequest
from eventstore.events import TurnCancelled, TurnCompleted, TurnFailed
from projections.turn import Turn
from projections.usage import tokens_of

US_PER_S = 1_000_000

State = Literal["running", "stopping", "completed", "failed", "cancelled"]


class RunRequest(ResponsesRequest):
    """A Responses request that may name its session in the body."""

    session_id: str | None = None


class RunAnswer(msgspec.Struct):
    """What has begun: a run, which is in the log by now and goes on by itself, or its end."""

    run_id: str
    status: Literal["started", "stopping"]


class Usage(msgspec.Struct):
    """Tokens of one run."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class RunEnd(msgspec.Struct, omit_defaults=True):
    """What a completed run has to say; `tool_calls` are for the client to answer with a run of the same session."""

    output: str
    usage: Usage
    finish_reason: str
    tool_calls: list[FunctionCallItem | CustomToolCallItem] = []


class RunStatus(msgspec.Struct, omit_defaults=True, kw_only=True):
    """A run as it stands. Times are seconds since 1970 UTC; what does not apply is absent."""

    object: Literal["hermes.run"]
    run_id: str
    status: State
    updated_at: float
    created_at: float
    session_id: str
    model: str
    last_event: str | None = None
    conversation: str | None = None
    previous_response_id: str | None = None
    output: str | None = None
    usage: Usage | None = None
    finish_reason: str | None = None
    tool_calls: list[FunctionCallItem | CustomToolCallItem] | None = None
    error: str | None = None
    code: str | None = None
    reason: str | None = None


_decoder = msgspec.json.Decoder(RunRequest)
_OURS = responses.OURS | {"session_id"}


def decode(body: bytes) -> RunRequest:
    """The request in `body`; raises `Problem`."""
    request = body_of(_decoder, body)
    responses.check(request)
    if request.store is False:
        raise Problem(
            "A run is always stored: that is how it can be watched. Leave 'store' out.",
            param="store",
            code="unsupported_parameter",
        )
    return request


def named(headers: Continuity, session_id: str | None, *, has_keys: bool) -> Continuity:
    """The headers, with the session that the body names; raises `Problem` where that can not be one, or is another."""
    if not session_id:
        return headers
    if not has_keys:
        raise Problem(
            "session_id requires API key authentication, and this server has no API key configured.",
            status=403,
            param="session_id",
            code="session_requires_key",
        )
    if len(session_id) > CHARACTERS_MAX or UNPRINTABLE.search(session_id):
        raise Problem(
            f"session_id must be at most {CHARACTERS_MAX} characters, without control characters.",
            param="session_id",
            code="invalid_session_id",
        )
    check_session_id(session_id, "session_id")
    if headers.session_id not in ("", session_id):
        raise Problem(
            f"session_id and {SESSION_ID} name two sessions: send one of them, or the same twice.",
            param="session_id",
            code="session_mismatch",
        )
    return msgspec.structs.replace(headers, session_id=session_id)


def turn_request(request: RunRequest, body: bytes, tenant: str, headers: Continuity) -> TurnRequest:
    """The turn that a run is; raises `Problem`. It is streamed, to whoever follows it."""
    turn = responses.turn_request(request, body, tenant, headers)
    parameters = rest_of(body, _OURS)
    return msgspec.structs.replace(turn, api="runs", parameters=parameters, stream=True, background=True)


def run_status(found: Found) -> RunStatus:
    """A run as it stands now."""
    turn, is_stopping = found.turn, bool(found.run and found.run.is_stopping)
    changed_us = turn.ended_us or turn.restarted_us or turn.started_us
    status = RunStatus(
        object="hermes.run",
        run_id=RUN + turn.turn_id,
        status="stopping" if is_stopping else "running",
        updated_at=changed_us / US_PER_S,
        created_at=turn.started_us / US_PER_S,
        session_id=found.session_id,
        model=turn.started.model,
        conversation=turn.started.conversation or None,
        previous_response_id=turn.started.previous_response_id or None,
    )
    if is_stopping:
        status.last_event = "run.stopping"
    elif turn.restarted:
        status.last_event = "run.restarted"
    match turn.ended:
        case TurnCompleted():
            _complete(status, run_end(turn, turn.ended))
        case TurnFailed(code=code, message=message):
            status.status, status.last_event, status.error, status.code = "failed", "run.failed", message, code
        case TurnCancelled(reason=reason):
            status.status, status.last_event, status.reason = "cancelled", "run.cancelled", reason
    return status


def _complete(status: RunStatus, end: RunEnd) -> None:
    status.status, status.last_event = "completed", "run.completed"
    status.output, status.usage, status.finish_reason = end.output, end.usage, end.finish_reason
    status.tool_calls = end.tool_calls or None


def run_end(turn: Turn, done: TurnCompleted) -> RunEnd:
    """The end of a completed run: what was said, and what it cost."""
    items = [item for data in done.output for item in output_items(turn.turn_id, data, by_arrival=True)]
    parts = [part for item in items if isinstance(item, MessageItem) for part in item.content]
    tokens = tokens_of(done.usage)
    return RunEnd(
        output="".join(map(_text, parts)),
        usage=Usage(tokens.input, tokens.output, tokens.input + tokens.output),
        finish_reason=done.finish_reason,
        tool_calls=[item for item in items if isinstance(item, FunctionCallItem | CustomToolCallItem)],
    )


def _text(part: OutputText | Refusal) -> str:
    return part.text if isinstance(part, OutputText) else part.refusal


def event_fields(end: RunEnd) -> dict[str, Any]:
    """The end as the fields of an event."""
    fields: dict[str, Any] = msgspec.to_builtins(end)
    return fields
