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
from typing import Any, NamedTuple, Self, TypeAlias

import msgspec

from eventstore.events import TurnStarted
from projections.messages import fields, grouped, thought

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
_PART = re.compile(r"(?P<whole>(?:msg|rs)_(?P<turn_id>[0-9a-f]{28}))_[0-9]+")
_MADE = re.compile(r"[a-z]+_(?P<turn_id>[0-9a-z-]+?)(?:_.*)?")
_SAID = frozenset(
    {"content", "refusal", "annotations"}
)  # the fields of an assistant message in which it says something
_THOUGHT = frozenset({"reasoning_content", "reasoning", "reasoning_summary", "reasoning_items"})


class Ids(NamedTuple):
    """The turn that a chat message came in with, and how the items in it are called: what it says (of a tool, what it
    put out), what was thought, and each call.
    """

    turn_id: str
    said: str = ""
    thought: str = ""
    calls: tuple[str, ...] = ()
    thoughts: tuple[str, ...] = ()  # of a message that was made of items, those of each that was thought

    def without(self, item_id: str) -> Self:
        """Those that are left."""
        calls = tuple(id_ for id_ in self.calls if id_ != item_id)
        return self._replace(calls=calls, thoughts=tuple(id_ for id_ in self.thoughts if id_ != item_id))


NO_ITEM = Ids("")  # of a message that is no item: a summary

Identified: TypeAlias = tuple[bytes, Ids]


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


def whole_id(item_id: str, turn_id: str) -> str:
    """The id under which an item is taken out of that turn.

    A model that comes back to text or to thought begins another item each time (`msg_TURN_1`), but all of them are one
    message to it, and go together: as `msg_TURN`.
    """
    part = _PART.fullmatch(item_id)
    return part["whole"] if part and part["turn_id"] == turn_id else item_id


def identified(started: TurnStarted, output: Sequence[bytes]) -> list[Identified]:
    """A turn's messages, input first, each with the ids of its items."""
    turn_id = started.turn_id
    if started.api == "chat":
        places = (input_place(turn_id, number) for number in range(len(started.items)))
        input_ = [_identified(turn_id, place, data) for place, data in zip(places, started.items, strict=True)]
    else:
        ids = [input_item_id(turn_id, number, fields(data)) for number, data in enumerate(started.items)]
        input_ = [
            (_encode(message), _ids(turn_id, message, [ids[n] for n in held]))
            for message, held in grouped(started.items)
        ]
    return input_ + [_identified(turn_id, turn_id, message) for message in output]


def _identified(turn_id: str, place: str, data: bytes) -> Identified:
    """A chat message that stands at a place, with the ids of its items."""
    message = fields(data)
    if message.get("role") in ("tool", "function"):
        return data, Ids(turn_id, output_id(place))
    calls = tuple(call_item_id(place, index) for index in range(len(_calls(message))))
    return data, Ids(turn_id, message_id(place), reasoning_id(place), calls)


def _ids(turn_id: str, message: dict[str, Any], ids: list[str]) -> Ids:
    """Those of a message that was made of items: its thoughts come first, its calls last."""
    thoughts, first_call = len(message.get("reasoning_items", ())), len(ids) - len(_calls(message))
    said = ids[thoughts] if first_call > thoughts else ""
    return Ids(turn_id, said, "", tuple(ids[first_call:]), tuple(ids[:thoughts]))


def without(message: Identified, item_id: str) -> Identified | None:
    """What is left of a message without an item; None where nothing is."""
    data, ids = message
    if item_id not in (ids.said, ids.thought, *ids.calls, *ids.thoughts):
        return message
    said = fields(data)
    if said.get("role") != "assistant":
        return None
    gone = _SAID if item_id == ids.said else _THOUGHT if item_id == ids.thought else frozenset()
    kept = [call for call, id_ in zip(_calls(said), ids.calls, strict=True) if id_ != item_id]
    left = {name: value for name, value in said.items() if name not in gone and name != "tool_calls"}
    if item_id in ids.thoughts:
        items = zip(said["reasoning_items"], ids.thoughts, strict=True)
        left = {name: value for name, value in left.items() if name not in _THOUGHT}
        left |= thought(item for item, id_ in items if id_ != item_id)
    if kept:
        left["tool_calls"] = kept
    if not (left.get("content") or left.get("refusal") or kept):
        return None
    left = {"role": left.pop("role"), "content": left.pop("content", None), **left}
    return _encode(left), ids.without(item_id)


def _calls(message: dict[str, Any]) -> list[Any]:
    calls = message.get("tool_calls")
    return calls if isinstance(calls, list) else []
