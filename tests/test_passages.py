"""The index of words: what was said is found, by whom it belongs to, until it is deleted; and then nothing of it is."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from eventstore.events import (
    CompressionRotated,
    Event,
    ItemRemoved,
    ItemsAdded,
    SessionDeleted,
    SessionRenamed,
    TurnCancelled,
    TurnFailed,
    lineage_stream,
)
from eventstore.log import Recorded
from eventstore.sqlite import SqliteLog
from projections import passages
from projections.passages import MARK, quoted, scope_mark, tenant_mark
from projections.rebuild import rebuild
from projections.runner import VIEWS_FILE, Runner
from projections.snapshot import Snapshot
from projections.store import ViewStore
from projections.text import TOOL_CHARACTERS_MAX, Said, said_in, spoken
from projections.view import Deletion
from tests.support.facts import STREAM, completed, recorded, session_started, started, user

VIEWS = (passages.VIEW,)
ODD_TEXT = "odd \x00 nul, \u2028 line, ünïcödé 🎈 e\u0301te 日本語 " + MARK


def apply(path: Path, events: Sequence[Recorded], *, batch: int = 1_000) -> Path:
    """The views of the events, taken in so many at a time."""
    store = ViewStore.create(path, VIEWS)
    for begin in range(0, len(events), batch):
        part = events[begin : begin + batch]
        store.apply(
            part, [Deletion(e, _past(events, e)) for e in part if isinstance(e.event, SessionDeleted | ItemRemoved)]
        )
    store.close()
    return path


def _past(events: Sequence[Recorded], deletion: Recorded) -> list[Recorded]:
    return [e for e in events if e.stream == deletion.stream and e.version < deletion.version]


def found(path: Path, word: str, mark: str) -> list[int]:
    """Where the word was said, newest first."""
    with closing(sqlite3.connect(path)) as database:
        rows = database.execute(passages.FIND, (f"{quoted(mark)} AND {quoted(word)}", 100)).fetchall()
    return [position for position, _, _ in rows]


def titled(path: Path, word: str) -> list[int]:
    """The lineages in whose titles the word is."""
    with closing(sqlite3.connect(path)) as database:
        query = f"{quoted(tenant_mark('acme'))} AND {quoted(word)}"
        return [id_ for (id_,) in database.execute(passages.FIND_TITLES, (query, 100))]


def words(path: Path) -> list[str]:
    """Every word in the index but the marks."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE VIRTUAL TABLE temp.terms USING fts5vocab('main', 'passages_fts', 'row')")
        terms = [term for (term,) in database.execute("SELECT term FROM temp.terms")]
    return [term for term in terms if not term.startswith(MARK)]


def rows(path: Path) -> list[tuple[object, ...]]:
    snapshot = Snapshot(path, VIEWS)
    found_rows = [row for name, row in snapshot.rows() if name == "passages"]
    snapshot.close()
    return found_rows


ACME = tenant_mark("acme")


def test_a_completed_turn_is_found_by_its_input_and_its_output(tmp_path: Path) -> None:
    path = apply(tmp_path / "v", recorded([session_started(), started("t1", "Hello"), completed("t1", "Wörld")]))
    assert rows(path) == [(3, 2, 1)]
    assert found(path, "hello", ACME) == found(path, "world", ACME) == [3]
    assert found(path, "nothing", ACME) == []


def test_an_open_turn_waits_and_one_that_did_not_complete_was_never_said(tmp_path: Path) -> None:
    failed = TurnFailed(turn_id="t1", code="x", message="y", status=0)
    cancelled = TurnCancelled(turn_id="t1", reason="crash")
    endings: list[tuple[Event, ...]] = [(), (failed,), (cancelled,)]
    for number, ending in enumerate(endings):
        events: list[Event] = [session_started(), started("t1", "secret"), *ending]
        path = apply(tmp_path / str(number), recorded(events))
        assert rows(path) == []
        assert words(path) == []


def test_a_failed_turn_leaves_its_words_out_of_the_next(tmp_path: Path) -> None:
    failed = TurnFailed(turn_id="t1", code="x", message="y", status=0)
    events: list[Event] = [
        session_started(),
        started("t1", "first"),
        failed,
        started("t2", "second"),
        completed("t2", "yes"),
    ]
    path = apply(tmp_path / "v", recorded(events), batch=1)
    assert words(path) == ["second", "yes"]


def test_what_was_said_under_a_key_is_found_under_no_other(tmp_path: Path) -> None:
    turns: list[Event] = [
        started("t1", "one"),
        completed("t1"),
        started("t2", "two", session_key="other"),
        completed("t2"),
    ]
    path = apply(tmp_path / "v", recorded([session_started(session_key="key"), *turns]))
    assert found(path, "one", scope_mark("acme", "key")) == [3]
    assert found(path, "two", scope_mark("acme", "key")) == []
    assert found(path, "two", scope_mark("acme", "other")) == found(path, "hi", scope_mark("acme", "other")) == [5]
    assert found(path, "one", scope_mark("bcme", "key")) == []
    assert found(path, "one", tenant_mark("bcme")) == []


