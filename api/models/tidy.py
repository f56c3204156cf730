"""A model server's deltas without what can not be what its name says, so that nobody downstream has to doubt them.

What is malformed is left out and never an error; fields that nobody here knows are kept as they are. Tool calls and
the parts of a summary are numbered anew, in the order in which they come: servers that count from 1, or not at all,
make the same stream as others.
"""

from typing import Any

import msgspec

from projections.pieces import LISTS, TEXTS

_INPUTS = {"function": "arguments", "custom": "input"}
_HEAD = ("index", "id", "type", *_INPUTS)


class _Entry(msgspec.Struct):
    """An entry of a growing list; what has been said of it, where it is a tool call."""

    kind: str = ""
    name: str = ""
    has_id: bool = False


class Places:
    """The entries of a growing list so far, in the order in which they came."""

    __slots__ = ("_entries", "_known")

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._known: dict[int, int] = {}

    def of(self, number: Any) -> tuple[int, _Entry]:
        """The entry of that number and its place; a new one where it has not come, or has none."""
        number = number if isinstance(number, int) else None
        place = self._known.get(number) if number is not None else None
        if place is None:
            place = len(self._entries)
            self._entries.append(_Entry())
            if number is not None:
                self._known[number] = place
        return place, self._entries[place]


def tidy(delta: dict[str, Any], places: dict[str, Places]) -> dict[str, Any]:
    """The delta, tidied. `places` is where the entries of the same answer's lists stand; new ones join it."""
    return {name: _tidy(name, value, places) for name, value in delta.items()}


def tidy_logprobs(logprobs: Any) -> dict[str, Any] | None:
    """The log probabilities of a delta: lists of objects, by the name of what they are of."""
    return {name: _objects(entries) for name, entries in logprobs.items()} if isinstance(logprobs, dict) else None


def _tidy(name: str, value: Any, places: dict[str, Places]) -> Any:
    if name in TEXTS:
        return _text(value)
    if name in LISTS:
        return _objects(value)
    if name == "tool_calls" or name == "reasoning_summary":
        known = places.setdefault(name, Places())
        entry_of = _call if name == "tool_calls" else _part
        entries = _objects(value)
        return entries and [entry_of(entry, known) for entry in entries]
    return value


def _text(value: Any) -> str | None:
    """A text, or that of its parts."""
    if isinstance(value, list):
        return "".join(_text(part.get("text")) or "" for part in value if isinstance(part, dict))
    return value if isinstance(value, str) else None


def _objects(value: Any) -> list[dict[str, Any]] | None:
    return [entry for entry in value if isinstance(entry, dict)] if isinstance(value, list) else None


def _part(part: dict[str, Any], places: Places) -> dict[str, Any]:
    return {"index": places.of(part.get("index"))[0], "text": _text(part.get("text")) or ""}


def _call(call: dict[str, Any], places: Places) -> dict[str, Any]:
    """A piece of a tool call, which is of the kind that it began as, and keeps its first id."""
    place, entry = places.of(call.get("index"))
    tidied: dict[str, Any] = {"index": place}
    if isinstance(call_id := call.get("id"), str) and call_id and not entry.has_id:
        tidied["id"], entry.has_id = call_id, True
    if isinstance(kind := call.get("type"), str) and kind:
        tidied["type"] = kind
    tidied |= {name: value for name, value in call.items() if name not in _HEAD}
    if is_new := not entry.kind:
        is_custom = isinstance(call.get("custom"), dict) or kind == "custom"
        entry.kind = "custom" if is_custom and not isinstance(call.get("function"), dict) else "function"
    if is_new or entry.kind in call:
        tidied[entry.kind] = _called(call.get(entry.kind), entry)
    return tidied


def _called(called: Any, entry: _Entry) -> dict[str, Any]:
    """What is said of the tool. A name that is said again is the same name."""
    called = called if isinstance(called, dict) else {}
    texts = ("name", _INPUTS[entry.kind])
    said = {name: value for name, value in called.items() if name not in texts or isinstance(value, str)}
    if said.get("name") == entry.name:
        said.pop("name", None)
    entry.name += said.get("name", "")
    return said
