"""Every decision about a conversation, as given/when/then."""

from functools import partial

import pytest

from api.turns import decide_conversation
from api.turns.decide_conversation import Hand, named
from api.turns.refusals import ConversationNotFound, ItemNotFound, TurnInProgress
from eventstore.events import (
    ConversationCreated,
    ConversationDeleted,
    ConversationUpdated,
    Event,
    Identity,
    ItemRemoved,
    ItemsAdded,
    TurnCancelled,
    conversation_stream,
)
from projections.turn import Turn
from tests.support.facts import T0_US, completed, recorded, session_started, started, user
from tests.support.spec import Decision, given

STREAM = conversation_stream("acme", "trip")
CREATED = ConversationCreated(name="trip", session_id="s1", metadata=b'{"a":"b"}')


def state(*events: Event) -> decide_conversation.Named:
    return named(recorded(events, STREAM))


def test_notes_are_replaced_and_equal_ones_are_no_news() -> None:
    updated = ConversationUpdated(metadata=b'{"c":"d"}')
    assert decide_conversation.update(state(CREATED), "trip", b'{"c":"d"}') == [updated]
    assert decide_conversation.update(state(CREATED, updated), "trip", b'{"c":"d"}') == []
    assert decide_conversation.update(state(CREATED), "trip", b'{"a":"b"}') == []


def test_a_name_that_is_not_there_is_neither_annotated_nor_deleted() -> None:
    for events in ((), (CREATED, ConversationDeleted())):
        with pytest.raises(ConversationNotFound):
            decide_conversation.delete(state(*events), "trip")
        with pytest.raises(ConversationNotFound):
            decide_conversation.update(state(*events), "trip", b"{}")


def test_a_name_that_was_claimed_anew_is_there() -> None:
    again = ConversationCreated(name="trip", session_id="s2")
    found = state(CREATED, ConversationDeleted(), again)
    assert (found.is_there, found.metadata) == (True, b"{}")
    assert decide_conversation.delete(found, "trip") == [ConversationDeleted()]


# Items

ADDED = ItemsAdded(turn_id="t9", items=(user("new"),))
HAND = Hand(now_us=T0_US, is_gone=lambda _: False)
LATER = Hand(now_us=T0_US + 3_600_000_000, is_gone=lambda _: False)
ALONE = Hand(now_us=T0_US, is_gone=lambda _: True)
TURN = Turn(started("t1"), T0_US, completed("t1"), T0_US)


def add(hand: Hand = HAND) -> Decision:
    return partial(decide_conversation.add, items=ADDED.items, turn_id="t9", hand=hand)


def remove(hand: Hand = HAND, turn: Turn = TURN) -> Decision:
    return partial(decide_conversation.remove, turn=turn, item_id="msg_t1", hand=hand)


def test_items_are_added_to_a_session_that_there_is() -> None:
    given(session_started()).when(add()).then(ADDED)
    given(session_started(), started("t1"), completed("t1")).when(add()).then(ADDED)


def test_the_first_items_begin_a_session_of_whoever_adds_them() -> None:
    ada = Hand(now_us=T0_US, is_gone=lambda _: False, session_key="k", identity=Identity(user_id="ada"))
    began = session_started(session_key="k", identity=Identity(user_id="ada"))
    given().when(add(ada)).then(began, ADDED)
    given(session_started()).when(add(ada)).then(ADDED)


def test_nothing_is_added_or_removed_between_a_turn_and_its_end() -> None:
    for decision in (add(), remove()):
        given(session_started(), started("t2")).when(decision).then_refused(TurnInProgress)


@pytest.mark.parametrize("hand", [LATER, ALONE], ids=["its lease is over", "nobody works on it"])
def test_a_turn_that_was_left_open_is_cancelled_first(hand: Hand) -> None:
    crash = TurnCancelled(turn_id="t2", reason="crash")
    removed = ItemRemoved(turn_id="t1", item_id="msg_t1")
    life: list[Event] = [session_started(), started("t1"), completed("t1"), started("t2")]
    given(*life).when(add(hand)).then(crash, ADDED)
    given(*life).when(remove(hand)).then(crash, removed)


def test_an_item_is_removed_once() -> None:
    gone = Turn(started("t1"), T0_US, completed("t1"), T0_US, removed=frozenset({"msg_t1"}))
    given(session_started()).when(remove(turn=gone)).then_refused(ItemNotFound)
