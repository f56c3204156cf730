"""The response object: everything a client may ask of a turn, made from its facts alone."""

import re
from typing import Any, Literal

import msgspec

from api.ids import made_s
from api.turns.directory import RESPONSE
from api.wire.echo import echoed
from api.wire.items import Item, string_of
from api.wire.output import items_of
from eventstore.events import TurnCancelled, TurnCompleted, TurnFailed, TurnStarted
from projections.messages import fields
from projections.turn import Status, Turn
from projections.usage import tokens_of


class ResponseError(msgspec.Struct):
    """Why a response failed."""

    code: str
    message: str


# turnlog's own codes, which clients in strictly typed languages do not know.
_OURS = re.compile(r"upstream_\w+|log_\w+|views_\w+|internal_error|shutting_down|turn_ended|overloaded")


def response_error(code: str, message: str) -> ResponseError:
    """An error as clients of the Responses API can read it. What the model server calls it is passed on, and what
    turnlog calls it stands in the message.
    """
    return (
        ResponseError("server_error", f"{message} ({code})") if _OURS.fullmatch(code) else ResponseError(code, message)
    )


class Incomplete(msgspec.Struct):
    """Why a response was cut short."""

    reason: str


class Conversation(msgspec.Struct):
    """The conversation that a response belongs to."""

    id: str


class InputDetails(msgspec.Struct):
    """What of the input was not new to the model server."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputDetails(msgspec.Struct):
    """What of the output was thought."""

    reasoning_tokens: int = 0


class Usage(msgspec.Struct):
    """Tokens, by their Responses names."""

    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class ResponseObject(msgspec.Struct, kw_only=True):
    """All keys, always; null where there is nothing to say."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: Status | Literal["queued"]
    background: bool = False
    error: ResponseError | None = None
    incomplete_details: Incomplete | None = None
    model: str
    output: list[Item]
    usage: Usage | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: Conversation | None = None
    store: bool = True
    metadata: Any
    temperature: Any
    top_p: Any
    presence_penalty: Any
    frequency_penalty: Any
    top_logprobs: Any
    tools: Any
    tool_choice: Any
    parallel_tool_calls: Any
    text: Any
    reasoning: Any
    truncation: Any
    max_output_tokens: Any
    max_tool_calls: Any
    service_tier: Any
    safety_identifier: Any
    prompt_cache_key: Any
    prompt_cache_retention: Any
    prompt_cache_options: Any
    user: Any


_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


_LOST = ResponseError(
    "server_error", "The server was restarted while this response was made, and did not finish it: send it again."
)


def response_object(turn: Turn, *, store: bool = True) -> ResponseObject:
    """The response that a turn is, as it stands now."""
    started, ended = turn.started, turn.ended
    response = ResponseObject(
        id=RESPONSE + started.turn_id,
        created_at=_created_at(turn),
        status=turn.status,
        background=started.background,
        model=started.model,
        output=items_of(turn),
        instructions=_instructions(started),
        previous_response_id=started.previous_response_id or None,
        conversation=Conversation(started.conversation) if started.conversation else None,
        store=store,
        **echoed(started),
    )
    if isinstance(ended, TurnCompleted):
        response.completed_at = turn.ended_us // 1_000_000 if turn.status == "completed" else None
        response.model = ended.model or started.model
        response.service_tier = _served_tier(ended) or response.service_tier
        response.usage = usage_of(ended)
        if reason := _INCOMPLETE.get(ended.finish_reason):
            response.incomplete_details = Incomplete(reason)
    elif isinstance(ended, TurnFailed):
        response.error = response_error(ended.code, ended.message)
    elif is_lost(turn):
        response.status, response.error = "failed", _LOST
    return response


def is_lost(turn: Turn) -> bool:
    """Whether a turn in the background was cut short by the end of its server, and not started again."""
    ended = turn.ended
    return turn.started.background and isinstance(ended, TurnCancelled) and ended.reason in ("crash", "shutdown")


def _created_at(turn: Turn) -> int:
    """When it was asked for, which its client is told before the turn is open where that is in the background."""
    asked_s = made_s(turn.turn_id) if turn.started.background else None
    return turn.started_us // 1_000_000 if asked_s is None else asked_s


def usage_of(done: TurnCompleted) -> Usage:
    """The model server's chat usage by its Responses names."""
    return usage_in(done.usage)


def usage_in(usage: bytes) -> Usage:
    """A chat usage object (JSON, or nothing) by its Responses names."""
    tokens = tokens_of(usage)
    return Usage(
        input_tokens=tokens.input,
        input_tokens_details=InputDetails(tokens.cached),
        output_tokens=tokens.output,
        output_tokens_details=OutputDetails(tokens.reasoning),
        total_tokens=tokens.input + tokens.output,
    )


def _served_tier(done: TurnCompleted) -> str:
    """The tier that the model server says it has served."""
    return string_of(fields(done.extra).get("service_tier")) if b'"service_tier"' in done.extra else ""


def _instructions(started: TurnStarted) -> str | None:
    return string_of(fields(started.instructions[0]).get("content")) if started.instructions else None
