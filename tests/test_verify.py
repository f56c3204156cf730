"""Every change to a small log is detected, and the position named: bits, columns, rows, order, hashes, signatures."""

import asyncio
import itertools
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventstore.chain import digest
from eventstore.events import SessionErased, TurnCompleted, encode
from eventstore.log import LogError
from eventstore.verifying.diagnosis import Finding
from tests.support.facts import T0_US
from tests.support.tampering import (
    ERASED,
    ERASURE,
    EVENTS,
    GONE,
    KEPT,
    Row,
    chained,
    flipped,
    make_log,
    rewrite,
    rows,
    sign,
    signed_anew,
    tampering,
    verified,
    with_column,
)

STREAM, VERSION, TYPE, RECORDED_US, DATA, HASH = range(1, 7)
EVERY = range(1, EVENTS + 1)
SALT = bytes(16)


@pytest.fixture(scope="module")
def _unsigned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("verify") / "data"
    asyncio.run(make_log(data))
    return data


@pytest.fixture
def unsigned(_unsigned: Path, data: Path) -> Path:
    """A log that nobody has signed."""
    return Path(shutil.copytree(_unsigned, data))


@pytest.fixture
def log(unsigned: Path) -> Path:
    """A log that was signed at its head."""
    sign(unsigned, EVENTS)
    return unsigned


@pytest.fixture
def original(log: Path) -> list[Row]:
    """The rows of that log."""
    return rows(log)


def first(data: Path) -> Finding:
    """The first thing that is wrong."""
    found = verified(data).findings
    assert found, "nothing was found"
    return found[0]


def each_edit(data: Path, edits: Iterator[tuple[int, int, object]]) -> Iterator[tuple[int, int, object, Finding]]:
    """Put one value into one column of one row, see what is found, put the old one back; for each of the edits."""
    names = ("position", "stream", "version", "type", "recorded_us", "data", "hash")
    before = {row[0]: row for row in rows(data)}
    for position, column, value in edits:
        for content in (value, before[position][column]):
            with tampering(data) as database:
                sql = f"UPDATE events SET {names[column]} = ? WHERE position = ?"
                database.execute(sql, (content, position))
            if content is value:
                yield position, column, value, first(data)


def test_a_whole_log_is_counted(log: Path) -> None:
    found = verified(log)
    assert found.findings == []
    assert (found.whole.position, found.whole.streams) == (EVENTS, 3)
    assert (found.whole.erased, found.whole.erasures) == (len(ERASED), 1)
    assert [checkpoint.size for checkpoint in found.checkpoints] == [EVENTS]


def test_a_bit_of_any_hash_is_missed(log: Path, original: list[Row]) -> None:
    flips = ((p, HASH, flipped(original[p - 1][HASH], at, at % 8)) for p in EVERY for at in range(p % 3, 32, 3))
    for position, _, _, finding in each_edit(log, flips):
        assert finding.position == position, finding
        assert "altered" in finding.reason


def test_a_bit_of_any_data_is_missed(log: Path, original: list[Row]) -> None:
    def flips() -> Iterator[tuple[int, int, object]]:
        for position in EVERY:
            content = original[position - 1][DATA]
            for at in range(position % 7, len(content), 7):
                yield position, DATA, flipped(content, at, at % 8)

    for position, _, _, finding in each_edit(log, flips()):
        assert finding.position == position, finding
        assert "altered" in finding.reason


@pytest.mark.parametrize(
    ("column", "values"),
    [
        (STREAM, (b"lineage/acme/kept", "lineage/acme/else", "", "\udcff".encode("utf-8", "surrogatepass"))),
        (VERSION, (0, -1, 99, "two", 1.5, b"1", 2**62)),
        (TYPE, ("TurnFailed", "TurnStarted:2", "", b"TurnStarted")),
        (RECORDED_US, (0, -1, 2**62, "now", 1.5)),
        (DATA, (b"", b"short", "text", 7, 1.5, bytes(32), bytes(33), bytes(5_000))),
        (HASH, (b"", bytes(31), bytes(32), "x" * 32, 7)),
    ],
)
def test_any_other_value_in_any_column_is_named_by_its_position(
    log: Path, column: int, values: tuple[object, ...]
) -> None:
    edits = ((position, column, value) for position in EVERY for value in values)
    for position, _, value, finding in each_edit(log, edits):
        assert finding.position == position, (value, finding)


