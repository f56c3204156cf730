"""The items of a turn: how each is called, and what is left of a turn without some of them.

The Responses API sees a transcript as items: a message, a function call, its output, a thought. Most are stored as part
of a chat message, so their ids follow from the turn's id and their place in it: a stream, its final response and every
later read name the same items, and nobody stores ids. Only an item that came in with an id of its own keeps that.

    msg_TURN       rs_TURN      fc_TURN_K        what a model said, thought, and wants called (number K)
    msg_TURN_iN    rs_TURN_iN   fc_TURN_iN_K     the same of the turn's input number N, where that is a chat message
    msg_TURN_iN    fc_TURN_iN   fco_TURN_iN …    the turn's input number N, where that is an item
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from eventstore.events import TurnStarted
from projections.messages import fields, messages_of

_encode = msgspec.json.Encoder().encode

_PREFIXES = {
    "message": "msg",
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "compaction": "cmp",
}
_MADE = re.compile(r"[a-z]+_(?P<turn_id>[0-9a-z-]+?)(?:_.*)?")
_THOUGHTS = ("reasoning_content", "reasoning", "reasoning_items")


def message_id(place: str) -> str:
    """The id of the message at a place: a turn's id for its output, `TURN_iN` for its input."""
    return f"msg_{place}"


def reasoning_id(place: str) -> str:
    """The id of the thoughts that stand in a message."""
    return f"rs_{place}"


def call_item_id(place: str, index: int) -> str:
    """The id of the tool call number `index` of a message."""
    return f"fc_{place}_{index}"


def output_id(place: str) -> str:
    """The id of a tool's output, where that is a chat message."""
    return f"fco_{place}"


def input_place(turn_id: str, number: int) -> str:
    """Where input number `number` of a turn stands."""
    return f"{turn_id}_i{number}"


def input_item_id(turn_id: str, number: int, item: dict[str, Any]) -> str:
    """The id of a Responses item that came in as input number `number`: its own, where it has one."""
    own = item.get("id")
    if isinstance(own, str) and own:
        return own
    kind = item.get("type", "message")
    prefix = _PREFIXES.get(kind, "item") if isinstance(kind, str) else "item"
    return f"{prefix}_{input_place(turn_id, number)}"


def turn_id_of(item_id: str) -> str:
    """The turn that an id made here leads to; empty where it can not have been made here."""
    made = _MADE.fullmatch(item_id)
    return made["turn_id"] if made else ""


def kept_input(started: TurnStarted, removed: frozenset[str]) -> tuple[bytes, ...]:
    """The turn's input as chat messages, without the items that were removed."""
    if started.api != "chat":
        numbered = enumerate(started.items)
        kept = [data for n, data in numbered if input_item_id(started.turn_id, n, fields(data)) not in removed]
        return messages_of(started.api, tuple(kept))
    places = (input_place(started.turn_id, number) for number in range(len(started.items)))
    return _kept(zip(places, started.items, strict=True), removed)


def kept_output(turn_id: str, output: Sequence[bytes], removed: frozenset[str]) -> tuple[bytes, ...]:
    """What a model said in the turn, without the items that were removed."""
    return _kept([(turn_id, message) for message in output], removed)


def _kept(placed: Any, removed: frozenset[str]) -> tuple[bytes, ...]:
    left = (_without(data, place, removed) for place, data in placed)
    return tuple(data for data in left if data)


def _without(data: bytes, place: str, removed: frozenset[str]) -> bytes:
    """What is left of a chat message; empty where nothing is."""
    message = fields(data)
    if output_id(place) in removed:
        return b""
    gone = set(_THOUGHTS) if reasoning_id(place) in removed else set()
    if message_id(place) in removed:
        gone |= {"content", "refusal"}
    calls = message.get("tool_calls")
    kept_calls = [
        call
        for index, call in enumerate(calls if isinstance(calls, list) else ())
        if call_item_id(place, index) not in removed
    ]
    is_whole = not gone.intersection(message) and (not calls or len(kept_calls) == len(calls))
    if is_whole:
        return data
    left = {name: value for name, value in message.items() if name not in gone and name != "tool_calls"}
    if kept_calls:
        left["tool_calls"] = kept_calls
    if not (left.get("content") or left.get("refusal") or kept_calls):
        return b""
    return _encode({"role": left.pop("role", None), "content": left.pop("content", None), **left})
