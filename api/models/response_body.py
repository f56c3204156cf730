"""A prompt as the body of POST /v1/responses: the way back from `api/turns/prompt.py`.

The conversation is turnlog's: the server is told to store nothing, and asked for its thoughts in a form that it can be
given back.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from api.models.model import REASONING_SUMMARY, ModelRefused, Prompt
from api.models.response_items import input_items

THOUGHTS = "reasoning.encrypted_content"
LOGPROBS = "message.output_text.logprobs"

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

_RENAMED = {"max_tokens": "max_output_tokens", "max_completion_tokens": "max_output_tokens"}
# What the Responses API has no word for, with the values by which nothing is asked.
_NO_COUNTERPART: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "stop": ([],),
    "seed": (),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logit_bias": ({},),
    "modalities": (["text"],),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "functions": ([],),
    "function_call": ("none",),
}


def body_of(prompt: Prompt, *, stream: bool, with_thoughts: bool) -> bytes:
    """The body; raises `ModelRefused` where a parameter has no counterpart. What was sent once is shown again by this:
    it must not change for what is in logs.

    Only `with_thoughts` does it hold reasoning items, and ask for some.
    """
    body: dict[str, Any] = {
        "model": prompt.model,
        "input": input_items(prompt.messages, with_thoughts=with_thoughts),
        "store": False,
    }
    if stream:
        body["stream"] = True
    include = [THOUGHTS] if with_thoughts else []
    for name, value in prompt.parameters.items():
        if bytes(value) == b"null":
            continue
        if name in _NO_COUNTERPART:
            _ensure_nothing_asked(name, _decode(value))
        elif name == "logprobs":
            include += [LOGPROBS] if _decode(value) else []
        elif translate := _TRANSLATED.get(name):
            _merge(body, translate(_decode(value)))
        else:
            body[_RENAMED.get(name, name)] = value
    return _encode(body | {"include": include} if include else body)


def _ensure_nothing_asked(name: str, value: Any) -> None:
    if value not in _NO_COUNTERPART[name]:
        message = f"Unsupported parameter: '{name}': this model's server speaks the Responses API, which has no such."
        raise ModelRefused(400, message, code="unsupported_parameter", param=name)


def _merge(body: dict[str, Any], added: dict[str, Any]) -> None:
    """Two chat parameters can become one."""
    for name, value in added.items():
        both = isinstance(value, dict) and isinstance(body.get(name), dict)
        body[name] = body[name] | value if both else value


def _tools(tools: Any) -> dict[str, Any]:
    """Chat tools are nested under their type, Responses tools are flat."""
    flat = [_flat(tool) for tool in tools] if isinstance(tools, list) else tools
    return {"tools": flat} if flat else {}


def _flat(tool: Any) -> Any:
    match tool:
        case {"type": "function", "function": {**function}}:
            # What a chat says nothing of is not strict; a response would have it so.
            return {"type": "function", "parameters": None, "strict": False} | function
        case {"type": "custom", "custom": {"format": {"type": "grammar", "grammar": {**grammar}}, **custom}}:
            return {"type": "custom", **custom, "format": {"type": "grammar", **grammar}}
        case {"type": "custom", "custom": {**custom}}:
            return {"type": "custom", **custom}
    return tool


def _tool_choice(choice: Any) -> dict[str, Any]:
    match choice:
        case {"type": "allowed_tools", "allowed_tools": {**allowed}}:
            tools = allowed.get("tools")
            named = [_named(tool) for tool in tools] if isinstance(tools, list) else tools
            return {"tool_choice": {"type": "allowed_tools", **allowed, "tools": named}}
    return {"tool_choice": _named(choice)}


def _named(choice: Any) -> Any:
    match choice:
        case {"type": str(kind), "function": {**named}} | {"type": str(kind), "custom": {**named}}:
            return {"type": kind, **named}
    return choice


def _response_format(wanted: Any) -> dict[str, Any]:
    match wanted:
        case {"type": "json_schema", "json_schema": {**schema}}:
            return {"text": {"format": {"type": "json_schema", **schema}}}
    return {"text": {"format": wanted}}


_TRANSLATED: dict[str, Callable[[Any], dict[str, Any]]] = {
    "tools": _tools,
    "tool_choice": _tool_choice,
    "response_format": _response_format,
    "verbosity": lambda value: {"text": {"verbosity": value}},
    "reasoning_effort": lambda value: {"reasoning": {"effort": value}},
    REASONING_SUMMARY: lambda value: {"reasoning": {"summary": value}},
}
