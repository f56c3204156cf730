"""Turns of which the log has nothing, and how one goes on from them: pure functions."""

from typing import Any

import msgspec

from api.turns.decide import Begin, begin
from api.turns.request import Names, TurnRequest
from api.turns.unstored import Kept, Unstored, behind, left_by
from eventstore.events import TurnCompleted, TurnStarted
from projections.compaction import sealed
from projections.session import Session
from projections.turn import Turn
from tests.support.facts import STREAM, started


def request(*items: bytes, **fields: Any) -> TurnRequest:
    defaults: dict[str, Any] = {"tenant": "acme", "api": "responses", "names": Names(), "model": ""}
    return TurnRequest(**(defaults | {"items": items, "opening": items} | fields))


def unstored(response_id: str, *items: bytes, names: Names | None = None) -> Unstored:
    return Unstored(response_id=response_id, names=names or Names(), items=items, model="m")


def test_a_turn_leaves_behind_what_was_said_in_it_and_where_it_began() -> None:
    names = Names(conversation="home")
    done = Turn(started("t1", "hello"), 1, TurnCompleted(turn_id="t1", output=(), finish_reason="stop"), 2)
    left = left_by("resp_t1", request(b"a", names=names, model="m"), done, (b"out",))
    assert left == Unstored(response_id="resp_t1", names=names, items=(*done.started.items, b"out"), model="m")


def test_the_next_turn_begins_with_what_was_left_and_where_that_began() -> None:
    left = unstored("resp_t1", b"a", b"out", names=Names(session_id="s1"))
    asked = request(b"b", names=Names(previous_response_id="resp_t1"), history=3)
    going_on = behind(left, asked)
    assert going_on.items == going_on.opening == (b"a", b"out", b"b")
    assert going_on.names == Names(session_id="s1")
    assert (going_on.model, going_on.continues, going_on.history) == ("m", "resp_t1", 0)


def test_the_next_turn_sees_the_conversation_of_the_one_before_and_is_not_bound_to_it() -> None:
    going_on = behind(unstored("resp_t1", b"a", names=Names(conversation="home")), request(b"b"))
    assert (going_on.names, going_on.seen) == (Names(), "home")
    assert going_on.sight == Names(conversation="home")
    done = Turn(started("t2", "b"), 1, TurnCompleted(turn_id="t2", output=(), finish_reason="stop"), 2)
    assert left_by("resp_t2", going_on, done, ()).names == Names(conversation="home")


def test_the_next_turn_goes_where_the_session_header_leads_and_sees_that() -> None:
    names = Names(session_id="s1", conversation="home")
    going_on = behind(unstored("resp_t1", b"a", names=names), request(b"b"))
    assert going_on.names == going_on.sight == Names(session_id="s1")


def test_what_is_kept_is_measured_as_it_is_unpacked() -> None:
    item = msgspec.json.encode({"type": "compaction", "encrypted_content": sealed("x" * 50_000)})
    assert unstored("resp_t1", item).size_bytes > 50_000


def test_a_model_that_the_next_turn_names_is_its_own() -> None:
    assert behind(unstored("resp_t1"), request(b"b", model="other")).model == "other"


def test_a_stored_turn_says_what_its_client_went_on_from() -> None:
    asked = behind(unstored("resp_t1", b"a"), request(b"b"))
    command = Begin(
        request=asked, turn_id="t2", session_id="s1", owner="me", lease_ms=1, now_us=1, is_gone=lambda _: False
    )
    _, opened = begin(Session(STREAM), command)
    assert isinstance(opened, TurnStarted)
    assert opened.previous_response_id == "resp_t1"
    assert opened.items == (b"a", b"b")


def test_a_lane_keeps_its_newest_alone() -> None:
    kept = Kept(100)
    kept.keep("", unstored("resp_1"))
    kept.keep("", unstored("resp_2"))
    kept.keep("side", unstored("resp_3"))
    assert kept.find("resp_1") is None
    assert [kept.find(name) for name in ("resp_2", "resp_3")] == [unstored("resp_2"), unstored("resp_3")]


def test_nothing_is_found_under_no_name() -> None:
    kept = Kept(100)
    kept.keep("", unstored("resp_1"))
    assert kept.find("") is None


def test_what_is_too_much_goes_and_the_lane_that_is_longest_silent_goes_first() -> None:
    kept = Kept(10)
    kept.keep("one", unstored("resp_1", b"12345"))
    kept.keep("two", unstored("resp_2", b"12345"))
    kept.keep("three", unstored("resp_3", b"12345"))
    assert kept.find("resp_1") is None
    assert kept.find("resp_2")
    kept.keep("two", unstored("resp_4", b"12345678901"))
    assert [kept.find(f"resp_{number}") for number in range(1, 5)] == [None] * 4


def test_a_lane_forgets_what_is_stored_and_what_failed() -> None:
    kept = Kept(100)
    kept.keep("one", unstored("resp_1"))
    kept.evict("two", "resp_1")
    kept.evict("one", "resp_other")
    assert kept.find("resp_1")
    kept.evict("one", "resp_1")
    assert kept.find("resp_1") is None
    kept.keep("one", unstored("resp_2"))
    kept.forget("one")
    assert kept.find("resp_2") is None
