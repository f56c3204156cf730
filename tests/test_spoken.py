"""Who has spoken under a key: a recall waits for all that others said, and for nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.turns import spoken as module
from api.turns.spoken import KEYS_MAX, SPEAKERS_MAX, Spoken
from eventstore.events import Event, lineage_stream
from eventstore.log import Recorded
from projections.session import Session
from tests.support.facts import completed, recorded, session_started, started


def say(spoken: Spoken, root_id: str, position: int, key: str = "k", turn_key: str | None = None) -> None:
    """A turn of the lineage completes at that position."""
    stream = lineage_stream("acme", root_id)
    start = started("t", session_key=turn_key)
    events: list[Event] = [session_started(session_key=key), start, completed("t")]
    placed = [Recorded(position - 3 + e.version, stream, e.version, 1, e.event, b"") for e in recorded(events, stream)]
    spoken.learn(Session.fold(stream, placed), placed)


def test_a_recall_waits_for_the_newest_turn_of_others() -> None:
    spoken = Spoken()
    say(spoken, "a", 10)
    say(spoken, "b", 20)
    say(spoken, "c", 30, key="other")
    assert spoken.behind("acme", "k", ["b"]) == 10
    assert spoken.behind("acme", "k", ["a"]) == 20
    assert spoken.behind("acme", "k", ["a", "b"]) == 0
    assert spoken.behind("bravo", "k", []) == 0


def test_a_turn_counts_under_its_own_key() -> None:
    spoken = Spoken()
    say(spoken, "a", 10, key="k", turn_key="own")
    say(spoken, "b", 20, key="k", turn_key="")
    assert spoken.behind("acme", "k", []) == 0
    assert spoken.behind("acme", "own", []) == 10


def test_nothing_is_looked_for_where_nobody_else_has_spoken_until_somebody_does() -> None:
    spoken = Spoken()
    assert spoken.may_be_alone("acme", "k", ["a"])
    spoken.looked("acme", "k", ["a"], 0, found=False)
    assert spoken.behind("acme", "k", ["a"]) is None
    say(spoken, "a", 10)
    assert spoken.behind("acme", "k", ["a"]) is None
    assert spoken.behind("acme", "k", ["b"]) == 10
    say(spoken, "b", 20)
    assert spoken.behind("acme", "k", ["a"]) == 20


def test_the_index_is_asked_once_and_not_where_others_are_known() -> None:
    spoken = Spoken()
    spoken.looked("acme", "k", ["a"], 0, found=True)
    assert not spoken.may_be_alone("acme", "k", ["a"])
    assert spoken.behind("acme", "k", ["a"]) == 0
    say(spoken, "b", 10, key="l")
    assert not spoken.may_be_alone("acme", "l", ["a"])
    assert spoken.may_be_alone("acme", "l", ["b"])


@given(st.lists(st.tuples(st.sampled_from("abcdefghijkl"), st.sampled_from("kl")), max_size=40), st.booleans())
def test_however_little_is_kept_never_too_little_is_waited_for(turns: list[tuple[str, str]], has_looked: bool) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "KEYS_MAX", 1)
        patch.setattr(module, "SPEAKERS_MAX", 2)
        spoken = Spoken()
        if has_looked:
            spoken.looked("acme", "k", ["a"], 0, found=False)
        for position, (root_id, key) in enumerate(turns, 1):
            say(spoken, root_id, 10 * position, key)
            for asked in "kl":
                others = [
                    10 * n for n, (root, under) in enumerate(turns[:position], 1) if root != "a" and under == asked
                ]
                behind = spoken.behind("acme", asked, ["a"])
                assert (behind or 0) >= max(others, default=0)
                assert behind is not None or not others


def test_what_the_index_said_counts_for_nothing_where_others_were_forgotten_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "KEYS_MAX", 1)
    spoken = Spoken()
    position = spoken.behind("acme", "k", ["a"])
    assert position == 0
    say(spoken, "b", 10)
    say(spoken, "c", 20, key="other")
    spoken.looked("acme", "k", ["a"], position, found=False)
    assert spoken.behind("acme", "k", ["a"]) == 10


def test_memory_is_bounded() -> None:
    spoken = Spoken()
    for number in range(KEYS_MAX + 5):
        spoken.behind("acme", f"k{number}", [])
    for number in range(SPEAKERS_MAX + 5):
        say(spoken, f"s{number}", 10 * (number + 1))
    assert len(spoken._keys) == KEYS_MAX
    assert len(spoken._keys["acme", "k"].speakers) == SPEAKERS_MAX