@pytest.mark.parametrize("column", [STREAM, VERSION, TYPE, RECORDED_US, DATA, HASH])
def test_a_null_is_named_by_its_position_though_the_table_was_made_to_take_it(log: Path, column: int) -> None:
    with tampering(log) as database:
        database.execute("ALTER TABLE events RENAME TO old")
        database.execute(
            "CREATE TABLE events (position INTEGER PRIMARY KEY, stream, version, type, recorded_us, data, hash)"
        )
        database.execute("INSERT INTO events SELECT * FROM old")
        database.execute("DROP TABLE old")
    for position, _, _, finding in each_edit(log, ((position, column, None) for position in (1, 5, EVENTS))):
        assert finding.position == position
        assert "is null" in finding.reason
    assert "the table events was altered" in str(verified(log).findings)


def test_a_removed_row_is_missed_wherever_it_stood(log: Path, original: list[Row]) -> None:
    for position in EVERY:
        rewrite(log, [row for row in original if row[0] != position])
        finding = first(log)
        assert finding.position == position
        if position < EVENTS:
            assert "the event is missing; the next one is at position" in finding.reason


def test_a_removed_row_is_missed_where_the_others_moved_up(log: Path, original: list[Row]) -> None:
    for position in range(1, EVENTS):
        kept = [row for row in original if row[0] != position]
        rewrite(log, [(at, *row[1:]) for at, row in enumerate(kept, 1)])
        assert first(log).position == position


def test_two_rows_that_changed_places_are_named_by_the_first(log: Path, original: list[Row]) -> None:
    for one, other in itertools.combinations(EVERY, 2):
        swapped = {one: original[other - 1], other: original[one - 1]}
        rewrite(log, [(row[0], *swapped.get(row[0], row)[1:]) for row in original])
        assert first(log).position == one, (one, other)


def test_a_copy_of_a_row_is_named_by_where_it_was_put(log: Path, original: list[Row]) -> None:
    for position in EVERY:
        copy = (EVENTS + 1, *with_column(original[position - 1], VERSION, 99)[1:])
        rewrite(log, [*original, copy])
        assert first(log).position == EVENTS + 1


def test_a_row_before_the_first_is_named(log: Path, original: list[Row]) -> None:
    rewrite(log, [(-3, "lineage/acme/x", *original[0][2:]), *original])
    assert (first(log).position, "before position 1" in first(log).reason) == (-3, True)


def test_a_log_that_was_cut_off_is_known_by_what_was_signed(log: Path, original: list[Row]) -> None:
    for length in range(EVENTS):
        rewrite(log, original[:length])
        finding = first(log)
        assert finding.position == length + 1
        assert f"the log ends at position {length}, and {EVENTS} events were signed at 2023-11-14T22:13:32Z" in (
            finding.reason
        )


FORGED = encode(TurnCompleted(turn_id="x", output=(b'{"content":"forged"}',), finish_reason="stop"))


def _forged(row: Row) -> Row:
    """The row with a content that nobody has recorded."""
    return with_column(with_column(row, DATA, SALT + FORGED), TYPE, "TurnCompleted")


def test_a_row_that_was_changed_and_signed_anew_is_named(log: Path, original: list[Row]) -> None:
    for position in EVERY:
        before = original[: position - 1]
        rewrite(log, [*chained(before, [_forged(original[position - 1])]), *original[position:]])
        finding = first(log)
        if position < EVENTS:
            assert finding.position == position
            assert "altered and given a new hash, from which the next event does not follow" in finding.reason
        else:
            assert finding.position == 1
            assert "the log was rewritten between positions 1 and 12" in finding.reason