def test_no_text_can_pretend_to_be_of_another_tenant(tmp_path: Path) -> None:
    forged = f"{tenant_mark('bcme')} {scope_mark('bcme', 'k')} treasure"
    events: list[Event] = [session_started(), started("t1", forged), completed("t1", forged)]
    path = apply(tmp_path / "v", recorded(events))
    assert found(path, "treasure", tenant_mark("bcme")) == found(path, "treasure", scope_mark("bcme", "k")) == []
    assert found(path, "treasure", ACME) == [3]


def test_names_run_together_make_different_marks() -> None:
    assert scope_mark("ab", "c") != scope_mark("a", "bc")
    assert scope_mark("a", "") == ""


def test_titles_are_found_as_they_are_now(tmp_path: Path) -> None:
    rotated = CompressionRotated(
        old_session_id="s1",
        session_id="s2",
        summary=b"{}",
        head=0,
        tail=0,
        trigger="manual",
        tokens_before=2,
        tokens_after=1,
        summariser="m",
        title="Garden #2",
    )
    events: list[Event] = [session_started(title="Kitchen"), SessionRenamed(title="Garden"), rotated]
    for batch in (1, 10):
        path = apply(tmp_path / str(batch), recorded(events), batch=batch)
        assert (titled(path, "kitchen"), titled(path, "garden"), titled(path, "2")) == ([], [1], [1])
    path = apply(tmp_path / "none", recorded([*events, SessionRenamed(title="")]))
    assert words(path) == []


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_nothing_of_a_deleted_lineage_is_left_in_table_or_index(tmp_path: Path, batch: int) -> None:
    turns: list[Event] = [
        started("t1", ODD_TEXT),
        completed("t1", "answer"),
        started("t2", "two", session_key="k"),
        completed("t2"),
    ]
    events = recorded([session_started(title="Private", session_key="j"), *turns, started("t3"), SessionDeleted()])
    kept = recorded([session_started("s2"), started("u1", "kept"), completed("u1")], "lineage/acme/s2", 100)
    path = apply(tmp_path / "v", [*events, *kept], batch=batch)
    assert rows(path) == [(102, 101, 100)]
    assert words(path) == ["hi", "kept"]


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_a_lineage_that_begins_again_is_found_by_its_new_words_alone(tmp_path: Path, batch: int) -> None:
    life: list[Event] = [session_started(), started("t1", "old"), completed("t1"), SessionDeleted()]
    again: list[Event] = [session_started(), started("t2", "new"), completed("t2")]
    path = apply(tmp_path / "v", recorded([*life, *again]), batch=batch)
    assert words(path) == ["hi", "new"]
    assert found(path, "new", ACME) == [7]


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_added_items_are_found_under_their_sessions_key(tmp_path: Path, batch: int) -> None:
    added = ItemsAdded(turn_id="t1", items=(user("hello"), b'{"type":"reasoning"}', b"[]"))
    path = apply(tmp_path / "v", recorded([session_started(session_key="k"), added]), batch=batch)
    assert found(path, "hello", ACME) == found(path, "hello", scope_mark("acme", "k")) == [2]
    assert rows(path) == [(2, 2, 1)]


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_a_turn_that_has_lost_an_item_is_found_no_more(tmp_path: Path, batch: int) -> None:
    turns: list[Event] = [
        *(started("t1", ODD_TEXT, session_key="k"), completed("t1", "answer")),
        *(started("t2", "two"), completed("t2"), ItemsAdded(turn_id="t3", items=(user("three"),))),
        *(ItemRemoved(turn_id="t1", item_id="msg_t1"), ItemRemoved(turn_id="t3", item_id="msg_t3_i0")),
        *(ItemRemoved(turn_id="t1", item_id="msg_t1_i0"), ItemRemoved(turn_id="t9", item_id="msg_t9")),
    ]
    path = apply(tmp_path / "v", recorded([session_started(), *turns]), batch=batch)
    assert rows(path) == [(5, 4, 1)]
    assert words(path) == ["hi", "two"]
    path = apply(tmp_path / "deleted", recorded([session_started(), *turns, SessionDeleted()]), batch=batch)
    assert words(path) == []


