"""Stored chat completions: from facts to rows, and from rows to pages."""

import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from eventstore.events import (
    Event,
    ResponseAnnotated,
    ResponseEvicted,
    SessionDeleted,
    TurnCancelled,
    TurnFailed,
    TurnStarted,
)
from projections import completions
from projections.completions import Stored
from projections.store import ViewStore
from projections.views import VIEWS
from tests.support.facts import T0_US, completed, recorded, session_started, started

ROWS = 100_000


def stored(turn_id: str, *, store: Any = True, **parameters: Any) -> TurnStarted:
    """A chat turn whose completion is to be stored."""
    return started(turn_id, parameters=msgspec.json.encode({"store": store} | parameters))


class Rows:
    """What is in the view, once events have been applied."""

    def __init__(self, path: Path, *events: Event) -> None:
        store = ViewStore.create(path / "views.db", VIEWS)
        store.apply(recorded([session_started(), *events]))
        store.close()
        with sqlite3.connect(path / "views.db") as database:
            self.completions = database.execute("SELECT * FROM completions").fetchall()
            self.notes = database.execute("SELECT key, value, turn_id FROM completion_notes").fetchall()
        database.close()


def row(turn_id: str, *, model: str = "m", is_completed: int = 1, metadata: str = "{}") -> tuple[object, ...]:
    """What the view holds of a turn that was the session's first."""
    return ("acme", turn_id, "s1", model, T0_US + 2_000_000, is_completed, metadata)


def test_a_completion_that_is_to_be_stored_is_completed_once_its_turn_is(tmp_path: Path) -> None:
    assert Rows(tmp_path, stored("t1")).completions == [row("t1", is_completed=0)]
    assert Rows(tmp_path, stored("t1"), completed("t1")).completions == [row("t1")]


def test_the_model_is_that_which_answered(tmp_path: Path) -> None:
    assert Rows(tmp_path, stored("t1"), completed("t1", model="m-2")).completions == [row("t1", model="m-2")]


@pytest.mark.parametrize("turn", [started("t1"), stored("t1", store=False), stored("t1", store="true")])
def test_nothing_is_stored_without_being_asked_for(tmp_path: Path, turn: TurnStarted) -> None:
    assert Rows(tmp_path, turn, completed("t1")).completions == []


def test_a_response_is_no_completion(tmp_path: Path) -> None:
    response = msgspec.structs.replace(stored("t1"), api="responses")
    assert Rows(tmp_path, response, completed("t1")).completions == []


@pytest.mark.parametrize(
    "end",
    [
        (TurnFailed(turn_id="t1", code="x", message="y", status=0),),
        (TurnCancelled(turn_id="t1", reason="crash"),),
        (completed("t1"), ResponseEvicted(turn_id="t1", reason="deleted")),
        (completed("t1"), SessionDeleted()),
    ],
    ids=["failed", "cancelled", "deleted", "session deleted"],
)
def test_what_did_not_complete_or_was_deleted_leaves_nothing(tmp_path: Path, end: Sequence[Event]) -> None:
    rows = Rows(tmp_path, stored("t1", metadata={"a": "1"}), *end)
    assert (rows.completions, rows.notes) == ([], [])


def test_metadata_is_kept_pair_by_pair_and_replaced_as_a_whole(tmp_path: Path) -> None:
    turn = (stored("t1", metadata={"a": "1", "b": "2"}), completed("t1"))
    rows = Rows(tmp_path, *turn)
    assert (rows.completions, rows.notes) == (
        [row("t1", metadata='{"a":"1","b":"2"}')],
        [("a", "1", "t1"), ("b", "2", "t1")],
    )
    rows = Rows(tmp_path, *turn, ResponseAnnotated(turn_id="t1", metadata=b'{"b":"3"}'))
    assert (rows.completions, rows.notes) == ([row("t1", metadata='{"b":"3"}')], [("b", "3", "t1")])


