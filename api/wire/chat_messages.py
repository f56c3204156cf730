"""The messages of a chat request: what is checked of them, and which of them are new."""

from collections.abc import Sequence
from typing import Literal

import msgspec

from api.problem import Problem
from api.wire.checks import Part, check_content, check_kind, missing
from api.wire.decode import body_of

INSTRUCTION_ROLES = frozenset({"system", "developer"})


class ImageUrl(msgspec.Struct):
    """Where an image is."""

    url: str
    detail: str | None = None


class InputAudio(msgspec.Struct):
    """What was spoken."""

    data: str
    format: str


class File(msgspec.Struct):
    """A file, by its id or by its content."""

    file_id: str | None = None
    file_data: str | None = None
    filename: str | None = None


class ContentPart(Part):
    """A part of a chat message's content. Parts of other types are passed on as they are."""

    image_url: ImageUrl | None = None
    input_audio: InputAudio | None = None
    file: File | None = None
    refusal: str | None = None


class CalledFunction(msgspec.Struct):
    """A function as a model called it."""

    name: str
    arguments: str | None = None


class CalledTool(msgspec.Struct):
    """A tool of free text as a model called it."""

    name: str
    input: str | None = None


class ToolCall(msgspec.Struct):
    """A call as a model made it. What a model server left out of it is not its client's fault."""

    id: str | None = None
    type: str | None = None
    function: CalledFunction | None = None
    custom: CalledTool | None = None


class SpokenAudio(msgspec.Struct):
    """What a model said aloud, earlier."""

    id: str


class Message(msgspec.Struct):
    """A chat message, as far as it is checked here."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: CalledFunction | None = None
    audio: SpokenAudio | None = None


_decode = msgspec.json.Decoder(Message)
# What a part must have besides its type.
_OF_PART = {name: name for name in ("image_url", "input_audio", "file", "refusal")}


def messages_of(raws: Sequence[bytes]) -> list[Message]:
    """The messages in `raws`; raises `Problem`."""
    messages = [body_of(_decode, raw, f"messages[{index}]") for index, raw in enumerate(raws)]
    spoken = [index for index, message in enumerate(messages) if message.role not in INSTRUCTION_ROLES]
    if not spoken:
        raise Problem("No user message found in messages.", param="messages", code="no_user_message")
    for index, message in enumerate(messages):
        where = f"messages[{index}]"
        if isinstance(message.content, list):
            _check_parts(message.content, f"{where}.content")
        if message.role == "tool" and not message.tool_call_id:
            raise missing(f"{where}.tool_call_id")
        if message.role == "function" and not message.name:
            raise missing(f"{where}.name")
        is_required = message.role == "user" and index == spoken[-1]
        check_content(message.content, f"{where}.content", is_required=is_required)
    return messages


def _check_parts(parts: Sequence[ContentPart], where: str) -> None:
    for index, part in enumerate(parts):
        check_kind(part, part.type, _OF_PART, f"{where}[{index}]")