def test_a_row_that_was_signed_anew_is_told_from_one_that_was_only_changed(log: Path, original: list[Row]) -> None:
    for position in range(2, EVENTS):
        rewrite(log, [_forged(row) if row[0] == position else row for row in original])
        assert first(log).position == position
        assert "the hash beside it is the one that was signed" in first(log).reason


def test_without_checkpoints_both_rows_of_a_broken_link_are_named(unsigned: Path) -> None:
    original = rows(unsigned)
    for position in range(1, EVENTS):
        before = original[: position - 1]
        rewrite(unsigned, [*chained(before, [_forged(original[position - 1])]), *original[position:]])
        finding = first(unsigned)
        assert finding.position == position + 1
        assert f"or the one at position {position} was, and given a new hash" in finding.reason


@pytest.mark.parametrize("sizes", [(12,), (4, 8, 12), tuple(EVERY)])
def test_a_log_that_was_rewritten_with_all_its_hashes_is_known_by_what_was_signed(
    unsigned: Path, sizes: tuple[int, ...]
) -> None:
    sign(unsigned, *sizes)
    original = rows(unsigned)
    for position in (p for p in EVERY if p not in ERASED and p != ERASURE):
        forged = with_column(original[position - 1], RECORDED_US, original[position - 1][RECORDED_US])
        forged = with_column(forged, DATA, SALT + original[position - 1][DATA][16:])
        rewrite(unsigned, chained(original[: position - 1], [forged, *original[position:]]))
        good = max((size for size in sizes if size < position), default=0)
        bad = min(size for size in sizes if size >= position)
        finding = first(unsigned)
        assert finding.position == good + 1
        where = f"between positions {good + 1} and {bad}" if bad > good + 1 else f"at position {bad}"
        assert f"the log was rewritten {where}" in finding.reason


def test_a_digest_in_place_of_content_needs_a_fact_that_says_so(log: Path, original: list[Row]) -> None:
    for position in (p for p in EVERY if p not in ERASED):
        taken = with_column(original[position - 1], DATA, digest(original[position - 1][DATA]))
        rewrite(log, [taken if row[0] == position else row for row in original])
        reasons = {finding.position: finding.reason for finding in verified(log).findings}
        if position == ERASURE:
            assert set(reasons) == {ERASED[0]}
        else:
            assert reasons == {position: "its content was taken out, and no SessionErased behind it says so"}


