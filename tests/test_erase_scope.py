"""What an erasure takes in, decided from recorded events."""

from collections.abc import Sequence

import pytest

from api.turns.erasure_scope import Attached, Kind, Lineage, Meant, Selection, is_alive, leads_to, named, ranges
from eventstore.events import (
    ConversationCreated,
    ConversationDeleted,
    ConversationUpdated,
    Erased,
    Event,
    Identity,
    SessionDeleted,
    SessionErased,
    SessionStarted,
    TurnQueued,
    conversation_stream,
    lineage_stream,
    queue_stream,
)
from eventstore.log import Recorded
from tests.support.facts import completed, recorded, session_started, started
from tests.test_erase_lives import rotation

ADA = Identity(user_id="ada")
TALK = conversation_stream("acme", "talk")
ERASED = SessionErased(ranges=((1, 1),), by="me", why="law")


def lineage(root_id: str, *events: Event, tenant: str = "acme", first: int = 1) -> list[Recorded]:
    return recorded(events, lineage_stream(tenant, root_id), first)


def queued(turn_id: str, tenant: str = "acme", **fields: object) -> list[Recorded]:
    event = TurnQueued(turn_id=turn_id, api="responses", model="m", items=(), new_items=0, **fields)  # type: ignore[arg-type]
    return recorded([event], queue_stream(tenant, turn_id))


def meant(kind: Kind, value: str, *events: Recorded, tenant: str = "acme") -> Meant:
    asked = Meant(tenant, Selection(kind, value))
    for entry in events:
        asked.take(entry)
    return asked


def roots(kind: Kind, value: str, *events: Recorded) -> list[str]:
    return list(meant(kind, value, *events).roots)


def test_a_session_is_meant_by_any_id_of_its_lineage() -> None:
    events = lineage("s1", session_started(), rotation("s1", "s2", 0, 0), rotation("s2", "s3", 0, 0), SessionDeleted())
    for name in ("s1", "s2", "s3"):
        assert roots("session", name, *events) == ["s1"]
    assert roots("session", "s4", *events) == []


def test_what_has_nothing_left_is_not_meant() -> None:
    gone: list[Event] = [Erased(kind="SessionStarted"), Erased(kind="CompressionRotated"), SessionDeleted(), ERASED]
    assert roots("session", "s1", *lineage("s1", *gone)) == []
    assert roots("session", "s1", *lineage("s1", *gone, session_started())) == ["s1"]


@pytest.mark.parametrize("kind", ["user", "session_key"])
def test_a_user_and_a_key_are_found_in_the_session_and_in_any_turn(kind: Kind) -> None:
    fields = {"identity": ADA} if kind == "user" else {"session_key": "ada"}
    whole = lineage("s1", session_started(**fields), started("t1"))
    one_turn = lineage("s2", session_started("s2"), started("t2"), completed("t2"), started("t3", **fields))
    other = lineage("s3", session_started("s3"), started("t4", "ada said so"))
    strangers = lineage("s4", session_started("s4", **fields), tenant="bravo")
    assert roots(kind, "ada", *whole, *one_turn, *other, *strangers) == ["s1", "s2"]
    assert list(meant(kind, "ada", *queued("q1", **fields), *queued("q2")).queued) == ["q1"]


def test_nobody_is_not_everybody() -> None:
    events = lineage("s1", session_started(), started("t1"))
    assert roots("user", "ada", *events) == roots("session_key", "ada", *events) == []


def test_a_conversation_means_every_session_that_it_has_led_to() -> None:
    first, second = (ConversationCreated(name="talk", session_id=name) for name in ("s1", "s2"))
    events = recorded([first, ConversationDeleted(), second], TALK)
    assert roots("conversation", "talk", *events) == ["s1", "s2"]
    assert roots("conversation", "s1", *events) == []
    assert roots("session", "s2", *events) == ["s2"]


def test_of_a_conversation_only_what_led_to_the_lineage_is_taken() -> None:
    events: list[Event] = [
        ConversationCreated(name="talk", session_id="s1"),
        ConversationUpdated(metadata=b"{}"),
        ConversationDeleted(),
        ConversationCreated(name="talk", session_id="s2"),
        ConversationUpdated(metadata=b"{}"),
    ]
    assert named(recorded(events, TALK), "s1") == [1, 2]
    assert named(recorded(events, TALK), "s2") == [4, 5]
    assert leads_to(recorded(events, TALK)) == "s2"
    assert leads_to(recorded(events[:3], TALK)) == ""


def attached(events: Sequence[Recorded], *lineages: Lineage, wanted: Sequence[str] = ()) -> Attached:
    found = Attached("acme", lineages, wanted)
    for entry in events:
        found.take(entry)
    return found


def test_queued_turns_are_of_the_lineage_that_they_began_in_or_else_were_asked_for() -> None:
    s1 = Lineage("s1", lineage("s1", session_started(), started("t1"), rotation("s1", "s1b", 0, 0)))
    asked = [
        *queued("t1"),
        *queued("q1", session_id="s1b"),
        *queued("q2", root_id="s1"),
        *queued("q3", previous_response_id="resp_t1"),
        *queued("q4", conversation="talk"),
        *queued("q5", conversation="talk", root_id="s9"),
        *queued("q6", session_id="s2"),
        *queued("q7", session_id="s1"),
        *queued("q8", tenant="bravo", root_id="s1"),
        *queued("q9"),
    ]
    talk = recorded([ConversationCreated(name="talk", session_id="s1")], TALK)
    elsewhere = lineage("s7", session_started("s7"), started("q7", background=True))
    found = attached([*talk, *asked, *elsewhere], s1, wanted=["q9"])
    assert found.conversations == {"talk": ["s1"]}
    assert found.queued == {"t1": "s1", "q1": "s1", "q2": "s1", "q3": "s1", "q4": "s1", "q9": ""}


def test_a_lineage_gives_up_everything_but_that_it_was_deleted_and_erased() -> None:
    first: list[Event] = [session_started(title="one"), started("t1"), SessionDeleted(), ERASED]
    events = lineage("s1", *first, session_started(title="two"), SessionDeleted())
    found = Lineage("s1", events)
    assert (found.title, found.positions, found.version) == ("two", [1, 2, 5], 6)
    assert not is_alive(events)
    assert is_alive(events[:5])
    assert isinstance(events[4].event, SessionStarted)


def test_positions_become_runs() -> None:
    assert ranges([9, 1, 2, 4, 3, 7]) == ((1, 4), (7, 7), (9, 9))
    assert ranges([]) == ()
