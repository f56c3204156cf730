"""Where a transcript is cut, and how big a prompt is taken to be."""

from typing import Any

import msgspec
import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from api.turns.compress import (
    Cut,
    Size,
    asked_bytes,
    cut_of,
    first_kept_turn_id,
    size_of,
    summary_role,
    tokens_per_character,
)
from api.turns.request import Names, TurnRequest
from api.turns.summary import message_of
from eventstore.events import CompressionRotated, Event
from projections.session import Session
from tests.support.facts import STREAM, assistant, completed, recorded, session_started, started, user

ONE_TOKEN_A_BYTE = 1.0


def calls(*ids: str) -> bytes:
    return msgspec.json.encode({"role": "assistant", "content": None, "tool_calls": [{"id": one} for one in ids]})


def output(call_id: str, text: str = "done") -> bytes:
    return msgspec.json.encode({"role": "tool", "tool_call_id": call_id, "content": text})


def size(transcript: list[bytes]) -> Size:
    return Size(sum(map(len, transcript)), ONE_TOKEN_A_BYTE)


def exchanges(count: int, characters: int = 20) -> list[bytes]:
    return [say(f"{number:0{characters}}") for number in range(count) for say in (user, assistant)]


def test_the_beginning_and_the_end_are_kept_and_roles_go_on_alternating() -> None:
    transcript = exchanges(20)
    cut = cut_of(transcript, [], size(transcript), 1_000)
    assert cut
    assert cut.head == 3
    tail = transcript[cut.tail_at :]
    assert b'"user"' in tail[0]
    assert 100 < sum(map(len, tail)) <= 200
    assert summary_role(transcript, cut) == "assistant"


def test_a_session_shorter_than_the_threshold_is_cut_as_though_it_were_at_it() -> None:
    transcript = exchanges(10)
    cut = cut_of(transcript, [], size(transcript), 1_000_000)
    assert cut
    assert sum(map(len, transcript[cut.tail_at :])) <= 0.2 * size(transcript).tokens


@pytest.mark.parametrize("transcript", [[], [user("hello")], [assistant("hello")]])
def test_too_short_to_save_anything(transcript: list[bytes]) -> None:
    assert cut_of(transcript, [user("next")], size(transcript), 10) is None


def test_a_summary_that_is_only_carried_on_saves_nothing() -> None:
    summary = message_of("assistant", "long ago " * 300, 10_000)
    transcript = [*exchanges(1), user("go on"), summary, *exchanges(2)]
    assert cut_of(transcript, [user("next")], size(transcript), 1_000) is None
    assert cut_of([*transcript, *exchanges(10)], [user("next")], size(transcript), 1_000)


def test_a_newest_exchange_beyond_the_budget_is_kept_while_it_leaves_room() -> None:
    transcript = [*exchanges(20), *exchanges(1, 300)]
    cut = cut_of(transcript, [], size(transcript), 1_000)
    assert cut
    assert cut.tail_at == len(transcript) - 2


def test_a_newest_exchange_that_fills_the_context_is_not_kept() -> None:
    transcript = [*exchanges(4), *exchanges(1, 5_000)]
    cut = cut_of(transcript, [user("next")], size(transcript), 1_000)
    assert cut
    assert cut.tail_at == len(transcript)
    assert summary_role(transcript, cut) == "assistant"


def test_a_call_that_the_next_turn_answers_stays_with_its_output() -> None:
    transcript = [*exchanges(20), user("look it up"), calls("c1")]
    cut = cut_of(transcript, [output("c1")], size(transcript), 100)
    assert cut
    assert cut.tail_at <= len(transcript) - 1


def test_a_long_loop_of_calls_is_cut_before_a_call_and_the_user_says_the_summary() -> None:
    transcript = [user("go"), *(message for n in range(30) for message in (calls(f"c{n}"), output(f"c{n}", "x" * 50)))]
    cut = cut_of(transcript, [user("next")], size(transcript), 1_000)
    assert cut
    assert b"tool_calls" in transcript[cut.tail_at]
    assert summary_role(transcript, cut) == "user"
    assert b"tool_call_id" in transcript[cut.head - 1]


def test_a_head_that_is_too_long_is_not_kept() -> None:
    transcript = [*exchanges(1, 4_000), *exchanges(20)]
    cut = cut_of(transcript, [], size(transcript), 2_000)
    assert cut
    assert cut.head == 0


def test_messages_that_can_not_be_read_are_cut_like_others() -> None:
    transcript = [b"not json", *exchanges(20), b"\xff"]
    assert cut_of(transcript, [], size(transcript), 500)


@st.composite
def conversations(draw: st.DrawFn) -> list[bytes]:
    """User messages, answers, and calls whose outputs come later, some of them never."""
    messages: list[bytes] = []
    pending: list[str] = []
    for number in range(draw(st.integers(0, 40))):
        match draw(st.sampled_from(["user", "assistant", "calls", "output"])):
            case "user":
                messages.append(user("u" * draw(st.integers(1, 60))))
            case "assistant":
                messages.append(assistant("a" * draw(st.integers(1, 60))))
            case "calls":
                ids = [f"c{number}-{place}" for place in range(draw(st.integers(1, 3)))]
                pending += ids
                messages.append(calls(*ids))
            case "output" if pending:
                messages.append(output(pending.pop(draw(st.integers(0, len(pending) - 1)))))
    return messages


