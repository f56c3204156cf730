"""The parameters of a chat request that have a shape of their own, as far as it is checked here.

Types, ranges and what must be there. A value that is one of a list (a voice, an effort, a tier) is any string: which
ones there are is the model server's to say, and so is whether it takes a parameter at all.
"""

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec

from api.problem import Problem
from api.wire.checks import Part, check_content, check_kind

CHOICES_MAX = 128
STOPS_MAX = 4

Choices = Annotated[int, msgspec.Meta(ge=1, le=CHOICES_MAX)]
Stops = Annotated[list[str], msgspec.Meta(max_length=STOPS_MAX)]
Bias = Annotated[float, msgspec.Meta(ge=-100, le=100)]
SafetyIdentifier = Annotated[str, msgspec.Meta(max_length=128)]


class StreamOptions(msgspec.Struct):
    """How the client wants its stream. Nothing is ever obfuscated here, whatever `include_obfuscation` says."""

    include_usage: bool | None = False
    include_obfuscation: bool | None = None


class Named(msgspec.Struct):
    """Something that is only called by its name."""

    name: str


class Function(msgspec.Struct):
    """A function that the model may call."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class CustomTool(msgspec.Struct):
    """A tool whose input is text."""

    name: str
    description: str | None = None
    format: dict[str, Any] | None = None


class Tool(msgspec.Struct):
    """A tool. Those of other types than `function` and `custom` are the model server's own."""

    type: str
    function: Function | None = None
    custom: CustomTool | None = None


class AllowedTools(msgspec.Struct):
    """The tools that a choice is limited to."""

    mode: str
    tools: list[dict[str, Any]]


class ToolChoice(msgspec.Struct):
    """A choice of tool that is more than a word."""

    type: str
    function: Named | None = None
    custom: Named | None = None
    allowed_tools: AllowedTools | None = None


class VoiceId(msgspec.Struct):
    """A voice of the client's own."""

    id: str


class Audio(msgspec.Struct):
    """How an answer is to sound."""

    format: str
    voice: str | VoiceId


class JsonSchema(msgspec.Struct):
    """The schema of a structured answer."""

    name: str
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct):
    """What an answer is to look like."""

    type: str
    json_schema: JsonSchema | None = None


class Prediction(msgspec.Struct):
    """What much of the answer will be."""

    type: str
    content: str | list[Part]


class UserLocation(msgspec.Struct):
    """Where a search is made from."""

    type: str
    approximate: dict[str, str | None]


class WebSearch(msgspec.Struct):
    """How the web is searched."""

    search_context_size: str | None = None
    user_location: UserLocation | None = None


class ModerationMode(msgspec.Struct):
    """What is done with what a moderation finds."""

    mode: str


class ModerationPolicy(msgspec.Struct):
    """The same, of what goes in and what comes out."""

    input: ModerationMode | None = None
    output: ModerationMode | None = None


class Moderation(msgspec.Struct):
    """Which model moderates, and how strictly."""

    model: str
    policy: ModerationPolicy | None = None


class PromptCache(msgspec.Struct):
    """How the model server caches what it is sent."""

    mode: str | None = None
    ttl: str | None = None


def check_tools(tools: Sequence[Tool], choice: str | ToolChoice | None) -> None:
    """Refuse tools and choices that do not name what they are about; raises `Problem`."""
    for index, tool in enumerate(tools):
        check_kind(tool, tool.type, _OF_TOOL, f"tools[{index}]")
    if isinstance(choice, ToolChoice):
        check_kind(choice, choice.type, _OF_CHOICE, "tool_choice")


_OF_TOOL = {"function": "function", "custom": "custom"}
_OF_CHOICE = _OF_TOOL | {"allowed_tools": "allowed_tools"}


def check_format(format_: ResponseFormat) -> None:
    """Refuse a schema that is none; raises `Problem`."""
    check_kind(format_, format_.type, {"json_schema": "json_schema"}, "response_format")


def check_prediction(prediction: Prediction) -> None:
    """Refuse a prediction of nothing; raises `Problem`."""
    check_content(prediction.content, "prediction.content", is_required=False)


def check_logprobs(logprobs: bool | None) -> None:
    """Refuse alternatives to tokens that are not wanted themselves, as OpenAI does; raises `Problem`."""
    if not logprobs:
        raise Problem("'top_logprobs' takes 'logprobs': true beside it.", param="top_logprobs", code="invalid_value")


def check_streaming(stream: bool | None) -> None:
    """Refuse the options of a stream where none was asked for, as OpenAI does; raises `Problem`."""
    if not stream:
        raise Problem("'stream_options' takes 'stream': true beside it.", param="stream_options", code="invalid_value")