async def test_a_deletion_reaches_the_index_of_a_running_server_and_of_a_rebuilt_one(data: Path) -> None:
    log = await SqliteLog.open(data)
    runner = await Runner.start(log, data / VIEWS_FILE, VIEWS)
    await log.append(STREAM, 0, (session_started(), started("t1", "secret"), completed("t1")))
    assert await runner.fetch("SELECT count(*) FROM passages", ()) == [(1,)]
    await log.append(STREAM, 3, (SessionDeleted(),))
    assert await runner.fetch("SELECT count(*) FROM passages", ()) == [(0,)]
    await runner.stop()
    (await rebuild(log, data / "rebuilt.db", VIEWS)).close()
    await log.close()
    assert words(data / VIEWS_FILE) == words(data / "rebuilt.db") == []


ACTS = ("turn", "turn", "add", "fail", "title", "remove", "remove", "delete")
STEPS = st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(ACTS)), max_size=20)


@given(STEPS, st.integers(1, 5))
@example([("a", "turn")] * 6 + [("a", "delete")] * 2, 4)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_however_the_events_are_cut_into_batches_the_same_is_found(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str]], batch: int
) -> None:
    directory = tmp_path_factory.mktemp("passages")
    events, expected = _history(steps)
    whole, cut = apply(directory / "whole", events), apply(directory / "cut", events, batch=batch)
    assert rows(whole) == rows(cut)
    assert words(whole) == words(cut) == sorted(expected)
    assert all(found(whole, word, ACME) == found(cut, word, ACME) for word in expected)


def _history(steps: list[tuple[str, str]]) -> tuple[list[Recorded], set[str]]:
    """What the steps record in two lineages, and the words that are left of it."""
    events: list[Recorded] = []
    versions = {"a": 0, "b": 0}
    said: dict[str, dict[str, set[str]]] = {}  # of each lineage, the words of each turn
    titles: dict[str, set[str]] = {}

    def record(name: str, *new: Event) -> None:
        for event in new:
            versions[name] += 1
            position = len(events) + 1
            stream = lineage_stream("acme", name)
            events.append(Recorded(position, stream, versions[name], 1_000 + position, event, b""))

    for number, (name, what) in enumerate(steps):
        turn_id, word = f"t{number}", f"w{number}"
        if name not in said:
            record(name, session_started(name))
            said[name] = {}
        if what == "turn":
            record(name, started(turn_id, word), completed(turn_id, f"{word}a"))
            said[name][turn_id] = {word, f"{word}a"}
        elif what == "add":
            record(name, ItemsAdded(turn_id=turn_id, items=(user(word),)))
            said[name][turn_id] = {word}
        elif what == "remove":
            # Of a turn that has lost one item already, too, and of one that was never said here.
            removed = f"t{number // 2}"
            record(name, ItemRemoved(turn_id=removed, item_id=f"msg_{removed}"))
            said[name].pop(removed, None)
        elif what == "fail":
            record(name, started(turn_id, word), TurnFailed(turn_id=turn_id, code="x", message="y", status=0))
        elif what == "title":
            record(name, SessionRenamed(title=f"title{number}"))
            titles[name] = {f"title{number}"}
        else:
            record(name, SessionDeleted())
            del said[name]
            titles.pop(name, None)
    words = (word for turns in said.values() for word in turns.values())
    return events, set().union(*words, *titles.values())


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (b'{"role":"user","content":"x"}', Said("user", "x")),
        (
            b'{"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url"},{"text":"b"}]}',
            Said("user", "a\nb"),
        ),
        (b'{"role":"assistant","content":null,"tool_calls":[]}', Said("assistant", "")),
        (b'{"role":"tool","content":"%s"}' % (b"x" * TOOL_CHARACTERS_MAX), Said("tool", "x" * TOOL_CHARACTERS_MAX)),
        (b'{"role":"tool","content":"%s"}' % (b"x" * (TOOL_CHARACTERS_MAX + 1)), Said("", "")),
        (b'{"role":"system","content":"x"}', Said("", "")),
        (b'{"role":["user"],"content":"x"}', Said("", "")),
        (b'{"role":"user","content":[1,{"text":2}]}', Said("user", "")),
        (b"not json", Said("", "")),
        (b"\xff", Said("", "")),
        (b"[" * 5_000, Said("", "")),
        (b'{"role":"user","content":"%s"}' % (b"x" * 30_000), Said("user", "x" * 20_000)),
    ],
    ids=str,
)
def test_what_a_message_says_is_its_text_however_it_was_stored(message: bytes, said: Said) -> None:
    assert said_in(message) == said


def test_of_very_many_messages_the_last_ones_count() -> None:
    messages = [
        b'{"role":"user","content":"%s"}' % (letter * 20_000) for letter in (b"a", b"b", b"c", b"d", b"e", b"f")
    ]
    text = spoken([*messages, b'{"role":"user","content":"g"}'])
    assert (text[-1], text[0], len(text)) == ("g", "b", 100_000 + 5)
