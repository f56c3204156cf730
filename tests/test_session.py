"""The session fold: facts in, the current transcript out."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.events import (
    CompressionRotated,
    Event,
    ForkPoint,
    ResponseEvicted,
    SessionAnnotated,
    SessionDeleted,
    SessionEnded,
    SessionRenamed,
    TurnCancelled,
    TurnCompleted,
    TurnFailed,
    TurnRestarted,
)
from projections.session import Session
from tests.support.facts import STREAM, assistant, completed, recorded, session_started, started, texts

FAILED = TurnFailed(turn_id="t2", code="x", message="y", status=0)
CANCELLED = TurnCancelled(turn_id="t2", reason="crash")


def fold(*events: Event) -> Session:
    return Session.fold(STREAM, recorded(events))


def test_an_empty_stream_is_a_session_of_version_0() -> None:
    session = fold()
    assert (session.version, session.session_id, session.newest, session.open) == (0, "s1", None, None)


def test_the_transcript_is_the_completed_turns() -> None:
    session = fold(session_started(), started("t1", "one"), completed("t1", "eins"), started("t2", "two"))
    assert texts(session.transcript) == ["one", "eins"]
    assert session.open is not None
    assert session.open.status == "in_progress"


@pytest.mark.parametrize("ending", [FAILED, CANCELLED])
def test_a_turn_that_did_not_complete_is_shown_but_is_in_no_transcript(ending: Event) -> None:
    session = fold(session_started(), started("t1", "one"), completed("t1", "eins"), started("t2", "two"), ending)
    assert texts(session.transcript) == ["one", "eins"]
    assert session.turns[1].status == ("failed" if ending is FAILED else "cancelled")
    assert texts(session.turns[1].messages) == ["two"]


@pytest.mark.parametrize(("finish_reason", "status"), [("stop", "completed"), ("length", "incomplete")])
def test_a_turn_cut_short_by_its_token_limit_counts_as_completed(finish_reason: str, status: str) -> None:
    ending = msgspec.structs.replace(completed("t1", "ei"), finish_reason=finish_reason)
    session = fold(session_started(), started("t1", "one"), ending)
    assert session.turns[0].status == status
    assert texts(session.transcript) == ["one", "ei"]


def test_an_evicted_response_stays_in_the_transcript() -> None:
    evicted = ResponseEvicted(turn_id="t1", reason="deleted")
    session = fold(session_started(), started("t1", "one"), completed("t1", "eins"), evicted)
    assert texts(session.transcript) == ["one", "eins"]
    assert session.turns[0].evicted == "deleted"


def test_a_fork_inherits_up_to_its_point_and_the_parent_goes_on_without_it() -> None:
    parent = fold(
        *(session_started(), started("t1", "one"), completed("t1", "eins")),
        *(started("t2", "bad"), FAILED, started("t3", "two"), completed("t3", "zwei")),
    )
    inherited = parent.up_to("t1")
    assert inherited
    fork_of = ForkPoint(session_id="s1", root_id="s1", turn_id="t1")
    events = recorded([session_started("s2", forked_from=fork_of), started("t4", "other"), completed("t4", "anders")])
    fork = Session.fold("lineage/acme/s2", events, inherited)
    assert texts(fork.transcript) == ["one", "eins", "other", "anders"]
    assert texts(parent.transcript) == ["one", "eins", "two", "zwei"]
    assert [turn.turn_id for _, turn in fork.said] == ["t1", "t4"]


def test_reading_the_transcript_between_events_changes_nothing() -> None:
    events = recorded([session_started(), started("t1", "one"), completed("t1", "eins"), started("t2", "two"), FAILED])
    watched = Session(STREAM)
    for event in events:
        watched.apply(event)
        _ = watched.transcript, watched.weight_bytes
    unwatched = Session.fold(STREAM, events)
    assert list(watched.transcript) == list(unwatched.transcript)
    assert watched.weight_bytes == unwatched.weight_bytes
    assert watched.transcript_bytes == sum(map(len, unwatched.transcript))


@given(st.lists(st.sampled_from(["completed", "failed", "cancelled", "evicted"]), max_size=20))
def test_whatever_happens_no_completed_turn_is_lost_and_no_other_is_sent(endings: list[str]) -> None:
    events: list[Event] = [session_started()]
    expected: list[str] = []
    for number, ending in enumerate(endings):
        turn_id = f"t{number}"
        events.append(started(turn_id, f"q{number}"))
        if ending == "failed":
            events.append(TurnFailed(turn_id=turn_id, code="x", message="y", status=0))
        elif ending == "cancelled":
            events.append(TurnCancelled(turn_id=turn_id, reason="disconnect"))
        else:
            events.append(completed(turn_id, f"a{number}"))
            expected += [f"q{number}", f"a{number}"]
        if ending == "evicted":
            events.append(ResponseEvicted(turn_id=turn_id, reason="lru"))
    session = fold(*events)
    assert texts(session.transcript) == expected
    assert sum(isinstance(turn.ended, TurnCompleted) for turn in session.turns) * 2 == len(expected)


def rotated(old: str, new: str, head: int, tail: int, title: str = "") -> CompressionRotated:
    return CompressionRotated(
        old_session_id=old,
        session_id=new,
        summary=assistant(f"summary for {new}"),
        head=head,
        tail=tail,
        trigger="threshold",
        tokens_before=100,
        tokens_after=10,
        summariser="m",
        title=title,
    )


def three_turns(first: int = 1) -> list[Event]:
    return [
        event
        for number in range(first, first + 3)
        for event in (started(f"t{number}", f"q{number}"), completed(f"t{number}", f"a{number}"))
    ]


def test_a_rotation_leaves_head_summary_and_tail() -> None:
    session = fold(session_started(), *three_turns(), rotated("s1", "s2", 1, 2), started("t9", "q9"), completed("t9"))
    assert texts(session.transcript) == ["q1", "summary for s2", "q3", "a3", "q9", "hi"]
    assert session.session_id == "s2"
    assert session.generation == 2
    assert session.transcript_bytes == sum(map(len, session.transcript))


def test_a_tail_can_be_empty_and_rotations_go_on_from_one_another() -> None:
    session = fold(
        *(session_started(), *three_turns(), rotated("s1", "s2", 1, 0)),
        *(*three_turns(4), rotated("s2", "s3", 1, 1)),
    )
    assert texts(session.transcript) == ["q1", "summary for s3", "a6"]
    assert session.newest
    assert session.newest.turn_id == "t6"
    assert session.newest_here is None


def test_only_a_fold_that_keeps_the_past_knows_what_was_said_before_a_rotation() -> None:
    events = recorded([session_started(), *three_turns(), rotated("s1", "s2", 1, 2), *three_turns(4)])
    session = Session.fold(STREAM, events)
    whole = Session.fold(STREAM, events, keeps_past=True)
    assert [turn.turn_id for _, turn in session.said] == ["t4", "t5", "t6"]
    assert [(id_, turn.turn_id) for id_, turn in whole.said] == [
        *(("s1", f"t{n}") for n in (1, 2, 3)),
        *(("s2", f"t{n}") for n in (4, 5, 6)),
    ]
    assert session.find("t2") is None
    assert whole.find("t2")
    assert session.up_to("t2") is None
    assert whole.transcript == session.transcript


def test_a_fork_from_before_a_rotation_inherits_what_the_model_saw_then() -> None:
    events = recorded([session_started(), *three_turns(), rotated("s1", "s2", 1, 2), *three_turns(4)])
    whole = Session.fold(STREAM, events, keeps_past=True)
    before, behind = whole.up_to("t2"), whole.up_to("t4")
    assert before
    assert behind
    assert texts(Session("lineage/acme/f", before).transcript) == ["q1", "a1", "q2", "a2"]
    fork = Session("lineage/acme/f", behind)
    assert texts(fork.transcript) == ["q1", "summary for s2", "q3", "a3", "q4", "a4"]
    # What was said before the rotation is no part of the fork's transcript, and still of its history.
    assert [turn.turn_id for _, turn in fork.said] == ["t1", "t2", "t3", "t4"]


def test_a_deleted_lineage_is_as_new() -> None:
    events = recorded([session_started(), *three_turns(), SessionRenamed(title="X"), SessionDeleted()])
    session = Session.fold(STREAM, events)
    assert session.started is None
    assert session.newest is None
    assert not session.transcript
    assert not session.title
    assert session.version == len(events)
    again = recorded([session_started(), started("t9", "anew"), completed("t9")])
    for event in again:
        session.apply(event)
    assert texts(session.transcript) == ["anew", "hi"]


def test_titles_notes_and_ends() -> None:
    session = fold(
        *(session_started(title="boat"), SessionAnnotated(metadata=b'{"a":"b"}')),
        *(SessionEnded(reason="done"), SessionEnded(reason="again")),
    )
    assert (session.title, session.metadata, session.end_reason) == ("boat", b'{"a":"b"}', "done")
    session = fold(
        session_started(title="boat"), *three_turns(), SessionEnded(reason="x"), rotated("s1", "s2", 1, 1, "Y")
    )
    assert (session.title, session.end_reason) == ("Y", "")
    opened = fold(session_started(), SessionEnded(reason="done"), started("t1"))
    assert opened.end_reason == ""


def test_a_restart_moves_the_lock_of_an_open_turn() -> None:
    session = fold(session_started(), started("t1"), TurnRestarted(turn_id="t1", owner="next", lease_ms=1_000))
    assert session.open
    assert session.open.owner == "next"
    assert session.open.expires_us == session.open.restarted_us + 1_000_000


def test_a_rotation_lets_go_of_the_memory_of_old_turns() -> None:
    long = [event for n in range(50) for event in (started(f"t{n}", "x" * 1_000), completed(f"t{n}"))]
    session = fold(session_started(), *long)
    before = session.weight_bytes
    session = fold(session_started(), *long, rotated("s1", "s2", 1, 1))
    assert session.weight_bytes < before / 10
