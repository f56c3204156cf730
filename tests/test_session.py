"""The session fold: facts in, the current transcript out."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.events import Event, ForkPoint, ResponseEvicted, TurnCancelled, TurnCompleted, TurnFailed
from projections.session import Session
from tests.support.facts import STREAM, completed, recorded, session_started, started, texts

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
