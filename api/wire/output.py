"""What came of a turn, as Responses output items: those that were streamed, in the order in which they were."""

from collections.abc import Mapping
from typing import Any

from api.turns.replayed import said_again
from api.wire.assembly import Assembly
from api.wire.items import Item, output_items
from projections.messages import fields
from projections.turn import Ended, Turn


def items_of(turn: Turn) -> list[Item]:
    """The items of a turn that has ended; nothing while it is open."""
    ended = turn.ended
    if ended is None:
        return []
    status = "completed" if turn.status == "completed" else "incomplete"
    if ended.delta_fields or ended.delta_tokens:
        assembly = Assembly(turn.turn_id, _untold)
        for choice in said_again(turn):
            assembly.add(choice)
        assembly.close(status)
        return assembly.items
    by_arrival = turn.started.stream  # then the message was put together in the order in which its parts came
    logprobs = [] if by_arrival else _logprobs(ended)
    return [
        item
        for data in ended.output
        for item in output_items(turn.turn_id, data, status, by_arrival=by_arrival, logprobs=logprobs)
    ]


def _untold(_kind: str, _place: Mapping[str, Any], /, **_fields: Any) -> bytes:
    return b""


def _logprobs(ended: Ended) -> list[Any]:
    """The log probabilities of an answer that came whole."""
    logprobs = fields(ended.extra).get("logprobs") if b'"logprobs"' in ended.extra else None
    entries = logprobs.get("content") if isinstance(logprobs, dict) else None
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
