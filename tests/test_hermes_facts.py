"""What the original's rows are as facts: given its sessions and messages, then transcripts."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from api.turns.summary import is_summary
from projections.session import Session as Folded
from tests.support.hermes import State, assistant, folded, shown, texts, tool, user
from tools.hermes.rows import Response


def lineage(state: State, root: str = "s1") -> Folded:
    return folded(state.moved())[root]


def spoken(session: Folded) -> list[str]:
    """The transcript, in words; a summary is three dots."""
    return [
        "..." if is_summary(message) else text
        for message, text in zip(session.transcript, texts(session.transcript), strict=True)
    ]


def test_each_call_of_the_model_is_a_turn_of_its_own() -> None:
    state = State()
    state.session("s1")
    state.say("s1", user("q"), assistant("", "c1", "c2"), tool("o1", "c1"), tool("o2", "c2"), assistant("a"))
    session = lineage(state)
    assert [texts(turn.messages) for turn in session.turns] == [["q", ""], ["o1", "o2", "a"]]
    assert [turn.status for turn in session.turns] == ["completed", "completed"]


def test_a_question_without_an_answer_was_cut_short() -> None:
    state = State()
    state.session("s1")
    state.say("s1", user("q1"), user("q2"), assistant("a2"), user("q3"), assistant("", "c"), tool("o", "c"))
    session = lineage(state)
    assert spoken(session) == ["q2", "a2"]
    assert shown(session) == ["q1", "q2", "a2", "q3", "", "o"]


def test_several_questions_that_were_answered_behind_one_another_are_one_turn() -> None:
    state = State()
    state.session("s1")
    state.say("s1", user("q1"), user("q2"), user("q3"), assistant("a3"), assistant("a2"))
    assert spoken(lineage(state)) == ["q2", "q3", "a3", "a2"]


def test_calls_and_outputs_without_each_other_are_left_out_and_named() -> None:
    state = State()
    state.session("s1")
    state.say("s1", user("q"), assistant("", "c1", "c2"), tool("o1", "c1"), tool("o9", "c9"), assistant("a"))
    session = lineage(state)
    assert spoken(session) == ["q", "", "o1", "a"]
    assert b'"c2"' not in b"".join(session.transcript)
    assert state.notes.said == [
        "message 2 of session 's1': nothing came of 1 of its tool calls: left out",
        "message 4 of session 's1': the output of a call that was not made: left out",
    ]


def test_a_compressed_session_goes_on_with_what_the_original_had_kept() -> None:
    state = State()
    state.session("s1")
    for number in range(5):
        state.say("s1", user(f"q{number}"), assistant(f"a{number}"))
    state.rotate("s1", "s2", head=2, tail=2)
    state.say("s2", user("q5"), assistant("a5"))
    session = lineage(state)
    assert session.session_id == "s2"
    assert spoken(session) == ["q0", "a0", "...", "q4", "a4", "q5", "a5"]
    assert shown(session) == [f"{who}{number}" for number in range(6) for who in "qa"]


def test_a_summary_that_was_written_into_the_tail_stands_before_it_with_alternating_roles() -> None:
    state = State()
    state.session("s1")
    for number in range(5):
        state.say("s1", user(f"q{number}"), assistant(f"a{number}"))
    state.rotate("s1", "s2", head=3, tail=1, is_merged=True)
    session = lineage(state)
    assert spoken(session) == ["q0", "a0", "q1", "...", "q4", "a4"]
    assert b'"role":"assistant"' in session.transcript[3]


def test_outputs_that_the_original_shortened_as_it_copied_them_are_known_again() -> None:
    state = State()
    state.session("s1")
    state.say(
        "s1", user("q0"), assistant("a0"), user("q1"), assistant("", "c"), tool("long " * 50, "c"), assistant("a1")
    )
    state.say("s1", user("q2"), assistant("a2"))
    state.rotate("s1", "s2", head=0, tail=6)
    state.rows[-4]["content"] = "[f] long, 250 characters"
    assert spoken(lineage(state)) == ["...", "q1", "", "long " * 50, "a1", "q2", "a2"]


def test_what_was_under_way_at_a_compression_is_the_childs() -> None:
    state = State()
    state.session("s1")
    state.say(
        "s1", user("q0"), assistant("a0"), user("q1"), assistant("a1"), user("q2"), assistant("", "c"), tool("o", "c")
    )
    state.rotate("s1", "s2", head=1, tail=2)
    state.say("s2", assistant("a2"))
    session = lineage(state)
    assert shown(session) == ["q0", "a0", "q1", "a1", "q2", "", "o", "a2"]
    assert spoken(session) == ["q0", "...", "q2", "", "o", "a2"]


def test_what_was_written_into_a_compressed_session_later_is_at_its_tip() -> None:
    state = State()
    state.session("s1")
    state.say("s1", user("q0"), assistant("a0"), user("q1"), assistant("a1"))
    state.rotate("s1", "s2", head=0, tail=2)
    state.say("s2", user("q2"), assistant("a2"))
    state.say("s1", user("late"), assistant("answer"))
    session = lineage(state)
    assert spoken(session) == ["...", "q1", "a1", "q2", "a2", "late", "answer"]


def test_of_several_children_the_tip_is_the_originals_and_no_other_is_lost() -> None:
    state = State()
    state.session("s1")
    state.say("s1", user("q0"), assistant("a0"), user("q1"), assistant("a1"))
    state.rotate("s1", "stale", head=0, tail=2)
    state.say("stale", user("q2"), assistant("a2"))
    state.rotate("s1", "live", head=0, tail=2)
    state.say("live", user("q3"), assistant("a3"))
    state.change("stale", ended_us=1, end_reason="ws_orphan_reap")
    sessions = folded(state.moved())
    assert sessions["s1"].session_id == "live"
    assert shown(sessions["stale"])[-2:] == ["q2", "a2"]


def test_a_branch_inherits_what_it_had_copied() -> None:
    state = State()
    state.session("s1", end_reason="branched")
    state.say("s1", user("q0"), assistant("a0"), user("q1"), assistant("a1"))
    state.session("b", parent_id="s1", branched_from="s1")
    state.say("b", *state.of("s1")[:2], user("other"), assistant("way"))
    session = folded(state.moved())["b"]
    assert session.started is not None
    assert session.started.forked_from is not None
    assert session.started.forked_from.messages == 2
    assert spoken(session) == ["q0", "a0", "other", "way"]


def test_a_branch_of_a_compressed_session_that_is_compressed_itself() -> None:
    state = State()
    state.session("s1")
    for number in range(4):
        state.say("s1", user(f"q{number}"), assistant(f"a{number}"))
    state.rotate("s1", "s2", head=2, tail=2)
    state.say("s2", user("q4"), assistant("a4"))
    state.session("b1", parent_id="s2", branched_from="s2")
    state.say("b1", *state.of("s2"), user("b"), assistant("c"))
    state.rotate("b1", "b2", head=2, tail=4)
    session = folded(state.moved())["b1"]
    assert spoken(session) == ["q0", "a0", "...", "q4", "a4", "b", "c"]


def test_a_child_that_has_copied_nothing_goes_on_with_everything() -> None:
    state = State()
    state.session("s1", end_reason="compression")
    state.say("s1", user("q0"), assistant("a0"))
    state.session("s2", parent_id="s1", end_reason="compression")
    state.say("s2", user("q1"), assistant("a1"))
    state.session("s3", parent_id="s2")
    assert spoken(lineage(state)) == ["...", "...", "q0", "a0", "q1", "a1"]


def test_sessions_that_are_each_others_parents_are_imported_and_named() -> None:
    state = State()
    state.session("s1", parent_id="s2", end_reason="compression")
    state.session("s2", parent_id="s1", end_reason="compression")
    state.say("s1", user("q"), assistant("a"))
    sessions = folded(state.moved())
    assert sorted(sessions) == ["s1"]
    assert state.notes.said == ["session 's1' is its own ancestor: taken as the beginning of its lineage"]


def test_a_response_is_found_by_its_words_and_then_by_its_time() -> None:
    state = State()
    state.session("s1")
    for _ in range(3):
        state.say("s1", user("again"), assistant("same"))
    second_us = state.rows[3]["timestamp"] * 1_000_000
    state.responses["b" * 28] = Response(
        turn_id="b" * 28, session_id="s1", created_us=second_us, asked="again", answer="same"
    )
    state.slugs["slug"] = "resp_" + "b" * 28
    session = lineage(state)
    assert [turn.turn_id == "b" * 28 for turn in session.turns] == [False, True, False]
    assert session.turns[1].started.conversation == "slug"


def test_an_answer_that_only_the_response_has_kept_is_not_lost() -> None:
    state = State()
    state.session("s1")
    state.say("s1", user("q"))
    state.responses["c" * 28] = Response(turn_id="c" * 28, session_id="s1", asked="q", answer="a")
    assert spoken(lineage(state)) == ["q", "a"]


class Life(State):
    """A long life of one lineage, in random steps; every text is another."""

    def __init__(self) -> None:
        super().__init__()
        self.session("s0")
        self.tip = "s0"
        self.told: list[str] = []
        self.count = 0

    def text(self) -> str:
        self.count += 1
        return f"text {self.count}"

    def step(self, *rows: dict[str, Any]) -> None:
        self.say(self.tip, *rows)
        self.told += [row["content"] for row in rows]

    def turn(self, tools: int, *, is_answered: bool) -> None:
        self.step(user(self.text()))
        for _ in range(tools):
            call = f"call-{self.text()}"
            self.step(assistant(self.text(), call), tool(self.text(), call))
        if is_answered:
            self.step(assistant(self.text()))

    def compress(self, head: int, tail: int, *, is_merged: bool) -> None:
        """Cut where the original may: calls and their outputs stay on one side."""
        rows = self.of(self.tip)
        tail = min(tail, len(rows))
        while tail < len(rows) and tail and rows[len(rows) - tail]["role"] == "tool":
            tail += 1
        head = min(head, len(rows) - tail)
        while head > 0 and rows[head - 1].get("tool_calls"):
            head -= 1
        if 0 <= head < len(rows) - tail:
            new = f"s{len(self.sessions)}"
            self.rotate(self.tip, new, head, tail, is_merged=is_merged)
            self.tip = new


steps = st.one_of(
    st.builds(lambda tools, answered: ("turn", tools, answered), st.integers(0, 2), st.booleans()),
    st.builds(
        lambda head, tail, merged: ("compress", head, tail, merged), st.integers(0, 3), st.integers(0, 6), st.booleans()
    ),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(steps, max_size=14))
def test_whatever_was_compressed_everything_is_shown_once_and_nothing_sent_twice(life: list[tuple[Any, ...]]) -> None:
    state = Life()
    for kind, *arguments in life:
        if kind == "turn":
            state.turn(arguments[0], is_answered=arguments[1])
        else:
            state.compress(arguments[0], arguments[1], is_merged=arguments[2])
    found = state.moved()
    sessions = folded(found)
    assert list(sessions) == ["s0"]
    session = sessions["s0"]
    assert session.session_id == state.tip
    assert shown(session) == state.told
    assert found.account.left_out == 0
    sent = [text for text in spoken(session) if text != "..."]
    assert len(sent) == len(set(sent)), "something is sent twice"
    assert sent == [text for text in state.told if text in set(sent)], "out of order"
    cut_short = {text for _, turn in session.said if turn.status == "cancelled" for text in texts(turn.messages)}
    live = {row["content"] for row in state.of(state.tip)} & set(state.told)
    assert live - cut_short <= set(sent), "the original would have sent more"
