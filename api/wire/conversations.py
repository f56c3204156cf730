"""Conversations on the wire: the objects, and what their requests hold."""

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from api.problem import Problem
from api.turns.conversations import NewConversation, Speaker
from api.turns.decide_conversation import NO_NOTES
from api.wire.checks import Metadata
from api.wire.decode import body_of, encode
from api.wire.headers import Continuity
from api.wire.item_list import Asked, ItemList, Shown, turn_items
from api.wire.responses import checked_items
from projections.conversations import ConversationRow
from projections.items import turn_id_of
from projections.messages import fields
from projections.turn import Turn

ITEMS_MAX = 20


class ConversationObject(msgspec.Struct, kw_only=True):
    """A conversation. `created_at` is seconds since 1970, UTC."""

    id: str
    object: Literal["conversation"] = "conversation"
    created_at: int
    metadata: dict[str, Any]


class ConversationList(msgspec.Struct, kw_only=True):
    """A page of conversations; its ids are empty where there is none."""

    object: Literal["list"] = "list"
    data: list[ConversationObject]
    first_id: str
    last_id: str
    has_more: bool


class CreateConversation(msgspec.Struct):
    """A conversation to be made."""

    items: list[msgspec.Raw] | None = None
    metadata: Metadata | None = None


class UpdateConversation(msgspec.Struct):
    """The notes that replace those there are; null clears them."""

    metadata: Metadata | None


class CreateItems(msgspec.Struct):
    """Items to be added."""

    items: list[msgspec.Raw]


_create_decoder = msgspec.json.Decoder(CreateConversation)
_update_decoder = msgspec.json.Decoder(UpdateConversation)
_items_decoder = msgspec.json.Decoder(CreateItems)
_fields_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])


def new_conversation(body: bytes) -> NewConversation:
    """The conversation that the body wants made; an empty body leaves it all open. Raises `Problem`."""
    body = body or b"{}"
    _check_fields(body, CreateConversation)
    asked = body_of(_create_decoder, body)
    return NewConversation(_items(asked.items or []), _notes(asked.metadata))


def notes_of(body: bytes) -> bytes:
    """The notes that the body holds, as a JSON object; raises `Problem`."""
    _check_fields(body, UpdateConversation)
    return _notes(body_of(_update_decoder, body).metadata)


def new_items(body: bytes) -> tuple[bytes, ...]:
    """The items that the body wants added; raises `Problem`."""
    _check_fields(body, CreateItems)
    items = _items(body_of(_items_decoder, body).items)
    if not items:
        raise Problem("items must not be empty.", param="items", code="empty_array")
    return items


def speaker_of(tenant: str, headers: Continuity) -> Speaker:
    """Who asks."""
    return Speaker(
        tenant=tenant, session_id=headers.session_id, session_key=headers.session_key, identity=headers.identity
    )


def conversation_object(row: ConversationRow) -> ConversationObject:
    """A conversation as a client sees it."""
    metadata = fields(row.metadata.encode())
    return ConversationObject(id=row.name, created_at=row.created_us // 1_000_000, metadata=metadata)


def conversation_list(rows: Sequence[ConversationRow], asked: Asked) -> ConversationList:
    """A page of conversations; `rows` may hold one more than its limit, which tells that there are more."""
    data = [conversation_object(row) for row in rows[: asked.limit]]
    return ConversationList(
        data=data,
        first_id=data[0].id if data else "",
        last_id=data[-1].id if data else "",
        has_more=len(rows) > asked.limit,
    )


def added_items(turn: Turn) -> ItemList:
    """The items that were added, as a list of them all."""
    data = turn_items(turn)
    return ItemList(data=data, first_id=data[0]["id"], last_id=data[-1]["id"], has_more=False)


def find_item(turns: Sequence[Turn], item_id: str) -> tuple[Turn, Shown] | None:
    """The item of that id, and the turn it came in with. Mostly the id says which; one that a client made does not."""
    made_in = turn_id_of(item_id)
    for turn in sorted(turns, key=lambda turn: turn.turn_id != made_in):
        for item in turn_items(turn):
            if item["id"] == item_id:
                return turn, item
    return None


def holder_of(turns: Sequence[Turn], item_id: str) -> Turn | None:
    """The turn that the item of that id came in with."""
    found = find_item(turns, item_id)
    return found[0] if found else None


def _items(raws: list[msgspec.Raw]) -> tuple[bytes, ...]:
    if len(raws) > ITEMS_MAX:
        raise Problem(
            f"Invalid 'items': array too long. At most {ITEMS_MAX} items can be added at a time, got {len(raws)}.",
            param="items",
            code="array_above_max_length",
        )
    return checked_items(raws, "items")


def _notes(metadata: dict[str, str] | None) -> bytes:
    return encode(metadata) if metadata else NO_NOTES


def _check_fields(body: bytes, known: type[msgspec.Struct]) -> None:
    unknown = sorted(body_of(_fields_decoder, body).keys() - set(known.__struct_fields__))
    if unknown:
        name = unknown[0][:64]
        raise Problem(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