@pytest.mark.parametrize(
    ("ranges", "position", "said"),
    [
        (((3, 3),), 3, "its content was erased, says the SessionErased at position 13, and it is there"),
        (((2, 4),), 3, "and it is there"),
        (((13, 13),), 13, "where only earlier ones"),
        (((4, 2),), 13, "where only earlier ones"),
        (((0, 2),), 13, "where only earlier ones"),
        (((2, 2**62),), 13, "where only earlier ones"),
    ],
)
def test_a_fact_that_claims_an_erasure_is_held_against_the_rows(
    log: Path, original: list[Row], ranges: tuple[tuple[int, int], ...], position: int, said: str
) -> None:
    content = SALT + encode(SessionErased(ranges=ranges, by="x", why="y"))
    fact = (EVENTS + 1, GONE, 6, "SessionErased", original[-1][RECORDED_US], content, b"")
    rewrite(log, chained(original, [fact]))
    found = {finding.position: finding.reason for finding in verified(log).findings}
    assert said in found[position]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ((KEPT, 9, "SessionEnded", None), "lineage/acme/kept goes on at version 9, expected 7"),
        (("lineage/acme/new", 2, "SessionEnded", None), "lineage/acme/new goes on at version 2, expected 1"),
        ((KEPT, 7, "SessionEnded", 5), "its time is before that of the event before it"),
        ((KEPT, 7, "TurnDoubled", None), "unknown event type 'TurnDoubled'; this turnlog knows"),
        ((KEPT, 7, "SessionEnded:2", None), "SessionEnded in version 2; this turnlog reads version 1"),
        ((KEPT, 7, "TurnStarted", None), "its type says TurnStarted, and its data is a SessionEnded"),
    ],
)
def test_what_a_writer_should_not_have_written_is_named_though_its_hash_is_right(
    log: Path, original: list[Row], row: tuple[str, int, str, int | None], said: str
) -> None:
    stream, version, type_, recorded_us = row
    name = type_ if type_ != "TurnStarted" else "SessionEnded"
    content = SALT + b"\x82\xa4type" + bytes([0xA0 + len(name)]) + name.encode() + b"\xa6reason\xa4done"
    at = recorded_us or T0_US * 2
    rewrite(log, chained(original, [(EVENTS + 1, stream, version, type_, at, content, b"")]))
    assert (first(log).position, said in first(log).reason) == (EVENTS + 1, True), first(log)


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("DROP TRIGGER events_are_never_updated", "the trigger events_are_never_updated is missing"),
        ("DROP INDEX events_by_stream", "the index events_by_stream is missing"),
        ("CREATE TRIGGER mine AFTER INSERT ON events BEGIN SELECT 1; END", "the trigger mine is none of turnlog's"),
        ("CREATE TABLE notes (text)", "the table notes is none of turnlog's"),
    ],
)
def test_what_keeps_the_rows_as_they_are_must_be_there(log: Path, sql: str, said: str) -> None:
    database = sqlite3.connect(log / "log.db")
    database.execute(sql)
    database.close()
    assert said in first(log).reason


def test_an_index_forged_to_differ_from_the_rows_is_found_by_a_deep_check(log: Path, original: list[Row]) -> None:
    """The index is hidden from SQLite while a row gets another stream, and its hash is made anew."""
    database = sqlite3.connect(log / "log.db", isolation_level=None)
    database.execute("PRAGMA writable_schema = ON")
    (hidden,) = database.execute("SELECT * FROM sqlite_master WHERE name = 'events_by_stream'")
    database.execute("DELETE FROM sqlite_master WHERE name = 'events_by_stream'")
    database.close()
    *before, last = original
    row = signed_anew(with_column(with_column(last, STREAM, "lineage/acme/else"), VERSION, 1), before[-1][HASH])
    database = sqlite3.connect(log / "log.db", isolation_level=None)
    database.execute("PRAGMA writable_schema = ON")
    database.execute("DROP TRIGGER events_are_never_updated")
    sql = "UPDATE events SET stream = ?, version = ?, hash = ? WHERE position = ?"
    database.execute(sql, (row[STREAM], row[VERSION], row[HASH], EVENTS))
    database.execute("INSERT INTO sqlite_master VALUES (?,?,?,?,?)", hidden)
    database.close()
    (log / "checkpoints.jsonl").unlink()
    assert "missing from index" in str(verified(log, is_deep=True).findings)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda line: line.replace('"size":12', '"size":11'),
            "line 2 of checkpoints.jsonl is not believed: it does not",
        ),
        (lambda line: line.replace("\\n12\\n", "\\n11\\n"), "the signature of"),
        (lambda line: line.replace('"note"', '"not"'), "it can not be read"),
        (lambda line: line.replace(":32Z\\n", ":33Z\\n"), "it was altered"),
    ],
)
def test_a_checkpoint_that_was_altered_is_not_believed(unsigned: Path, change: Callable[[str], str], said: str) -> None:
    sign(unsigned, 5, 12)
    path = unsigned / "checkpoints.jsonl"
    one, two = path.read_text().splitlines()
    assert change(two) != two
    path.write_text(f"{one}\n{change(two)}\n")
    assert said in str(verified(unsigned).findings)


def test_a_line_that_a_crash_has_cut_off_is_passed_over(unsigned: Path) -> None:
    sign(unsigned, 5, 12)
    path = unsigned / "checkpoints.jsonl"
    content = path.read_bytes()
    for length in range(content.index(b"\n") + 1, len(content) - 3, 9):
        path.write_bytes(content[:length])
        assert verified(unsigned).findings == []


