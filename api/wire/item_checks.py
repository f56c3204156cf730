"""Input items of the Responses API: what each must hold, and what of them can be passed on to a model."""

from typing import Annotated, Any, Literal

import msgspec

from api.problem import Problem
from api.wire.decode import Fields, body_of, encode
from api.wire.headers import CHARACTERS_MAX
from api.wire.unpacked import Unpacked

ItemId = Annotated[str, msgspec.Meta(max_length=CHARACTERS_MAX, pattern=r"^[^\x00-\x1f\x7f]*$")]


class Audio(msgspec.Struct):
    """A recording."""

    data: str
    format: str


class InputPart(msgspec.Struct):
    """A part of an item's content, by whichever of the two APIs it is spelled."""

    type: str
    text: str | None = None
    refusal: str | None = None
    image_url: str | dict[str, Any] | None = None
    detail: str | None = None
    file: dict[str, Any] | None = None
    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None
    input_audio: Audio | None = None


class InputItem(msgspec.Struct):
    """An item, as far as it is read or checked here."""

    type: str = "message"
    id: ItemId | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[InputPart] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    input: str | None = None
    output: str | list[InputPart] | None = None
    summary: list[InputPart] | None = None
    encrypted_content: str | None = None

    @property
    def is_from_model(self) -> bool:
        """Whether a model said it, as opposed to the client."""
        return self.role == "assistant" or self.type in ("function_call", "custom_tool_call", "reasoning", "compaction")


_decoder = msgspec.json.Decoder(InputItem)
_fields_decoder = msgspec.json.Decoder(Fields)
# What an item must have besides its type.
_REQUIRED = {
    "message": ("role", "content"),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
    "custom_tool_call": ("call_id", "name", "input"),
    "custom_tool_call_output": ("call_id", "output"),
    "reasoning": (),
    "compaction": ("encrypted_content",),
}
# What a part must have besides its type. Parts of the chat API are taken as well, as the older system does.
_PARTS = {
    **dict.fromkeys(("input_text", "output_text", "text", "reasoning_text", "summary_text"), "text"),
    **dict.fromkeys(("input_image", "image_url"), "image_url"),
    "input_file": "file_data",
    "file": "file",
    "input_audio": "input_audio",
    "refusal": "refusal",
}
_DETAILS = ("auto", "low", "high", "original")


def items_of(
    input_: str | list[msgspec.Raw], param: str, unpacked: Unpacked | None = None
) -> list[tuple[bytes, InputItem]]:
    """Each item as it is stored, and as it was read; raises `Problem`. `param` is where they stand in the body; what
    other lists of the request hold, `unpacked`, counts with them.
    """
    raws = [msgspec.Raw(encode(input_))] if isinstance(input_, str) else input_
    counted = unpacked or Unpacked()
    return [_item(bytes(raw), param, index, counted) for index, raw in enumerate(raws)]


def _item(data: bytes, param: str, index: int, unpacked: Unpacked) -> tuple[bytes, InputItem]:
    where = f"{param}[{index}]"
    if data.startswith(b'"'):
        data = encode({"type": "message", "role": "user", "content": msgspec.Raw(data)})
    item = body_of(_decoder, data, where)
    required = _REQUIRED.get(item.type)
    if required is None:
        raise Problem(
            f"Items of type '{item.type}' are not taken here; known are {', '.join(_REQUIRED)}.",
            param=f"{where}.type",
            code="unsupported_item",
        )
    for field in required:
        if getattr(item, field) is None:
            raise _missing(f"{where}.{field}")
    if item.type == "compaction":
        unpacked.check(item.encrypted_content, param, where)
        # Whoever weighs it knows it by its type, spelled without escapes.
        data = encode(body_of(_fields_decoder, data, where) | {"type": item.type})
    for field in ("content", "output", "summary"):
        parts = getattr(item, field)
        if isinstance(parts, list):
            for number, part in enumerate(parts):
                _check_part(part, f"{where}.{field}[{number}]")
    if item.role == "user" and _is_blank(item.content):
        raise Problem(f"{where}.content must not be empty.", param=f"{where}.content", code="empty_message")
    return data, item


def _is_blank(content: str | list[InputPart] | None) -> bool:
    return not content or (isinstance(content, str) and not content.strip())


def _check_part(part: InputPart, where: str) -> None:
    required = _PARTS.get(part.type)
    if required is None:
        raise _unsupported(
            f"{where}.type", f"Parts of type '{part.type}' are not taken here; known are {', '.join(_PARTS)}."
        )
    match part:
        case InputPart(type="input_image", image_url=None, file_id=str()):
            raise _unsupported(f"{where}.file_id", "Images are not taken by 'file_id' here: send them as 'image_url'.")
        case InputPart(type="input_file", file_url=str()):
            raise _unsupported(f"{where}.file_url", "Files are not taken by 'file_url' here: send them as 'file_data'.")
        case InputPart(type="input_file", file_id=str()):
            return
    if getattr(part, required) is None:
        raise _missing(f"{where}.{required}")
    if required == "image_url":
        _check_image(part, where)


def _check_image(part: InputPart, where: str) -> None:
    """An image of the Responses API is a URL, one of the chat API an object that holds one."""
    image: dict[str, Any] = {"url": part.image_url, "detail": part.detail}
    names = {"url": "image_url", "detail": "detail"}
    if part.type == "image_url" and isinstance(part.image_url, dict):
        image, names = part.image_url, {"url": "image_url.url", "detail": "image_url.detail"}
    if not isinstance(url := image.get("url"), str) or not url:
        raise _invalid(f"{where}.{names['url']}", "a URL or a data: URL")
    if image.get("detail") not in (None, *_DETAILS):
        raise _invalid(f"{where}.{names['detail']}", f"one of {', '.join(_DETAILS)}")


def _invalid(path: str, expected: str) -> Problem:
    return Problem(f"Invalid '{path}': expected {expected}.", param=path, code="invalid_value")


def _missing(path: str) -> Problem:
    return Problem(f"Missing required parameter: '{path}'.", param=path, code="missing_required_parameter")


def _unsupported(path: str, message: str) -> Problem:
    return Problem(message, param=path, code="unsupported_content")
