"""The parameters of a response: what each may be, and what becomes of it.

Whatever else a body holds is a model server's own, and is passed on to it unseen.
"""

from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from api.problem import Problem
from api.wire.checks import Count, Metadata, Share, Temperature, TopLogprobs
from api.wire.includes import check_include

Fate: TypeAlias = Literal["works", "passes", "without effect", "refused"]

# Every parameter of `responses.create` in OpenAI's SDK. What "passes" is the model server's to obey, by its chat name
# where the chat API has another. What is "without effect" concerns only what never occurs here: tools that the server
# runs by itself, padding of streams, cutting off a conversation that turnlog compresses in time.
PARAMETERS: dict[str, Fate] = {
    "access_programs": "refused",
    "background": "works",
    "context_management": "works",
    "conversation": "works",
    "image": "refused",
    "include": "works",
    "input": "works",
    "instructions": "works",
    "max_output_tokens": "passes",
    "max_tool_calls": "without effect",
    "metadata": "works",
    "model": "works",
    "moderation": "refused",
    "parallel_tool_calls": "passes",
    "previous_response_id": "works",
    "prompt": "refused",
    "prompt_cache_key": "passes",
    "prompt_cache_options": "passes",
    "prompt_cache_retention": "passes",
    "reasoning": "passes",
    "safety_identifier": "passes",
    "service_tier": "passes",
    "store": "works",
    "stream": "works",
    "stream_options": "without effect",
    "temperature": "passes",
    "text": "passes",
    "tool_choice": "passes",
    "tools": "passes",
    "top_logprobs": "passes",
    "top_p": "passes",
    "truncation": "without effect",
    "user": "works",
}
# What to do without those that are refused.
_INSTEAD = {
    "access_programs": "They are a matter between a client and OpenAI: leave it out.",
    "image": "Images are passed on as they are: leave it out, and send smaller ones where that matters.",
    "moderation": "Call a moderation endpoint yourself, before and behind the response.",
    "prompt": "Templates are stored at OpenAI: send their text as 'instructions' and 'input'.",
}

TOOLS = ("function", "custom")
ToolName = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]


class Grammar(msgspec.Struct):
    """What the input of a custom tool looks like."""

    type: Literal["text", "grammar"]
    syntax: Literal["lark", "regex"] | None = None
    definition: str | None = None


class Tool(msgspec.Struct):
    """A tool that the client runs."""

    type: str
    name: ToolName | None = None
    description: str | None = None
    parameters: dict[str, msgspec.Raw] | None = None
    strict: bool | None = None
    format: Grammar | None = None


class ChosenTool(msgspec.Struct):
    """A tool by its name."""

    type: str
    name: str | None = None


class ToolChoice(ChosenTool):
    """The tool that the model must call, or those among which it may choose."""

    mode: Literal["auto", "required"] | None = None
    tools: list[ChosenTool] | None = None


class TextFormat(msgspec.Struct):
    """What the answer is to be."""

    type: Literal["text", "json_object", "json_schema"]
    name: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    schema: dict[str, msgspec.Raw] | None = None
    description: str | None = None
    strict: bool | None = None


class TextConfig(msgspec.Struct):
    """How the model is to answer."""

    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


Detail: TypeAlias = Literal["auto", "concise", "detailed"]


