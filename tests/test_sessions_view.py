"""The list of sessions, from facts to rows: one row a generation, and pages that cost their rows."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given as given_any
from hypothesis import settings
from hypothesis import strategies as st

from eventstore.events import (
    CompressionRotated,
    Event,
    ForkPoint,
    Identity,
    SessionAnnotated,
    SessionDeleted,
    SessionEnded,
    SessionRenamed,
    TurnFailed,
    TurnRestarted,
    TurnStarted,
    lineage_stream,
)
from eventstore.log import Recorded
from projections import sessions
from projections.session import Session
from projections.session_list import After, Wanted, query
from projections.sessions import SessionRow
from projections.store import ViewStore
from projections.views import VIEWS
from tests.support.facts import STREAM, T0_US, completed, recorded, session_started, started

USAGE = b'{"prompt_tokens":10,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":3}}'


def rotated(old: str, new: str, **fields: Any) -> CompressionRotated:
    """A rotation from one session to the next."""
    defaults: dict[str, Any] = {"head": 0, "tail": 0, "trigger": "threshold", "tokens_before": 9, "tokens_after": 1}
    summary = b'{"role":"user","content":"so far"}'
    return CompressionRotated(
        old_session_id=old, session_id=new, summary=summary, summariser="m", **(defaults | fields)
    )


def turn(turn_id: str, **fields: Any) -> tuple[Event, Event]:
    """A completed turn."""
    return started(turn_id), completed(turn_id, **fields)


class View:
    """The rows of the view, as events left them."""

    def __init__(self, path: Path, events: Sequence[Recorded]) -> None:
        self.store = ViewStore.create(path, VIEWS)
        for event in events:
            self.store.apply([event])

    def fetch(self, sql: str, parameters: Sequence[object]) -> list[tuple[Any, ...]]:
        return self.store._connection.execute(sql, parameters).fetchall()

    def rows(self) -> list[SessionRow]:
        return [SessionRow(*row) for row in self.fetch("SELECT * FROM sessions", ())]

    def only(self) -> SessionRow:
        (row,) = self.rows()
        return row

    def listed(self, tenant: str = "acme", rows_max: int = 50, **wanted: Any) -> list[SessionRow]:
        return [SessionRow(*row) for row in self.fetch(*query(tenant, Wanted(**wanted), rows_max))]

    def ids(self, **wanted: Any) -> list[str]:
        return [row.session_id for row in self.listed(**wanted)]


def given(path: Path, *events: Event) -> View:
    return View(path / "views.db", recorded(events, STREAM))


def test_a_session_is_listed_with_what_it_was_made_with(tmp_path: Path) -> None:
    made = session_started(
        title="T", model="m9", system_prompt="Be brief.", source="cli", session_key="k", identity=Identity(user_id="u")
    )
    row = given(tmp_path, made).only()
    assert (row.title, row.model, row.source, row.session_key, row.user_id) == ("T", "m9", "cli", "k", "u")
    assert (row.has_instructions, row.turns, row.preview, row.metadata) == (1, 0, "", "{}")


def test_the_usual_source_takes_no_room_in_an_index(tmp_path: Path) -> None:
    assert given(tmp_path, session_started(source="api_server")).only().source == ""


def test_a_rotation_ends_one_row_and_begins_another(tmp_path: Path) -> None:
    made = session_started(session_key="k", identity=Identity(user_id="u"), source="cli")
    facts = (made, *turn("t1", usage=USAGE), SessionAnnotated(metadata=b'{"a":"b"}'), rotated("s1", "s2", title="T #2"))
    old, new = sorted(given(tmp_path, *facts).rows(), key=lambda row: row.generation)
    assert (old.session_id, old.superseded, old.end_reason, old.ended_us) == ("s1", 1, "compression", T0_US + 5_000_000)
    assert (old.turns, old.messages, old.input_tokens) == (1, 2, 10)
    assert (new.session_id, new.parent_session_id, new.generation, new.superseded) == ("s2", "s1", 2, 0)
    assert (new.turns, new.messages, new.input_tokens, new.end_reason, new.ended_us) == (0, 0, 0, "", None)
    assert (new.session_key, new.user_id, new.source, new.title, new.metadata) == ("k", "u", "cli", "T #2", '{"a":"b"}')
    assert (new.started_us, new.root_started_us) == (T0_US + 5_000_000, old.started_us)
    assert (new.earlier_input, new.earlier_output, new.earlier_cached) == (10, 4, 3)
    assert new.preview == old.preview == "hello"


def test_turns_and_changes_touch_the_tip_alone(tmp_path: Path) -> None:
    before = (session_started(), *turn("t1", usage=USAGE), rotated("s1", "s2"), *turn("t2", usage=USAGE))
    (tmp_path / "a").mkdir()
    first = given(tmp_path / "a", *before[:4]).listed(has_children=True)[-1]
    changes = (rotated("s2", "s3"), *turn("t3", usage=USAGE), SessionRenamed(title="T"), SessionEnded(reason="done"))
    view = given(tmp_path, *before, *changes)
    third, second, again = view.listed(has_children=True)
    assert again == first
    assert (second.session_id, second.turns, second.title, second.end_reason) == ("s2", 1, "", "compression")
    assert (third.session_id, third.turns, third.title, third.end_reason) == ("s3", 1, "T", "done")
    assert (third.earlier_input, third.input_tokens) == (20, 10)
    assert view.ids() == ["s3"]


def test_the_first_reason_to_end_counts_and_a_turn_opens_again(tmp_path: Path) -> None:
    ended = (session_started(), SessionEnded(reason="done"), SessionEnded(reason="again"))
    row = given(tmp_path, *ended).only()
    assert (row.end_reason, row.ended_us) == ("done", T0_US + 2_000_000)
    (tmp_path / "b").mkdir()
    row = given(tmp_path / "b", *ended, started("t1")).only()
    assert (row.end_reason, row.ended_us, row.open_turn) == ("", None, "t1")


def test_a_restarted_turn_is_still_the_open_one(tmp_path: Path) -> None:
    restarted = TurnRestarted(turn_id="t1", owner="other", lease_ms=1)
    assert given(tmp_path, session_started(), started("t1"), restarted).only().open_turn == "t1"


def test_the_preview_is_of_the_first_turn_that_has_one_whatever_came_between(tmp_path: Path) -> None:
    made = (session_started(), SessionRenamed(title="T"), SessionAnnotated(metadata=b"{}"))
    facts = (*made, started("t1", "first"), TurnFailed(turn_id="t1", code="x", message="y", status=0))
    assert given(tmp_path, *facts, started("t2", "second")).only().preview == "first"


def test_a_preview_reads_both_dialects_and_what_is_no_message() -> None:
    said = msgspec.json.encode({"type": "message", "role": "user", "content": [{"type": "input_text", "text": "hi"}]})
    output = b'{"type":"function_call_output","call_id":"c","output":"x"}'
    for items, shown in (((output, said), "hi"), ((output,), ""), ((b"[", b"1", said), "hi"), ((), "")):
        turn = msgspec.structs.replace(started("t1", api="responses"), items=items)
        assert sessions.preview(turn.items) == shown


def test_a_deleted_lineage_leaves_no_row_and_begins_anew(tmp_path: Path) -> None:
    gone = (session_started(title="T"), *turn("t1"), rotated("s1", "s2"), SessionDeleted())
    assert given(tmp_path, *gone).rows() == []
    (tmp_path / "b").mkdir()
    row = given(tmp_path / "b", *gone, session_started(), started("t2", "anew")).only()
    assert (row.session_id, row.generation, row.title, row.preview, row.turns) == ("s1", 1, "", "anew", 0)


def test_metadata_that_is_no_text_is_kept_as_far_as_it_is(tmp_path: Path) -> None:
    assert given(tmp_path, session_started(), SessionAnnotated(metadata=b"\xff")).only().metadata == "\ufffd"


def test_forks_are_found_by_the_lineage_that_they_left_as_it_is_now(tmp_path: Path) -> None:
    point = ForkPoint(session_id="s1", root_id="s1", turn_id="t1")
    events = recorded([session_started(), *turn("t1"), SessionDeleted(), session_started()], STREAM)
    for number, after_us in enumerate((3_500_000, 9_000_000)):
        fork = session_started(f"f{number}", forked_from=point)
        stream = lineage_stream("acme", f"f{number}")
        events.append(Recorded(len(events) + 1, stream, 1, T0_US + after_us, fork, b""))
    view = View(tmp_path / "v.db", events)
    began_us = T0_US + 5_000_000
    assert view.fetch(sessions.FORKS, ("acme", "s1", began_us, 10)) == [("f1",)]
    assert [row.parent_session_id for row in view.listed() if row.forked_root_id] == ["s1", "s1"]


def many(count: int) -> Iterator[Recorded]:
    """Sessions of two tenants, of which several are active at one moment; some filtered for, some rotated."""
    for number in range(count):
        stream = lineage_stream("acme" if number % 10 else "bravo", f"s{number:04}")
        user = Identity(user_id=f"u{number % 7}" if number % 3 == 0 else "")
        key = "k" if number % 5 == 0 else ""
        source = "cli" if number % 4 == 0 else ""
        began = session_started(f"s{number:04}", identity=user, session_key=key, source=source)
        yield Recorded(1, stream, 1, T0_US + number // 6, began, b"")
        if number % 8 == 0:
            yield Recorded(1, stream, 2, T0_US + number // 6, rotated("?", f"c{number:04}"), b"")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> View:
    """Two thousand sessions."""
    return View(tmp_path_factory.mktemp("large") / "views.db", list(many(2_000)))


FILTERS: list[dict[str, Any]] = [
    {},
    {"has_children": True},
    {"user_id": "u3"},
    {"session_key": "k"},
    {"source": "cli"},
    {"source": "api_server"},
    {"user_id": "u3", "session_key": "k", "source": "cli", "has_children": True},
    {"user_id": "nobody"},
]


@pytest.mark.parametrize("wanted", FILTERS, ids=str)
def test_pages_by_cursor_and_by_offset_hold_every_row_once_in_one_order(large: View, wanted: dict[str, Any]) -> None:
    whole = large.listed(rows_max=10_000, **wanted)
    assert len(whole) == len({(row.root_id, row.generation) for row in whole})
    assert whole == sorted(whole, key=lambda row: (row.active_us, row.root_id, row.generation), reverse=True)
    by_cursor: list[SessionRow] = []
    while page := large.listed(rows_max=37, after=_behind(by_cursor), **wanted):
        by_cursor += page
    by_offset: list[SessionRow] = []
    while page := large.listed(rows_max=37, offset=len(by_offset), **wanted):
        by_offset += page
    assert by_cursor == by_offset == whole


def _behind(rows: list[SessionRow]) -> After | None:
    return After(rows[-1].active_us, rows[-1].root_id, rows[-1].generation) if rows else None


@pytest.mark.parametrize("wanted", FILTERS, ids=str)
def test_filters_let_through_what_they_say(large: View, wanted: dict[str, Any]) -> None:
    def passes(row: SessionRow) -> bool:
        source = wanted.get("source", "").replace("api_server", "")
        return (
            row.tenant == "acme"
            and wanted.get("user_id", row.user_id) == row.user_id
            and wanted.get("session_key", row.session_key) == row.session_key
            and ("source" not in wanted or source == row.source)
            and (wanted.get("has_children", False) or not row.superseded)
        )

    expected = {(row.root_id, row.generation) for row in large.rows() if passes(row)}
    assert {(row.root_id, row.generation) for row in large.listed(rows_max=10_000, **wanted)} == expected


@pytest.mark.parametrize("wanted", FILTERS, ids=str)
@pytest.mark.parametrize("after", [None, After(T0_US, "s", 1)])
def test_no_page_sorts_or_scans_the_table(large: View, wanted: dict[str, Any], after: After | None) -> None:
    sql, parameters = query("acme", Wanted(after=after, **wanted), 50)
    plan = [row[3] for row in large.fetch(f"EXPLAIN QUERY PLAN {sql}", parameters)]
    assert len(plan) == 1
    assert plan[0].startswith("SEARCH sessions USING INDEX sessions_by_")


def test_a_turn_finds_its_row_by_the_primary_key(large: View) -> None:
    for sql in (sessions.OPEN, sessions.COMPLETE, sessions.CUT_SHORT, sessions.RENAME, sessions.END):
        plan = [row[3] for row in large.fetch(f"EXPLAIN QUERY PLAN {sql}", [1] * sql.count("?"))]
        touching = [step for step in plan if "sessions" in step]
        assert touching == ["SEARCH sessions USING PRIMARY KEY (tenant=? AND root_id=? AND superseded=?)"]


def _facts(word: str, number: int) -> list[Event]:
    """What a word stands for; `number` tells it from the same word elsewhere."""
    turn_id = f"t{number}"
    facts: dict[str, list[Event]] = {
        "turn": [*turn(turn_id, usage=USAGE)],
        "failed": [started(turn_id), TurnFailed(turn_id=turn_id, code="x", message="y", status=0)],
        "open": [started(turn_id)],
        "rotate": [rotated("?", f"g{number}", title=f"T #{number}")],
        "rename": [SessionRenamed(title=f"R{number}")],
        "annotate": [SessionAnnotated(metadata=b'{"n":"%d"}' % number)],
        "end": [SessionEnded(reason=f"E{number}")],
        "delete": [SessionDeleted()],
    }
    return facts[word]


WORDS = ("turn", "failed", "open", "rotate", "rename", "annotate", "end", "delete")


def life(words: Sequence[str]) -> list[Event]:
    """Facts of one lineage that can follow each other: an open turn ends first, a deleted session starts first."""
    events: list[Event] = [session_started()]
    for number, word in enumerate(words):
        newest = events[-1]
        if isinstance(newest, TurnStarted):
            events.append(completed(newest.turn_id, usage=USAGE))
        if isinstance(newest, SessionDeleted):
            events.append(session_started(title=f"T{number}"))
        events += _facts(word, number)
    return events


@given_any(st.lists(st.sampled_from(WORDS), max_size=12))
@settings(max_examples=150, deadline=None)
def test_the_list_shows_the_lineage_as_its_fold_has_it(
    tmp_path_factory: pytest.TempPathFactory, words: list[str]
) -> None:
    events = recorded(life(words), STREAM)
    session = Session.fold(STREAM, events, keeps_past=True)
    rows = View(tmp_path_factory.mktemp("life") / "views.db", events).listed(has_children=True)
    if session.started is None:
        assert rows == []
        return
    tip, generations = rows[0], [*session.past, session.current]
    assert [row.session_id for row in reversed(rows)] == [generation.session_id for generation in generations]
    assert (tip.title, tip.end_reason, tip.metadata.encode()) == (session.title, session.end_reason, session.metadata)
    assert tip.open_turn == (session.open.turn_id if session.open else None)
    for row, generation in zip(reversed(rows), generations, strict=True):
        done = [turn for turn in generation.turns if turn.status == "completed"]
        assert (row.turns, row.input_tokens) == (len(done), 10 * len(done))
        assert row.messages == sum(len(turn.messages) for turn in generation.turns)
    assert tip.earlier_input + tip.input_tokens == sum(row.input_tokens for row in rows)
