"""Items that are added and removed, folded: what is left of a turn, of a rotation's base, of what a fork inherited."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.turns import decide_conversation
from api.turns.decide_conversation import Hand
from eventstore.events import CompressionRotated, Event, ItemRemoved, ItemsAdded, TurnCompleted
from projections.session import Session
from tests.support.facts import STREAM, T0_US, completed, recorded, session_started, started, texts

HAND = Hand(now_us=T0_US, is_gone=lambda _: False)


def fold(*events: Event, keeps_past: bool = False) -> Session:
    return Session.fold(STREAM, recorded(events), keeps_past=keeps_past)


def message(role: str, text: str, **more: Any) -> bytes:
    return msgspec.json.encode({"type": "message", "role": role, "content": text} | more)


def call(call_id: str, **more: Any) -> bytes:
    return msgspec.json.encode({"type": "function_call", "call_id": call_id, "name": "f", "arguments": "{}"} | more)


def output(call_id: str) -> bytes:
    return msgspec.json.encode({"type": "function_call_output", "call_id": call_id, "output": f"of {call_id}"})


def rotated(head: int, tail: int, number: int = 2) -> CompressionRotated:
    return CompressionRotated(
        old_session_id=f"s{number - 1}",
        session_id=f"s{number}",
        summary=msgspec.json.encode({"role": "user", "content": "summary"}),
        head=head,
        tail=tail,
        trigger="manual",
        tokens_before=9,
        tokens_after=1,
        summariser="m",
    )


def removed(item_id: str, *events: Event) -> ItemRemoved:
    """The fact that taking the item out makes of a session to which these have happened."""
    whole = fold(*events, keeps_past=True)
    turn_id = item_id.split("_")[1]
    turn = next(turn for _, turn in whole.said if turn.turn_id == turn_id)
    (fact,) = decide_conversation.remove(fold(*events), turn, item_id, HAND)
    assert isinstance(fact, ItemRemoved)
    return fact


def shape(session: Session) -> list[tuple[str, Any, list[str]]]:
    """The transcript: of each message the role, the text, and the ids of its calls."""
    messages: list[dict[str, Any]] = [msgspec.json.decode(data) for data in session.transcript]
    return [(said["role"], said["content"], [c["id"] for c in said.get("tool_calls", ())]) for said in messages]


def with_calls(turn_id: str, text: str | None, *call_ids: str, **more: Any) -> TurnCompleted:
    calls = [{"id": id_, "type": "function", "function": {"name": "f", "arguments": "{}"}} for id_ in call_ids]
    said = {"role": "assistant", "content": text, "tool_calls": calls} | more
    return TurnCompleted(turn_id=turn_id, output=(msgspec.json.encode(said),), finish_reason="tool_calls")


def test_added_items_are_part_of_the_transcript() -> None:
    added = ItemsAdded(turn_id="t2", items=(message("user", "two"), message("assistant", "zwei")))
    session = fold(session_started(), started("t1", "one"), completed("t1", "eins"), added)
    assert texts(session.transcript) == ["one", "eins", "two", "zwei"]
    assert session.newest
    assert (session.newest.turn_id, session.newest.is_added, session.newest.started.model) == ("t2", True, "m")
    assert session.newest.status == "completed"


def test_calls_that_are_added_belong_to_one_message() -> None:
    items = (message("assistant", "let me see"), call("c1"), call("c2"), output("c1"), output("c2"))
    session = fold(session_started(), ItemsAdded(turn_id="t1", items=items))
    assert shape(session) == [
        ("assistant", "let me see", ["c1", "c2"]),
        ("tool", "of c1", []),
        ("tool", "of c2", []),
    ]


@pytest.mark.parametrize(
    ("item_id", "left"),
    [
        ("msg_t1", [("user", "one", []), ("assistant", None, ["c1", "c2"])]),
        ("fc_t1_0", [("user", "one", []), ("assistant", "so", ["c2"])]),
        ("fc_t1_1", [("user", "one", []), ("assistant", "so", ["c1"])]),
        ("msg_t1_i0", [("assistant", "so", ["c1", "c2"])]),
    ],
)
@pytest.mark.parametrize("is_kept", [False, True], ids=["of a turn", "kept by a rotation"])
def test_an_item_leaves_the_rest_of_its_message(item_id: str, left: list[object], is_kept: bool) -> None:
    life: list[Event] = [session_started(), started("t1", "one"), with_calls("t1", "so", "c1", "c2")]
    if is_kept:
        life.append(rotated(2, 0))
        left = [*left, ("user", "summary", [])]
    assert shape(fold(*life, removed(item_id, *life))) == left


def test_one_call_after_the_other_leaves_a_message_that_a_rotation_kept() -> None:
    life: list[Event] = [
        session_started(),
        started("t1", "one"),
        with_calls("t1", None, "c1", "c2", "c3"),
        rotated(2, 0),
    ]
    for gone, left in (("fc_t1_0", ["c2", "c3"]), ("fc_t1_2", ["c2"])):
        life.append(removed(gone, *life))
        assert shape(fold(*life))[1] == ("assistant", None, left)
    life.append(removed("fc_t1_1", *life))
    assert shape(fold(*life)) == [("user", "one", []), ("user", "summary", [])]


def test_a_thought_leaves_and_what_was_said_stays() -> None:
    thought = {"reasoning_content": "hm", "reasoning_summary": [{"index": 0, "text": "h"}]}
    life: list[Event] = [session_started(), started("t1", "one"), with_calls("t1", "so", **thought)]
    session = fold(*life, removed("rs_t1", *life))
    assert msgspec.json.decode(session.transcript[1]) == {"role": "assistant", "content": "so"}


def test_what_a_rotation_has_summarised_leaves_nothing_but_the_list() -> None:
    turns = (started("t1", "one"), completed("t1"), started("t2"), completed("t2"))
    life: list[Event] = [session_started(), *turns, rotated(0, 2)]
    fact = removed("msg_t1_i0", *life)
    assert (fact.base, fact.rest) == (-1, b"")
    before, after = fold(*life), fold(*life, fact)
    assert after.transcript == before.transcript
    (turn, _) = [turn for _, turn in fold(*life, fact, keeps_past=True).said]
    assert texts(turn.messages) == ["hi"]


def test_a_rotation_counts_what_is_left() -> None:
    turns = [event for n in "1234" for event in (started(f"t{n}", f"q{n}"), completed(f"t{n}", f"a{n}"))]
    life: list[Event] = [session_started(), *turns]
    life += [removed("msg_t1", *life), ItemsAdded(turn_id="t5", items=(message("user", "q5"),))]
    life += [rotated(2, 2)]
    assert texts(fold(*life).transcript) == ["q1", "q2", "summary", "a4", "q5"]
    life += [removed("msg_t2_i0", *life)]
    life += [removed("msg_t4", *life)]
    assert texts(fold(*life).transcript) == ["q1", "summary", "q5"]
    life += [rotated(1, 1, number=3), removed("msg_t5_i0", *life)]
    assert texts(fold(*life).transcript) == ["q1", "summary"]


def test_a_fork_from_before_a_rotation_lacks_what_was_removed_behind_it() -> None:
    turns = [event for n in "1234" for event in (started(f"t{n}", f"q{n}"), completed(f"t{n}", f"a{n}"))]
    life: list[Event] = [session_started(), *turns, rotated(2, 2), started("t5", "q5"), completed("t5", "a5")]
    life.append(rotated(0, 2, number=3))
    life.append(removed("msg_t4_i0", *life))
    inherited = fold(*life, keeps_past=True).up_to("t5")
    assert inherited
    assert texts([data for data, _ in inherited.base]) == ["q1", "a1", "summary", "a4"]


def test_forks_share_turns_and_a_removal_touches_only_its_own_session() -> None:
    parent = fold(session_started(), started("t1", "one"), completed("t1", "eins"))
    inherited = parent.up_to("t1")
    assert inherited
    gone = ItemRemoved(turn_id="t1", item_id="msg_t1_i0")
    fork = Session.fold(STREAM, recorded([session_started("s2"), gone]), inherited)
    assert texts(fork.transcript) == ["eins"]
    assert texts(parent.transcript) == ["one", "eins"]
    assert not parent.turns[0].removed


def test_a_transcript_that_lost_an_item_has_no_digest_from_there_on() -> None:
    turns = [e for n in "123" for e in (started(f"t{n}"), completed(f"t{n}", history_digest=f"d{n}".encode()))]
    for keeps_past in (False, True):
        session = fold(session_started(), *turns, ItemRemoved(turn_id="t2", item_id="msg_t2"), keeps_past=keeps_past)
        ends = [turn.ended for turn in session.turns]
        assert [end.history_digest for end in ends if isinstance(end, TurnCompleted)] == [b"d1", b"", b""]
        assert session.newest is session.turns[2]
        assert session.newest_here is None


def test_the_newest_turn_behind_a_rotation_has_no_digest_either() -> None:
    turns = [e for n in "123" for e in (started(f"t{n}"), completed(f"t{n}", history_digest=f"d{n}".encode()))]
    life: list[Event] = [session_started(), *turns, rotated(0, 2)]
    for keeps_past in (False, True):
        session = fold(*life, removed("msg_t1", *life), keeps_past=keeps_past)
        assert session.newest
        assert isinstance(session.newest.ended, TurnCompleted)
        assert session.newest.ended.history_digest == b""


KINDS = st.lists(st.sampled_from(["user", "assistant", "call", "output", "thought", "odd"]), min_size=1, max_size=8)


def item_of(kind: str, number: int) -> bytes:
    match kind:
        case "call":
            return call(f"c{number}")
        case "output":
            return output(f"c{number}")
        case "thought":
            return msgspec.json.encode({"type": "reasoning", "summary": []})
        case "odd":
            return b"[]"
    return message(kind, f"text {number}")


@given(KINDS, st.data())
def test_a_turn_loses_what_a_base_that_was_made_of_it_loses(kinds: list[str], data: st.DataObject) -> None:
    """Removed before a rotation or behind it: of the messages that it keeps, the same is left."""
    life: list[Event] = [session_started()]
    life += [ItemsAdded(turn_id="t1", items=tuple(item_of(kind, number) for number, kind in enumerate(kinds)))]
    life += [started("t2", "two"), with_calls("t2", "so", "c1", "c2", reasoning_content="hm")]
    session = fold(*life)
    turns = session.turns
    for turn in turns:
        assert tuple(message for message, _ in turn.identified) == turn.messages
    ids = [id_ for turn in turns for _, ids in turn.identified for id_ in (ids.said, ids.thought, *ids.calls) if id_]
    keeps_all = rotated(len(session.transcript), 0)
    gone = data.draw(st.lists(st.sampled_from(ids), unique=True))
    before, behind = list(life), [*life, keeps_all]
    for item_id in gone:
        before.append(removed(item_id, *before))
        behind.append(removed(item_id, *behind))
    left = fold(*before)
    assert [*left.transcript] == [*fold(*behind).transcript][:-1]
    assert not any(id_ in gone for _, ids in left.current.first(99) for id_ in ids.calls)