class Reasoning(msgspec.Struct):
    """How the model is to think, and what is to be seen of it."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Detail | None = None
    generate_summary: Detail | None = None
    context: Literal["auto", "current_turn", "all_turns"] | None = None
    mode: str | None = None


class StreamOptions(msgspec.Struct):
    """How the client wants its stream. Nothing is ever padded here."""

    include_obfuscation: bool | None = None


class PromptCacheOptions(msgspec.Struct):
    """How the model server is to keep the prompt."""

    mode: Literal["implicit", "explicit"] | None = None
    ttl: Literal["30m", "12h"] | None = None
    prewarm: bool | None = None
    comparison_response_id: str | None = None


class ContextManagement(msgspec.Struct):
    """What is to be done when the context grows long: compaction, at so many tokens."""

    type: Literal["compaction"]
    compact_threshold: Count | None = None


class Parameters(msgspec.Struct, kw_only=True):
    """All of them that do not say what the turn is about."""

    include: list[str] | None = None
    metadata: Metadata | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    max_output_tokens: Count | None = None
    max_tool_calls: Count | None = None
    top_logprobs: TopLogprobs | None = None
    parallel_tool_calls: bool | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    truncation: Literal["auto", "disabled"] | None = None
    context_management: list[ContextManagement] | None = None
    service_tier: Literal["auto", "default", "flex", "scale", "priority", "fast", "ultrafast"] | None = None
    safety_identifier: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    prompt_cache_options: PromptCacheOptions | None = None
    stream_options: StreamOptions | None = None
    access_programs: Any = None
    image: Any = None
    moderation: Any = None
    prompt: Any = None


def check_parameters(asked: Parameters, *, streams: bool) -> None:
    """Refuse by name what can not be asked for here; raises `Problem`."""
    for name, instead in _INSTEAD.items():
        if getattr(asked, name) is not None:
            raise _unsupported(name, f"'{name}' is not available here. {instead}")
    if asked.include:
        check_include(asked.include)
    if asked.stream_options and not streams:
        raise _invalid("stream_options", "'stream_options' is only for streams: leave it out, or send stream=true.")
    if asked.prompt_cache_options:
        _check_cache(asked.prompt_cache_options)
    if asked.text and asked.text.format:
        _check_format(asked.text.format)
    if asked.tools:
        _check_tools(asked.tools)
    if asked.tool_choice:
        _check_choice(asked.tool_choice, asked.tools or [])


def _check_cache(options: PromptCacheOptions) -> None:
    for name in ("prewarm", "comparison_response_id"):
        if getattr(options, name):
            path = f"prompt_cache_options.{name}"
            raise _unsupported(path, f"'{path}' is not available here: leave it out.")


def _check_format(wanted: TextFormat) -> None:
    if wanted.type == "json_schema":
        for name in ("name", "schema"):
            if getattr(wanted, name) is None:
                raise _missing(f"text.format.{name}")


def _check_tools(tools: list[Tool]) -> None:
    for index, tool in enumerate(tools):
        _check_kind(tool.type, f"tools[{index}].type")
        if tool.name is None:
            raise _missing(f"tools[{index}].name")
        if tool.format and tool.format.type == "grammar":
            for name in ("syntax", "definition"):
                if getattr(tool.format, name) is None:
                    raise _missing(f"tools[{index}].format.{name}")


def _check_choice(choice: str | ToolChoice, tools: list[Tool]) -> None:
    if isinstance(choice, str):
        if choice == "required" and not tools:
            raise _invalid("tool_choice", "Tool choice 'required' must be specified with 'tools' parameter.")
    elif choice.type == "allowed_tools":
        for name in ("mode", "tools"):
            if getattr(choice, name) is None:
                raise _missing(f"tool_choice.{name}")
        for index, allowed in enumerate(choice.tools or ()):
            _check_named(allowed, tools, f"tool_choice.tools[{index}]")
    else:
        _check_named(choice, tools, "tool_choice")


def _check_named(chosen: ChosenTool, tools: list[Tool], path: str) -> None:
    _check_kind(chosen.type, f"{path}.type")
    if chosen.name is None:
        raise _missing(f"{path}.name")
    if not any((tool.type, tool.name) == (chosen.type, chosen.name) for tool in tools):
        raise _invalid(path, f"Tool choice '{chosen.name}' not found in 'tools' parameter.")


def _check_kind(kind: str, path: str) -> None:
    if kind not in TOOLS:
        raise Problem(
            f"Tools of type '{kind}' are not available here; use {' or '.join(TOOLS)} tools.",
            param=path,
            code="unsupported_tool",
        )


def _unsupported(path: str, message: str) -> Problem:
    return Problem(message, param=path, code="unsupported_parameter")


def _invalid(path: str, message: str) -> Problem:
    return Problem(message, param=path, code="invalid_value")


def _missing(path: str) -> Problem:
    return Problem(f"Missing required parameter: '{path}'.", param=path, code="missing_required_parameter")