def test_notes_on_what_is_not_stored_are_no_completions(tmp_path: Path) -> None:
    rows = Rows(tmp_path, started("t1"), completed("t1"), ResponseAnnotated(turn_id="t1", metadata=b'{"a":"1"}'))
    assert (rows.completions, rows.notes) == ([], [])


@pytest.mark.parametrize("metadata", [5, ["a"], {"a": 5}, None])
def test_metadata_of_any_kind_that_got_into_the_log_can_be_read(tmp_path: Path, metadata: object) -> None:
    rows = Rows(tmp_path, stored("t1", metadata=metadata), completed("t1"))
    assert (len(rows.completions), rows.notes) == (1, [])


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """A view of many completions: every second one is red, every third one is round, and ten are rare."""
    database = sqlite3.connect(tmp_path_factory.mktemp("many") / "views.db")
    database.executescript(completions.SCHEMA)
    numbers = range(ROWS)
    database.executemany(
        completions.INSERT,
        (("acme", _id(n), f"s{n % 99}", "rare" if n % 10_000 == 0 else "m", n, 1, "{}") for n in numbers),
    )
    notes = [("colour", "red", 2), ("form", "round", 3), ("found", "once", 10_000), ("made", "here", 1)]
    for key, value, every in notes:
        database.executemany(completions.NOTE, (("acme", key, value, _id(n)) for n in numbers if n % every == 0))
    yield database
    database.close()


def _id(number: int) -> str:
    return f"{number:08d}"


def page(database: sqlite3.Connection, rows_max: int = 5, **wanted: Any) -> list[int]:
    """The numbers of the completions of a page."""
    rows = database.execute(*completions.query("acme", Stored(**wanted), rows_max)).fetchall()
    return [int(turn_id) for _, turn_id in rows]


def test_a_page_is_in_the_order_of_time_or_against_it(many: sqlite3.Connection) -> None:
    assert page(many) == [0, 1, 2, 3, 4]
    assert page(many, after=_id(70)) == [71, 72, 73, 74, 75]
    assert page(many, after=_id(70), is_newest_first=True) == [69, 68, 67, 66, 65]


def test_all_filters_hold_at_once(many: sqlite3.Connection) -> None:
    red, round_ = ("colour", "red"), ("form", "round")
    assert page(many, metadata=(red, round_)) == [0, 6, 12, 18, 24]
    assert page(many, metadata=(round_, red), after=_id(12), is_newest_first=True) == [6, 0]
    assert page(many, metadata=(round_,), model="rare") == [0, 30_000, 60_000, 90_000]
    assert page(many, metadata=(red, ("form", "square"))) == []
    assert page(many, metadata=(("colour", "red"), ("colour", "blue"))) == []
    assert page(many, model="other") == []


def test_another_tenant_sees_nothing(many: sqlite3.Connection) -> None:
    red = Stored(metadata=(("colour", "red"),))
    assert many.execute(*completions.query("other", red, 5)).fetchall() == []
    assert many.execute(*completions.query("other", Stored(), 5)).fetchall() == []


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"after": _id(90_000)},
        {"model": "rare"},
        {"model": "rare", "after": _id(50_000), "is_newest_first": True},
        {"metadata": (("colour", "red"),), "after": _id(90_000)},
        {"metadata": (("found", "once"), ("colour", "red"), ("made", "here")), "is_newest_first": True},
    ],
)
def test_a_page_costs_its_rows_and_not_the_table(many: sqlite3.Connection, wanted: dict[str, Any]) -> None:
    sql, parameters = completions.query("acme", Stored(**wanted), 100)
    plan = " ".join(step[3] for step in many.execute(f"EXPLAIN QUERY PLAN {sql}", parameters))
    assert "SCAN" not in plan
    assert "TEMP B-TREE" not in plan
    steps = itertools.count()
    many.set_progress_handler(lambda: next(steps) and None, 1_000)
    many.execute(sql, parameters).fetchall()
    many.set_progress_handler(None, 0)
    assert next(steps) < 20  # thousands of steps of SQLite's machine; to look at every row would be hundreds
