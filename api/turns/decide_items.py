"""Whether the items that a turn of the Responses API brings fit in behind what was said: calls are answered, outputs
answer a call, no item comes twice. Pure.

The usual turn knows of no tool and names no id. So little is decoded: what holds neither word is passed over, and older
turns are only looked at for an id that is asked for.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from api.turns.refusals import DuplicateItem, OutputWithoutCall, UnansweredCall
from api.turns.request import TurnRequest
from projections.items import turn_id_of, whole_id
from projections.messages import fields
from projections.session import Session
from projections.turn import Turn

_PLAIN = re.compile(r"[\w-]+", re.ASCII)

_CALLS = {"function_call": "function call", "custom_tool_call": "custom tool call"}
_OUTPUTS = {f"{kind}_output": f"{name} output" for kind, name in _CALLS.items()}
# What a JSON object must hold to be a call, an output, an item with an id, a message with calls.
_OF_TOOL, _WITH_ID, _WITH_CALLS = b"_call", b'"id"', b'"tool_calls"'


def check_items(session: Session, request: TurnRequest) -> None:
    """Refuse input that does not fit; raises `OutputWithoutCall`, `UnansweredCall`, `DuplicateItem`."""
    if request.api != "responses":
        return
    items = request.items if session.newest else request.opening
    unanswered = _unanswered(session)
    marked = [fields(data) for data in items if _OF_TOOL in data or _WITH_ID in data]
    if marked:
        check_ids(session, marked)
        earlier = request.opening[: len(request.opening) - len(items)]
        _answer(session, unanswered, marked, earlier)
    for call_id, name in unanswered.items():
        raise UnansweredCall(f"No tool output found for {name} {call_id}.")


def check_ids(session: Session, items: Iterable[dict[str, Any]]) -> None:
    """Refuse items whose own id is another's, of the input or of the transcript as a rotation has left it; raises
    `DuplicateItem`.
    """
    seen: set[str] = set()
    for item in items:
        item_id = item.get("id")
        if not isinstance(item_id, str) or not item_id:
            continue
        if item_id in seen or _has_item(session, item_id):
            raise DuplicateItem(
                f"Duplicate item found with id {item_id}. Remove duplicate items from your input and try again."
            )
        seen.add(item_id)


def _answer(
    session: Session, unanswered: dict[str, str], items: Iterable[dict[str, Any]], earlier: Sequence[bytes]
) -> None:
    """Go through new items: a call joins the `unanswered`, an output answers one. `earlier` is what the client has sent
    along of what it takes to be known.
    """
    called = set(unanswered)
    for item in items:
        kind, call_id = item.get("type"), item.get("call_id")
        if not (isinstance(kind, str) and isinstance(call_id, str)):
            continue
        if kind in _CALLS:
            called.add(call_id)
            unanswered[call_id] = _CALLS[kind]
        elif kind in _OUTPUTS:
            if call_id not in called and not _was_called(session, call_id, earlier):
                raise OutputWithoutCall(f"No tool call found for {_OUTPUTS[kind]} with call_id {call_id}.")
            unanswered.pop(call_id, None)


def _unanswered(session: Session) -> dict[str, str]:
    """The calls that the newest turn has left open, by their id: what a model asked for last, and what no item that was
    added since has answered.
    """
    newest = session.newest
    if newest is None:
        return {}
    if not (newest.is_added or newest.removed):
        return _calls_in(newest.ended.output) if newest.ended else {}
    turns = _since_model(session)
    messages = [message for turn in turns for message in turn.messages]
    answered = {fields(message).get("tool_call_id") for message in messages if b'"tool_call_id"' in message}
    return {call_id: name for call_id, name in _calls_in(messages).items() if call_id not in answered}


def _since_model(session: Session) -> list[Turn]:
    """The newest turn that a model has answered, as far as it is known here, and the items added behind it."""
    turns: list[Turn] = []
    for turn in reversed(session.current.transcript_turns):
        turns.insert(0, turn)
        if not turn.is_added:
            break
    return turns


def _calls_in(messages: Iterable[bytes]) -> dict[str, str]:
    """The tool calls of chat messages, by their id, each with the name of its kind."""
    calls: dict[str, str] = {}
    for data in messages:
        found = fields(data).get("tool_calls") if _WITH_CALLS in data else None
        for call in found if isinstance(found, list) else ():
            if isinstance(call, dict):
                call_id = call.get("id")
                kind = "custom_tool_call" if isinstance(call.get("custom"), dict) else "function_call"
                calls[call_id if isinstance(call_id, str) else ""] = _CALLS[kind]
    return calls


def _was_called(session: Session, call_id: str, earlier: Iterable[bytes]) -> bool:
    """Whether there was ever such a call: in the transcript, what a rotation has kept of it included, or in what the
    client has sent along.
    """
    quoted = _quoted(call_id)
    if any(quoted in data and call_id in _calls_in((data,)) for data in reversed(session.transcript)):
        return True
    return any(_is_call(fields(data), call_id) for data in earlier if _OF_TOOL in data)


def _is_call(item: dict[str, Any], call_id: str) -> bool:
    kind = item.get("type")
    return isinstance(kind, str) and kind in _CALLS and item.get("call_id") == call_id


def _quoted(text: str) -> bytes:
    """What a JSON object must hold to hold the text; nothing where there is more than one way to write it."""
    return b'"%b"' % text.encode() if _PLAIN.fullmatch(text) else b""


def _has_item(session: Session, item_id: str) -> bool:
    """Whether an item of that id is part of the transcript. Most ids say which turn they are of."""
    turn_id, quoted = turn_id_of(item_id), _quoted(item_id)
    for turn in reversed(session.current.transcript_turns):
        if whole_id(item_id, turn.turn_id) in turn.removed:
            continue
        if turn.turn_id == turn_id:
            return True
        if any(fields(data).get("id") == item_id for data in turn.started.items if quoted in data):
            return True
    return any(item_id in (ids.said, ids.thought, *ids.calls, *ids.thoughts) for _, ids in session.current.base)
