"""POST /v1/responses/compact on the wire."""

from typing import Any, Literal

import msgspec

from api.problem import Problem
from api.turns.aside import Window
from api.turns.request import TurnRequest
from api.wire import responses
from api.wire.decode import body_of
from api.wire.headers import Continuity
from api.wire.items import Typed
from api.wire.response import Usage, usage_in
from api.wire.responses import ResponsesRequest
from projections import compaction
from projections.items import message_id
from projections.messages import fields, text_of


class CompactRequest(ResponsesRequest, kw_only=True):
    """A create, as far as it makes a prompt: all behind a name, and the input. The rest need only be what it can be."""

    model: str
    input: str | list[msgspec.Raw] | None = None  # type: ignore[assignment]  # need not be there


class UserItem(Typed, tag="message", kw_only=True):
    """What a user said."""

    id: str
    status: Literal["completed"] = "completed"
    role: Literal["user"] = "user"
    content: list[dict[str, Any]]


class CompactionItem(Typed, tag="compaction", kw_only=True):
    """What stands for everything else."""

    id: str
    encrypted_content: str


class CompactedResponse(msgspec.Struct, kw_only=True):
    """A window that can be sent as the input of the next response. Its id names it, and leads nowhere."""

    id: str
    object: Literal["response.compaction"] = "response.compaction"
    created_at: int
    output: list[UserItem | CompactionItem]
    usage: Usage


_decoder = msgspec.json.Decoder(CompactRequest)


def turn_request(body: bytes, tenant: str, headers: Continuity) -> TurnRequest:
    """The turn that would have what is to be compacted as its prompt; raises `Problem`."""
    asked = body_of(_decoder, body)
    if not asked.model:
        raise Problem("Missing required parameter: 'model'.", param="model", code="missing_required_parameter")
    names = asked.previous_response_id or asked.conversation
    if not asked.input and not names:
        raise Problem(
            "Missing required parameter: 'input' (or 'previous_response_id').",
            param="input",
            code="missing_required_parameter",
        )
    request = msgspec.structs.replace(asked, input=asked.input or "-")
    responses.check(request)
    turn = responses.turn_request(request, b"{}", tenant, headers)
    return turn if asked.input else msgspec.structs.replace(turn, items=(), opening=())


def compacted_response(window: Window, made_id: str, now_us: int) -> CompactedResponse:
    """The answer: the users' messages, and one item that holds the summary."""
    users = [_user_item(f"{made_id}_{number}", message) for number, message in enumerate(window.users)]
    summary = text_of(fields(window.compacted.message).get("content"))
    item = CompactionItem(id=f"cmp_{made_id}", encrypted_content=compaction.sealed(summary))
    return CompactedResponse(
        id=f"resp_{made_id}",
        created_at=now_us // 1_000_000,
        output=[*users, item],
        usage=usage_in(window.compacted.usage),
    )


def _user_item(place: str, message: bytes) -> UserItem:
    content = fields(message).get("content")
    parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
    return UserItem(id=message_id(place), content=[_part(part) for part in parts if isinstance(part, dict)])


def _part(part: dict[str, Any]) -> dict[str, Any]:
    """A part of a chat message by its Responses name; one that has none is passed on."""
    match part:
        case {"type": "text", "text": text}:
            return {"type": "input_text", "text": text}
        case {"type": "image_url", "image_url": dict(image)}:
            return {"type": "input_image", "image_url": image.get("url"), "detail": image.get("detail", "auto")}
        case {"type": "file", "file": dict(file)}:
            return dict(file, type="input_file")
    return part