@drawn(conversations(), conversations(), st.integers(1, 3_000), st.floats(0.01, 4))
def test_no_cut_parts_a_call_from_its_output(
    transcript: list[bytes], new: list[bytes], threshold: int, tokens_per_byte: float
) -> None:
    tokens = int(sum(map(len, transcript)) * tokens_per_byte) + 1
    cut = cut_of(transcript, new, Size(tokens, tokens_per_byte), threshold)
    if cut is None:
        return
    assert 0 <= cut.head < cut.tail_at <= len(transcript)
    left_out: list[dict[str, Any]] = [msgspec.json.decode(m) for m in transcript[cut.head : cut.tail_at]]
    kept: list[dict[str, Any]] = [
        msgspec.json.decode(m) for m in (*transcript[: cut.head], *transcript[cut.tail_at :], *new)
    ]
    called = {call["id"] for m in left_out for call in m.get("tool_calls") or ()}
    answered = {m["tool_call_id"] for m in left_out if "tool_call_id" in m}
    # The conversations of both lists count from zero: only ids that occur in one place tell anything.
    elsewhere = {call["id"] for m in kept for call in m.get("tool_calls") or ()}
    kept_outputs = {m["tool_call_id"] for m in kept if "tool_call_id" in m}
    assert not (called - elsewhere) & (kept_outputs - answered)


def request(*texts: str, instructions: tuple[bytes, ...] = (), parameters: bytes = b"{}") -> TurnRequest:
    items = tuple(map(user, texts))
    more: dict[str, Any] = {"instructions": instructions, "parameters": parameters}
    return TurnRequest(tenant="acme", api="chat", names=Names(), model="m", items=items, opening=items, **more)


def session(*usages: bytes) -> Session:
    events: list[Any] = [session_started()]
    for number, usage in enumerate(usages):
        events += [started(f"t{number}"), completed(f"t{number}", usage=usage)]
    return Session.fold(STREAM, recorded(events))


def test_a_prompt_is_counted_by_the_model_servers_own_figures() -> None:
    usage = b'{"prompt_tokens": 5000, "completion_tokens": 700, "completion_tokens_details": {"reasoning_tokens": 600}}'
    held = session(b"{}", usage)
    asked = request("hello")
    # Reasoning is not part of the next prompt; "{}", the parameters, are a byte or two.
    assert size_of(held, asked_bytes(held, asked)).tokens == 5_000 + 100 - 1 + -(-len(asked.items[0] + b"{}") // 4)


def test_without_figures_a_prompt_is_estimated_by_its_size() -> None:
    held = session(b"", b"")
    expected = -(-held.transcript_bytes // 4)
    assert size_of(held, 0) == Size(expected, 0.25)


def test_what_was_sent_beside_the_transcript_is_not_taken_for_it() -> None:
    tools = b'{"tools":[' + b" " * 40_000 + b"]}"
    usage = b'{"prompt_tokens": 10100, "completion_tokens": 0}'
    events: list[Event] = [session_started(), started("t1", "hi", parameters=tools), completed("t1", usage=usage)]
    held = Session.fold(STREAM, recorded(events))
    assert size_of(held, 0).tokens < 110


def test_behind_a_rotation_the_old_figures_count_no_longer() -> None:
    held = session(b'{"prompt_tokens": 90000}', b'{"prompt_tokens": 90000}')
    assert size_of(held, 0).tokens > 89_000
    rotated = CompressionRotated(
        old_session_id="s1",
        session_id="s2",
        summary=assistant("so far"),
        head=1,
        tail=1,
        trigger="manual",
        tokens_before=1,
        tokens_after=1,
        summariser="m",
    )
    events: list[Event] = [
        session_started(),
        started("t0"),
        completed("t0", usage=b'{"prompt_tokens": 90000}'),
        rotated,
    ]
    held = Session.fold(STREAM, recorded(events))
    assert size_of(held, 0).tokens < 100


def test_the_first_kept_turn_is_the_one_that_the_tail_begins_in() -> None:
    held = session(b"", b"", b"")
    kept = [first_kept_turn_id(held, Cut(0, place, 0)) for place in range(7)]
    assert kept == ["t0", "t0", "t1", "t1", "t2", "t2", ""]


def test_tokens_per_character_go_by_the_models_own_count() -> None:
    size = Size(tokens=100, tokens_per_byte=1 / 3)
    assert tokens_per_character([("字" * 50).encode(), b""], size) == pytest.approx(1.0)
    assert tokens_per_character([b"\xff" * 30], size) == pytest.approx(1 / 3)
    assert tokens_per_character([], size) == 0.0
