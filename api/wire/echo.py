"""The parameters of a request, as its response shows them: each of them, with its default where it was left out.

Lenient like everything that reads facts: what is in the log is shown, whatever it is.
"""

from collections.abc import Callable
from typing import Any

from eventstore.events import TurnStarted
from projections.messages import fields

DEFAULTS: dict[str, Any] = {
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
    "prompt_cache_retention": None,
    "prompt_cache_options": None,
    "user": None,
}
_FUNCTION = {"description": None, "parameters": None, "strict": None}
_CACHE_OPTIONS = {"mode": "implicit", "ttl": "30m"}


def echoed(started: TurnStarted) -> dict[str, Any]:
    """The turn's parameters, all there are."""
    if started.parameters == b"{}":
        return DEFAULTS
    given = fields(started.parameters)
    for name, whole in _WHOLE.items():
        if name in given:
            given[name] = whole(given[name])
    return {name: given.get(name, default) for name, default in DEFAULTS.items()}


def _tools(tools: Any) -> list[Any]:
    known = [tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) else []
    return [_FUNCTION | tool if tool.get("type") == "function" else tool for tool in known]


def _text(text: Any) -> Any:
    """A text has a format, whatever else was asked of it."""
    given = {name: value for name, value in text.items() if value is not None} if isinstance(text, dict) else {}
    return DEFAULTS["text"] | given


def _reasoning(reasoning: Any) -> Any:
    return DEFAULTS["reasoning"] | (reasoning if isinstance(reasoning, dict) else {})


def _cache_options(options: Any) -> Any:
    return _CACHE_OPTIONS | options if isinstance(options, dict) else None


def _service_tier(tier: Any) -> Any:
    """The tier that was had: which one that is where it was left open, only the model server can say."""
    return DEFAULTS["service_tier"] if tier == "auto" else tier


_WHOLE: dict[str, Callable[[Any], Any]] = {
    "tools": _tools,
    "text": _text,
    "reasoning": _reasoning,
    "prompt_cache_options": _cache_options,
    "service_tier": _service_tier,
}
