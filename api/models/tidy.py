"""A model server's deltas without what can not be what its name says, so that nobody downstream has to doubt them.

What is malformed is left out and never an error; fields that nobody here knows are kept as they are. Tool calls and
the parts of a summary are numbered anew, in the order in which they come: servers that count from 1, or not at all, or
give all calls one number, make the same stream as others. A call without an id gets one, by which its output can be
told; arguments that come as an object are the text that they should have been.
"""

from typing import Any

import msgspec

from api.ids import new_id
from projections.pieces import LISTS, TEXTS

_INPUTS = {"function": "arguments", "custom": "input"}
_HEAD = ("index", "id", "type", *_INPUTS)


class _Said(msgspec.Struct):
    """What of a message that came whole must be of its kind."""

    role: Any = None
    content: str | list[Any] | None = None
    refusal: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


_encode = msgspec.json.Encoder().encode
_decode_any = msgspec.json.Decoder().decode
_decode_said = msgspec.json.Decoder(_Said).decode
_decode_fields = msgspec.json.Decoder(dict[str, Any]).decode


class _Entry(msgspec.Struct):
    """An entry of a growing list; what has been said of it, where it is a tool call."""

    kind: str = ""
    name: str = ""
    call_id: str = ""
    input: list[str] = []


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
        return self.begin(number) if place is None else (place, self._entries[place])

    def begin(self, number: Any) -> tuple[int, _Entry]:
        """A new entry, which has that number from now on."""
        place = len(self._entries)
        self._entries.append(_Entry())
        if isinstance(number, int):
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
    call_id = _text(call.get("id")) or ""
    if entry.call_id and call_id not in ("", entry.call_id) and _is_another(call, entry):
        place, entry = places.begin(call.get("index"))
    tidied: dict[str, Any] = {"index": place}
    if not entry.call_id:
        tidied["id"] = entry.call_id = call_id or _new_call_id()
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
    called = _with_text(called, _INPUTS[entry.kind]) if isinstance(called, dict) else {}
    texts = ("name", _INPUTS[entry.kind])
    said = {name: value for name, value in called.items() if name not in texts or isinstance(value, str)}
    if said.get("name") == entry.name:
        said.pop("name", None)
    entry.name += said.get("name", "")
    entry.input.append(said.get(_INPUTS[entry.kind], ""))
    return said


def _is_another(call: dict[str, Any], entry: _Entry) -> bool:
    """Whether a piece with another id begins another call: it says another name, or the call so far is whole.

    Some servers make an id anew for every piece.
    """
    names = [called.get("name") for kind in _INPUTS if isinstance(called := call.get(kind), dict)]
    name = next((name for name in names if name), None)
    return bool(name) and (name != entry.name or _is_whole("".join(entry.input)))


def _is_whole(text: str) -> bool:
    try:
        _decode_any(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _with_text(called: dict[str, Any], name: str) -> dict[str, Any]:
    """The same, with that input as a text, where it came as what the text should hold."""
    value = called.get(name)
    return called | {name: _encode(value).decode()} if isinstance(value, dict | list) else called


def _new_call_id() -> str:
    return f"call_{new_id()}"


def tidy_message(message: bytes) -> bytes:
    """A message that came whole, as it is recorded; raises `msgspec.DecodeError` where it can not be what it should."""
    said = _decode_said(message)
    if said.role == "assistant" and not said.tool_calls:
        return message
    fields = _decode_fields(message) | {"role": "assistant"}
    if said.tool_calls:
        fields["tool_calls"] = [_whole_call(call) for call in said.tool_calls]
    return _encode(fields)


def _whole_call(call: dict[str, Any]) -> dict[str, Any]:
    kind = "custom" if isinstance(call.get("custom"), dict) else "function"
    called = call.get(kind)
    called = _with_text(called, _INPUTS[kind]) if isinstance(called, dict) else {}
    called = {_INPUTS[kind]: ""} | called
    return call | {"id": _text(call.get("id")) or _new_call_id(), "type": call.get("type") or kind, kind: called}
