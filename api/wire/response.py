"""The response object: everything a client may ask of a turn, made from its facts alone."""

from typing import Any, Literal

import msgspec

from api.turns.directory import RESPONSE
from api.wire.items import Item, output_items
from eventstore.events import TurnCompleted, TurnFailed, TurnStarted
from projections.messages import fields
from projections.turn import Status, Turn
from projections.usage import tokens_of


class ResponseError(msgspec.Struct):
    """Why a response failed."""

    code: str
    message: str


class Incomplete(msgspec.Struct):
    """Why a response was cut short."""

    reason: str


class Conversation(msgspec.Struct):
    """The conversation that a response belongs to."""

    id: str


class InputDetails(msgspec.Struct):
    """What of the input was not new to the model server."""

    cached_tokens: int = 0


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
    status: Status
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
    user: Any


_DEFAULTS: dict[str, Any] = {
    "metadata": {},
    "temperature": 1.0,
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_logprobs": 0,
    "tools": [],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "text": {"format": {"type": "text"}},
    "reasoning": {"effort": None, "summary": None},
    "truncation": "disabled",
    "max_output_tokens": None,
    "max_tool_calls": None,
    "service_tier": "default",
    "safety_identifier": None,
    "prompt_cache_key": None,
    "user": None,
}
_FUNCTION_KEYS = {"description": None, "parameters": None, "strict": None}
_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}


class _Instructions(msgspec.Struct):
    content: str


_decode_instructions = msgspec.json.Decoder(_Instructions).decode


def response_object(turn: Turn, *, store: bool = True) -> ResponseObject:
    """The response that a turn is, as it stands now."""
    started, ended = turn.started, turn.ended
    response = ResponseObject(
        id=RESPONSE + started.turn_id,
        created_at=turn.started_us // 1_000_000,
        status=turn.status,
        model=started.model,
        output=_output(turn),
        instructions=_instructions(started),
        previous_response_id=started.previous_response_id or None,
        conversation=Conversation(started.conversation) if started.conversation else None,
        store=store,
        **_parameters(started),
    )
    if isinstance(ended, TurnCompleted):
        response.completed_at = turn.ended_us // 1_000_000
        response.model = ended.model or started.model
        response.usage = usage_of(ended)
        if reason := _INCOMPLETE.get(ended.finish_reason):
            response.incomplete_details = Incomplete(reason)
    elif isinstance(ended, TurnFailed):
        response.error = ResponseError(ended.code, ended.message)
    return response


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


def _output(turn: Turn) -> list[Item]:
    if turn.ended is None:
        return []
    status = "completed" if turn.status == "completed" else "incomplete"
    by_arrival = turn.started.stream  # then the message was put together in the order in which its parts came
    messages = turn.ended.output
    return [item for data in messages for item in output_items(turn.turn_id, data, status, by_arrival=by_arrival)]


def _instructions(started: TurnStarted) -> str | None:
    return _decode_instructions(started.instructions[0]).content if started.instructions else None


def _parameters(started: TurnStarted) -> dict[str, Any]:
    if started.parameters == b"{}":
        return _DEFAULTS
    given = fields(started.parameters)
    if tools := given.get("tools"):
        given["tools"] = [_FUNCTION_KEYS | tool if tool.get("type") == "function" else tool for tool in tools]
    return {name: given.get(name, default) for name, default in _DEFAULTS.items()}
