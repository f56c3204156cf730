"""What the model is sent for a turn: a pure function of the session and the turn's own facts.

One rule: the session's system prompt, this turn's instructions, what is recalled from other sessions, then the
transcript of the lineage, then what is new.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec

from api.models.model import Prompt
from eventstore.events import SessionStarted, TurnStarted
from projections.messages import input_messages
from projections.session import Session

Parameters: TypeAlias = dict[str, msgspec.Raw]

_decode_parameters = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def prompt_of(
    began: SessionStarted | None, started: TurnStarted, session: Session, recalled: Sequence[bytes] = ()
) -> Prompt:
    """The prompt of a turn of a session that `began` so, which is given the messages `recalled` as context."""
    new = input_messages(started)
    instructions = [*_system_prompt(began), *started.instructions, *recalled]
    messages = [*instructions, *session.transcript, *new]
    size = session.transcript_bytes + sum(map(len, new)) + sum(map(len, instructions))
    return Prompt(
        model=started.model,
        messages=messages,
        instructions=len(instructions),
        messages_bytes=size,
        parameters=chat_parameters(started),
    )


def _system_prompt(began: SessionStarted | None) -> tuple[bytes, ...]:
    text = began.system_prompt if began else ""
    return (_encode({"role": "system", "content": text}),) if text else ()


def chat_parameters(started: TurnStarted) -> Parameters:
    """The turn's parameters by the names of the chat API."""
    if started.parameters == b"{}":
        return {}
    parameters = _decode_parameters(started.parameters)
    if started.api == "chat":
        return {name: value for name, value in parameters.items() if name not in _CHAT_OURS}
    return _from_responses(parameters)


# Kept in the log and given back, but nothing to do with how the model answers.
_CHAT_OURS = frozenset({"stream_options", "metadata", "store"})
_RESPONSES_OURS = frozenset({"metadata", "truncation", "stream_options", "max_tool_calls", "context_management"})


def _from_responses(parameters: Parameters) -> Parameters:
    chat: Parameters = {}
    for name, value in parameters.items():
        if name in _RESPONSES_OURS or bytes(value) == b"null":
            continue
        renamed = _RENAMED.get(name)
        if renamed:
            chat[renamed] = value
        elif translate := _TRANSLATED.get(name):
            chat |= {key: msgspec.Raw(_encode(entry)) for key, entry in translate(_decode_any(value)).items()}
        else:
            chat[name] = value
    if "top_logprobs" in chat:
        chat["logprobs"] = msgspec.Raw(b"true")
    return chat


_RENAMED = {"max_output_tokens": "max_completion_tokens"}
# What of a tool a chat server knows; the rest is about tools that OpenAI runs.
_TOOL_FIELDS = frozenset({"name", "description", "parameters", "strict", "format"})


def _include(names: list[Any]) -> dict[str, Any]:
    """Log probabilities are asked for; whatever else there is to include is there, or never is."""
    return {"logprobs": True} if "message.output_text.logprobs" in names else {}


def _tools(tools: list[dict[str, Any]]) -> dict[str, Any]:
    """Responses tools are flat, chat tools are nested under their type."""
    return {"tools": [_nested(tool) for tool in tools]} if tools else {}


def _tool_choice(choice: Any) -> dict[str, Any]:
    match choice:
        case {"type": "allowed_tools", "mode": mode, "tools": list(tools)}:
            allowed = {"mode": mode, "tools": [_nested(tool) for tool in tools]}
            return {"tool_choice": {"type": "allowed_tools", "allowed_tools": allowed}}
    return {"tool_choice": _nested(choice) if isinstance(choice, dict) else choice}


def _nested(tool: dict[str, Any]) -> dict[str, Any]:
    kind = tool.get("type", "function")
    fields = {name: value for name, value in tool.items() if name in _TOOL_FIELDS and value is not None}
    match fields.get("format"):
        case {"type": "grammar", **grammar}:
            fields["format"] = {"type": "grammar", "grammar": grammar}
    return {"type": kind, kind: fields}


def _text(text: dict[str, Any]) -> dict[str, Any]:
    chat: dict[str, Any] = {}
    match text.get("format"):
        case {"type": "json_schema", **schema}:
            chat["response_format"] = {"type": "json_schema", "json_schema": schema}
        case {"type": "json_object"}:
            chat["response_format"] = {"type": "json_object"}
    if text.get("verbosity"):
        chat["verbosity"] = text["verbosity"]
    return chat


def _reasoning(reasoning: dict[str, Any]) -> dict[str, Any]:
    return {"reasoning_effort": reasoning["effort"]} if reasoning.get("effort") else {}


_TRANSLATED: dict[str, Callable[[Any], dict[str, Any]]] = {
    "include": _include,
    "tools": _tools,
    "tool_choice": _tool_choice,
    "text": _text,
    "reasoning": _reasoning,
}
