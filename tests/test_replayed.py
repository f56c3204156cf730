"""A recorded turn, streamed again: the same pieces, and the same answer where they are put together."""

from typing import Any

import msgspec
import pytest

from api.models.gather import Gathered
from api.models.model import Choice, Chunk
from api.turns import decide
from api.turns.replayed import chunks_of
from eventstore.events import TurnCancelled, TurnCompleted, TurnFailed
from projections.turn import Turn
from tests.support.facts import T0_US, assistant, completed, started

USAGE = b'{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}'
CALLS = [
    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}},
    {"id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}},
]


def turn_of(ended: TurnCompleted | TurnFailed | TurnCancelled | None, *, stream: bool = True) -> Turn:
    return Turn(started("t1", stream=stream), T0_US, ended, T0_US)


def message(**said: Any) -> bytes:
    return msgspec.json.encode({"role": "assistant", "content": None} | said)


def deltas(turn: Turn) -> list[dict[str, Any]]:
    return [choice.delta for chunk in chunks_of(turn) for choice in chunk.choices]


def test_the_text_comes_in_the_pieces_it_first_came_in() -> None:
    turn = turn_of(completed("t1", "one two three", delta_lengths=(3, 4, 6)))
    assert [delta["content"] for delta in deltas(turn)[:-1]] == ["", "one", " two", " three"]


def test_it_begins_with_the_role_and_ends_with_the_finish_and_the_usage() -> None:
    chunks = chunks_of(turn_of(completed("t1", "hi", usage=USAGE, delta_lengths=(2,))))
    assert chunks[0].choices[0].delta["role"] == "assistant"
    assert (chunks[-2].choices[0].delta, chunks[-2].choices[0].finish_reason) == ({}, "stop")
    assert (chunks[-1].choices, bytes(chunks[-1].usage)) == ([], USAGE)


def test_an_answer_that_was_not_streamed_is_one_piece() -> None:
    assert deltas(turn_of(completed("t1", "one two"), stream=False))[1:-1] == [{"content": "one two"}]


def test_what_did_not_come_as_text_comes_whole_in_the_order_it_was_first_said() -> None:
    done = TurnCompleted(
        turn_id="t1",
        output=(b'{"role":"assistant","reasoning":"hm","tool_calls":%s,"content":"ab"}' % msgspec.json.encode(CALLS),),
        finish_reason="tool_calls",
        delta_lengths=(1, 1),
    )
    said = deltas(turn_of(done))[1:-1]
    assert [next(iter(delta)) for delta in said] == ["reasoning", "tool_calls", "tool_calls", "content", "content"]
    assert [delta["tool_calls"][0]["index"] for delta in said[1:3]] == [0, 1]


@pytest.mark.parametrize(
    "said",
    [
        {"content": "one two"},
        {"content": "é𝕏 ü", "reasoning_content": "hm"},
        {"tool_calls": CALLS},
        {"content": "x", "tool_calls": CALLS, "annotations": [{"type": "url_citation"}]},
        {"refusal": "no"},
    ],
)
def test_put_together_again_it_is_the_answer_that_was_recorded(said: dict[str, Any]) -> None:
    text = said.get("content") or ""
    others = b'"choices":[{"finish_reason":"length","logprobs":{"content":[{"token":"y"}]}}]'
    extra = b'{"logprobs":{"content":[{"token":"x"}]},"system_fingerprint":"fp","service_tier":"flex",%b}' % others
    done = completed("t1", usage=USAGE, model="m2", extra=extra, delta_lengths=(1,) * len(text))
    done = msgspec.structs.replace(done, output=(message(**said),), alternatives=(assistant("other"),))
    gathered = Gathered()
    for chunk in chunks_of(turn_of(done)):
        gathered.add(chunk)
    again = decide.completed_by(started("t1"), gathered.answer(), tuple(gathered.delta_lengths))
    assert msgspec.json.decode(again.output[0]) == msgspec.json.decode(done.output[0])
    assert msgspec.structs.replace(again, output=done.output) == done


@pytest.mark.parametrize(
    "ended",
    [
        TurnFailed(turn_id="t1", code="x", message="y", status=0, output=(assistant("one two"),), delta_lengths=(3, 4)),
        TurnCancelled(turn_id="t1", reason="client", output=(assistant("one two"),), delta_lengths=(3, 4)),
    ],
)
def test_a_turn_cut_short_says_what_it_had_said_and_does_not_finish(ended: TurnFailed | TurnCancelled) -> None:
    chunks = chunks_of(turn_of(ended))
    assert [chunk.choices[0].delta.get("content") for chunk in chunks] == ["", "one", " two"]
    assert not any(chunk.choices[0].finish_reason for chunk in chunks)


def test_a_turn_that_has_said_nothing_has_no_chunks() -> None:
    assert chunks_of(turn_of(None)) == []
    assert chunks_of(turn_of(TurnCancelled(turn_id="t1", reason="crash"))) == []


def test_whatever_was_stored_can_be_streamed() -> None:
    odd = TurnCompleted(
        turn_id="t1",
        output=(b"not json", b'{"content":[{"text":"a"},7],"tool_calls":7}'),
        finish_reason="stop",
        extra=b"[]",
        delta_lengths=(50, -1),
    )
    assert Choice(0, {"content": "a"}) in [choice for chunk in chunks_of(turn_of(odd)) for choice in chunk.choices]
    assert all(isinstance(chunk, Chunk) for chunk in chunks_of(turn_of(odd)))