def test_a_checkpoint_that_another_key_has_signed_is_not_believed(unsigned: Path) -> None:
    sign(unsigned, 5)
    theirs = sign(unsigned, 12, key_file="their.key")
    assert "line 2 of checkpoints.jsonl is not believed" in str(verified(unsigned).findings)
    assert "line 1 of checkpoints.jsonl is not believed" in str(verified(unsigned, theirs).findings)


def test_two_histories_under_one_key_are_told_from_a_rewritten_log(unsigned: Path) -> None:
    original = rows(unsigned)
    rewrite(unsigned, chained(original[:4], [with_column(original[4], DATA, SALT + original[4][DATA][16:])]))
    sign(unsigned, 5)
    rewrite(unsigned, original)
    sign(unsigned, 12)
    assert "the checkpoint of size 5, signed at" in first(unsigned).reason
    assert "two histories" in first(unsigned).reason


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(change=st.data())
def test_bytes_overwritten_anywhere_in_the_file_are_found_or_hold_nothing(change: st.DataObject, log: Path) -> None:
    path = log / "log.db"
    whole, content, expected = path.read_bytes(), bytearray(path.read_bytes()), rows(log)
    at = change.draw(st.integers(0, len(content) - 1))
    noise = change.draw(st.binary(min_size=1, max_size=64))
    content[at : at + len(noise)] = noise[: len(content) - at]
    try:
        _damaged(log, bytes(content), expected)
    finally:
        path.write_bytes(whole)


def test_damage_of_which_sqlite_tells_in_words_that_are_no_text_is_told(log: Path, original: list[Row]) -> None:
    content = (log / "log.db").read_bytes()
    _damaged(log, content.replace(b"CREATE TRIGGER", b"CREATE\x80TRIGGER", 1), original)


def test_a_file_that_was_cut_anywhere_is_found_out(log: Path, original: list[Row]) -> None:
    whole = (log / "log.db").read_bytes()
    for length in (*range(0, 200, 20), *range(500, len(whole), 1_021)):
        _damaged(log, whole[:length], original)


def _damaged(data: Path, content: bytes, expected: list[Row]) -> None:
    """Whatever is done to the file: it is refused, or something is found, or nothing that it holds has changed."""
    (data / "log.db").write_bytes(content)
    for beside in ("log.db-wal", "log.db-shm"):
        (data / beside).unlink(missing_ok=True)
    try:
        found = verified(data)
    except LogError:
        return
    if found.findings:
        return
    try:
        assert rows(data) == expected
    except sqlite3.Error as error:
        raise AssertionError("found whole, and not to be read") from error


@pytest.mark.parametrize("change", ["position = 11", "version = 7", "stream = 'lineage/acme/kepT'"])
def test_an_index_that_was_damaged_is_found(log: Path, change: str) -> None:
    """The last row is another in the index than in the table: bytes of the file itself are changed."""
    content = (log / "log.db").read_bytes()
    database = sqlite3.connect(log / "log.db")
    ((page,),) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'events_by_stream'")
    ((page_bytes,),) = database.execute("PRAGMA page_size")
    database.close()
    index = content[(page - 1) * page_bytes : page * page_bytes]
    old, new = {
        "position = 11": (b"lineage/acme/kept\x06\x0c", b"lineage/acme/kept\x06\x0b"),
        "version = 7": (b"lineage/acme/kept\x06\x0c", b"lineage/acme/kept\x07\x0c"),
        "stream = 'lineage/acme/kepT'": (b"lineage/acme/kept\x06\x0c", b"lineage/acme/kepT\x06\x0c"),
    }[change]
    assert index.count(old) == 1
    (log / "log.db").write_bytes(content.replace(index, index.replace(old, new)))
    assert "the index events_by_stream does not have" in first(log).reason
