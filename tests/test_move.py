"""A log goes out as lines and comes in again, the same to the byte; what is not whole does not get in."""

import asyncio
import base64
import gzip
import json
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from freezegun import freeze_time
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore.chain import GENESIS, link
from eventstore.events import CompressionRotated, ResponseEvicted, SessionEnded, SessionErased
from tests.support.facts import completed, session_started, started
from tests.support.moving import STREAM, TWO_TURNS, Append, done, erase, exported, make_log, names, refused, rows
from tests.support.server import serving, turnlog_command
from tests.support.upstream import Upstream

Lines: TypeAlias = list[dict[str, Any]]
ROTATED = CompressionRotated(
    old_session_id="s1",
    session_id="s1-child",
    summary=b'{"role":"assistant","content":"they said hello"}',
    head=1,
    tail=0,
    trigger="threshold",
    tokens_before=10,
    tokens_after=5,
    summariser="m",
)


def parsed(content: bytes) -> Lines:
    return [json.loads(line) for line in content.splitlines()]


def written(path: Path, lines: Lines) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def signed(lines: Lines) -> Lines:
    """The lines with hashes that match what they say, by somebody who knows how they are made."""
    previous = GENESIS
    for line in lines[1:]:
        columns = (line["position"], line["stream"], line["version"], line["type"], line["recorded_us"])
        previous = link(previous, *columns, base64.b64decode(line["data"]))
        line["hash"] = previous.hex()
    return [lines[0] | {"hash": previous.hex()}, *lines[1:]]


# Out


async def test_an_export_is_a_header_and_a_line_for_each_event_with_its_bytes_and_its_fields(data: Path) -> None:
    await make_log(data)
    header, *events = parsed(exported(data))
    stored = rows(data / "log.db")
    assert header == {
        "turnlog_export": 1,
        "after": 0,
        "previous_hash": "00" * 32,
        "until": 8,
        "hash": stored[-1][-1].hex(),
    }
    for event, row in zip(events, stored, strict=True):
        columns = [event[name] for name in ("position", "stream", "version", "type", "recorded_us")]
        assert (*columns, base64.b64decode(event["data"]), bytes.fromhex(event["hash"])) == row
    assert events[1]["event"]["items"] == [{"role": "user", "content": "hello Ada"}]
    assert all("event" not in event for event in parsed(exported(data, "--bare"))[1:])


async def test_two_exports_are_the_same_bytes_whatever_the_clock_says_also_compressed(
    data: Path, tmp_path: Path
) -> None:
    await make_log(data)
    outputs = []
    for number, moment in enumerate(("2001-01-01", "2031-06-01")):
        with freeze_time(moment):
            plain, packed = tmp_path / f"{number}.jsonl", tmp_path / f"{number}.gz"
            done("export", "--data", data, "-o", plain)
            done("export", "--data", data, "-o", packed)
            outputs.append((plain.read_bytes(), packed.read_bytes()))
    assert outputs[0] == outputs[1]
    assert gzip.decompress(outputs[0][1]) == outputs[0][0] == exported(data)


async def test_a_session_is_exported_by_any_of_its_ids_to_be_read_and_not_to_be_imported(
    data: Path, tmp_path: Path
) -> None:
    await make_log(data, [*TWO_TURNS, Append(STREAM, (ROTATED,))])
    header, *events = parsed(exported(data, "--session", "s1-child"))
    assert header == {"turnlog_export": 1, "tenant": "default", "session": "s1-child"}
    assert [event["position"] for event in events] == [1, 2, 3, 7, 8, 9]
    assert parsed(exported(data, "--session", "s1"))[1:] == events
    excerpt = written(tmp_path / "s1.jsonl", [header, *events])
    assert "an excerpt of one session" in refused("import", excerpt, "--data", tmp_path / "new")
    assert "no session 's1'" in refused("export", "--data", data, "--session", "s1", "--tenant", "acme")


async def test_an_export_until_a_moment_ends_with_what_was_recorded_then(data: Path) -> None:
    with freeze_time("2026-01-01T10:00:00Z", real_asyncio=True):
        await make_log(data, TWO_TURNS[:2])
    with freeze_time("2026-01-01T11:00:00Z", real_asyncio=True):
        await make_log(data, TWO_TURNS[2:])
    for until, events in (("2026-01-01T10:59:59Z", 3), ("2026-01-01T13:00:00+02:00", 8), ("1999-01-01T00:00:00Z", 0)):
        assert len(parsed(exported(data, "--until", until))) == events + 1
    assert len(parsed(exported(data, "--after", 2, "--until", 5))) == 4
    assert len(parsed(exported(data, "--after", 8))) == 1


async def test_a_damaged_log_is_not_exported_and_its_position_is_named(data: Path, tmp_path: Path) -> None:
    await make_log(data)
    with sqlite3.connect(data / "log.db") as database:
        database.execute("DROP TRIGGER events_are_never_updated")
        database.execute("UPDATE events SET stream = CAST(x'ff' AS TEXT) WHERE position = 7")
        database.execute("UPDATE events SET recorded_us = recorded_us + 1 WHERE position = 8")
    database.close()
    assert "damaged at position 7" in refused("export", "--data", data, "-o", tmp_path / "x.jsonl")
    assert "damaged at position 8" in refused("export", "--data", data, "-o", tmp_path / "x.jsonl", "--after", 7)
    assert not list(tmp_path.glob("x.jsonl*"))


async def test_an_export_replaces_nothing_unless_it_is_told_to(data: Path, tmp_path: Path) -> None:
    await make_log(data)
    file = tmp_path / "x.jsonl"
    file.write_text("mine")
    assert "--force" in refused("export", "--data", data, "-o", file)
    assert file.read_text() == "mine"
    done("export", "--data", data, "-o", file, "--force")
    assert file.read_bytes() == exported(data)
    assert file.stat().st_mode & 0o777 == 0o600
    assert "data directory" in refused("export", "--data", data, "-o", data / "log.db", "--force")


# In again

SESSIONS = st.sampled_from(("a", "b", "ß–東\u2028", "x" * 200))
TENANTS = st.sampled_from(("default", "acme"))
TEXTS = st.text(max_size=30)
LIVES = st.lists(st.tuples(TENANTS, SESSIONS, TEXTS, st.integers(1, 3)), max_size=12)


def appends_of(lives: Sequence[tuple[str, str, str, int]]) -> list[Append]:
    """Turns, endings and evictions; none of which has to make sense, since what was recorded has happened."""
    return [
        Append(
            f"lineage/{tenant}/{session}",
            (
                session_started(session, session_key=text),
                started(f"t{number}", text, text),
                completed(f"t{number}", text),
                SessionEnded(reason="client"),
                ResponseEvicted(turn_id=f"t{number}", reason="lru"),
            )[-length:],
        )
        for number, (tenant, session, text, length) in enumerate(lives)
    ]


@settings(max_examples=15, deadline=None)
@given(LIVES, st.lists(st.integers(1, 36)), st.lists(st.integers(0, 36), max_size=3))
def test_whatever_was_recorded_and_erased_comes_in_as_it_went_out_in_one_piece_or_in_many(
    lives: Sequence[tuple[str, str, str, int]], erased: list[int], cuts: list[int]
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        data, whole, pieced, file = (Path(directory) / name for name in ("data", "whole", "pieced", "file"))
        asyncio.run(make_log(data, appends_of(lives)))
        head = len(rows(data / "log.db"))
        erase(data, {position for position in erased if position <= head})
        content = exported(data)
        file.write_bytes(content)
        done("import", file, "--data", whole)
        edges = [0, *sorted(cut for cut in cuts if cut <= head), head]
        for after, until in pairwise(edges):
            file.write_bytes(exported(data, "--bare", "--after", after, "--until", until))
            done("import", file, "--data", pieced)
        assert rows(whole / "log.db") == rows(pieced / "log.db") == rows(data / "log.db")
        assert exported(whole) == exported(pieced) == content


async def test_an_imported_log_is_served_and_goes_on(data: Path, tmp_path: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        first = await server.openai.responses.create(model="m", input="one", conversation="slug")
        _, session = await server.chat("two", "mine")
        (tmp_path / "x.jsonl").write_bytes(exported(data))
        assert "in use by process" in refused("import", tmp_path / "x.jsonl", "--data", data)
    done("import", tmp_path / "x.jsonl", "--data", tmp_path / "new")
    async with serving(tmp_path / "new", upstream=upstream.url) as server:
        await server.openai.responses.create(model="m", input="more", conversation="slug")
        await server.openai.responses.create(model="m", input="more still", previous_response_id=first.id)
        await server.chat("three", session)
        said = [message["content"] for message in await server.messages(session)]
        assert said[0::2] == ["two", "three"]
        assert [message["content"] for message in upstream.messages[-1]] == ["two", said[1], "three"]


async def test_an_imported_log_is_as_safe_as_a_new_one(data: Path, tmp_path: Path) -> None:
    await make_log(data)
    done("import", file_of(data, tmp_path), "--data", tmp_path / "new")
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "new" / "log.db").stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(tmp_path / "new" / "log.db") as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        for statement in ("UPDATE events SET version = 1", "DELETE FROM events"):
            with pytest.raises(sqlite3.IntegrityError, match="events are facts"):
                database.execute(statement)
    database.close()


def file_of(data: Path, directory: Path) -> Path:
    file = directory / "export.jsonl"
    file.write_bytes(exported(data))
    return file


async def test_what_does_not_follow_the_log_is_refused_and_says_what_would(data: Path, tmp_path: Path) -> None:
    await make_log(data)
    file = file_of(data, tmp_path)
    assert "export with --after 8" in refused("import", file, "--data", data)
    other = tmp_path / "other"
    await make_log(other, TWO_TURNS[:1])
    file.write_bytes(exported(data, "--after", 2))
    assert "another event at position 2" in refused("import", file, "--data", other)
    assert "ends at 0" in refused("import", file, "--data", tmp_path / "new")
    assert len(rows(other / "log.db")) == 2
    assert names(tmp_path / "new") == {"lock"}
    (tmp_path / "new" / "log.db-wal").write_bytes(b"of a log that was moved away")
    assert "log.db-wal belong" in refused("import", file_of(data, tmp_path), "--data", tmp_path / "new")


async def test_what_was_erased_since_is_erased_in_the_log_that_goes_on(data: Path, tmp_path: Path) -> None:
    await make_log(data)
    copy = tmp_path / "copy"
    done("import", file_of(data, tmp_path), "--data", copy)
    assert b"hello Ada" in (copy / "log.db").read_bytes()
    await make_log(data, [Append(STREAM, (SessionErased(ranges=((1, 3), (7, 8)), by="me", why="law"),))])
    erase(data, (1, 2, 3, 7, 8))
    (tmp_path / "x.jsonl").write_bytes(exported(data, "--after", 8))
    assert "erased 5 events" in done("import", tmp_path / "x.jsonl", "--data", copy).stderr
    assert exported(copy) == exported(data)
    async with serving(copy):
        pass
    assert names(copy) == {"lock", "log.db", "views.db", "audit.key", "audit.pub", "checkpoints.jsonl"}
    for file in copy.iterdir():
        assert b"hello Ada" not in file.read_bytes()


def moved(lines: Lines, number: int, to: int) -> Lines:
    rest = [line for index, line in enumerate(lines) if index != number]
    return [*rest[:to], lines[number], *rest[to:]]


def changed(lines: Lines, number: int, **fields: Any) -> Lines:
    return [line | fields if index == number else line for index, line in enumerate(lines)]


def without(lines: Lines, number: int, name: str) -> Lines:
    return [
        {key: value for key, value in line.items() if index != number or key != name}
        for index, line in enumerate(lines)
    ]


def newer(lines: Lines, type_: str) -> Lines:
    """Line 6 as a newer turnlog might have written it, with a chain that is right."""
    data = base64.b64encode(bytes(16) + b"\x81\xa4type" + bytes([0xA0 + len(type_)]) + type_.encode()).decode()
    return signed(changed(lines, 5, type=type_, data=data))


BAD: dict[str, tuple[Callable[[Lines], Lines], str]] = {
    "a field is missing": (lambda lines: without(lines, 3, "stream"), "line 4: not an event: Object missing required"),
    "a field is unknown": (lambda lines: changed(lines, 3, more=1), "line 4: not an event: Object contains unknown"),
    "not Base64": (lambda lines: changed(lines, 3, data="!"), "line 4: not an event: Invalid base64"),
    "data of no length": (lambda lines: signed(changed(lines, 3, data="")), "line 4: its data is not a TurnCompleted"),
    "another byte": (lambda lines: changed(lines, 3, data=lines[2]["data"]), "line 4: type 'TurnCompleted', but"),
    "another time": (lambda lines: changed(lines, 8, recorded_us=2**55), "line 9: the event or its hash was altered"),
    "another hash": (lambda lines: changed(lines, 3, hash="0" * 64), "line 4: the event or its hash was altered"),
    "half a hash": (lambda lines: changed(lines, 3, hash="0" * 32), "line 4: not an event: Expected `str` matching"),
    "a gap": (lambda lines: lines[:4] + lines[5:], "line 5: position 5, expected 4"),
    "doubled": (lambda lines: lines[:5] + lines[4:], "line 6: position 4, expected 5"),
    "swapped": (lambda lines: moved(lines, 4, 5), "line 5: position 5, expected 4"),
    "cut off behind a line": (lambda lines: lines[:-1], "line 8: the last one, at position 7: the header promises 8"),
    "goes on": (lambda lines: [*lines, lines[-1] | {"position": 9}], "line 10: position 9: the header promises that 8"),
    "another header": (
        lambda lines: [lines[0] | {"hash": "0" * 64}, *lines[1:]],
        "line 1: the header promises",
    ),
    "no header": (lambda lines: lines[1:], "line 1: not the header"),
    "half a header": (lambda lines: without(lines, 0, "until"), "line 1: not the header"),
    "a newer header": (lambda lines: changed(lines, 0, turnlog_export=2), "line 1: an export of format 2"),
    "a newer type": (lambda lines: newer(lines, "TurnPraised"), "line 6: unknown event type 'TurnPraised'"),
    "a newer version": (lambda lines: newer(lines, "TurnStarted:2"), "line 6: TurnStarted in version 2"),
    "another type": (lambda lines: signed(changed(lines, 3, type="TurnStarted")), "line 4: type 'TurnStarted', but"),
    "another version": (lambda lines: signed(changed(lines, 3, version=4)), "line 4: version 4 of"),
    "a version again": (lambda lines: signed(changed(lines, 8, version=1)), "line 9: version 1 of"),
    "no stream's name": (lambda lines: signed(changed(lines, 3, stream="s1")), "line 4: stream 's1': expected"),
    "a long name": (lambda lines: changed(lines, 3, stream="a/b/" + "c" * 70_000), "line 4: the row does not hold"),
    "an earlier time": (lambda lines: signed(changed(lines, 8, recorded_us=5)), "line 9: recorded at 5 µs, before"),
    "after our time": (lambda lines: changed(lines, 8, recorded_us=2**62), "line 9: not an event: Expected `int`"),
    "position 0": (lambda lines: changed(lines, 1, position=0), "line 2: not an event: Expected `int` >= 1"),
    "much too large": (lambda lines: changed(lines, 1, position=2**64), "line 2: not an event"),
}


@pytest.mark.parametrize("how", BAD)
async def test_a_bad_line_is_named_and_nothing_gets_in(data: Path, tmp_path: Path, how: str) -> None:
    await make_log(data)
    spoil, said = BAD[how]
    file = written(tmp_path / "x.jsonl", spoil(parsed(exported(data))))
    assert said in refused("import", file, "--data", tmp_path / "new")
    assert not (tmp_path / "new").exists() or names(tmp_path / "new") == {"lock"}


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda content: content[:-30], "line 9: not an event: Input data was truncated"),
        (lambda _: b"", "line 1: not the header"),
        (lambda content: content.replace(b"\n", b"\n\n", 3), "line 2: not an event"),
        (lambda content: content.replace(b'{"position":4', b'{"position":4]', 1), "line 5: not an event"),
        (lambda content: content.replace(b"/acme/", b"/\xff\xfe/", 1), "line 5: not an event: 'utf-8' codec"),
        (lambda content: content.replace(b"/acme/", b"/\\ud800/", 1), "line 5: not an event: JSON is malformed"),
        (lambda content: content.replace(b'"event":{', b'"event":' + b"[" * 100_000, 1), "line 2: not an event"),
        (lambda content: gzip.compress(content)[:-9], "compression is damaged or cut short"),
        (lambda content: gzip.compress(content)[:200] + bytes(300), "compression is damaged or cut short"),
        (lambda content: b"\xef\xbb\xbf" + content, "line 1: not the header"),
        (lambda _: b"[" * 999, "line 1: not the header"),
        (lambda _: b"[" * 100_000, "line 1: longer than 1000 bytes"),
    ],
)
async def test_a_spoilt_file_is_refused_with_what_is_wrong(
    data: Path, tmp_path: Path, spoil: Callable[[bytes], bytes], said: str
) -> None:
    await make_log(data)
    file = tmp_path / "x.jsonl"
    file.write_bytes(spoil(exported(data)))
    assert said in refused("import", file, "--data", tmp_path / "new")
    assert not (tmp_path / "new" / "log.db").exists()


async def test_a_bad_line_leaves_a_log_that_was_continued_as_it_was(data: Path, tmp_path: Path) -> None:
    await make_log(data)
    copy = tmp_path / "copy"
    (tmp_path / "x.jsonl").write_bytes(exported(data, "--until", 4))
    done("import", tmp_path / "x.jsonl", "--data", copy)
    lines = changed(parsed(exported(data, "--after", 4)), 4, version=7)
    assert "line 5" in refused("import", written(tmp_path / "y.jsonl", lines), "--data", copy)
    assert rows(copy / "log.db") == rows(data / "log.db")[:4]
    (tmp_path / "z.jsonl").write_bytes(exported(data, "--after", 4))
    done("import", tmp_path / "z.jsonl", "--data", copy)
    assert exported(copy) == exported(data)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("export",), 1, "there is no log in"),
        (("export", "--after", "-1"), 2, "--after"),
        (("export", "--after", str(2**70)), 2, "--after"),
        (("export", "--until", "yesterday"), 2, "neither a position nor a time"),
        (("export", "--session", "s1", "--after", "1"), 2, "leave --after and --until out"),
        (("export", "--session", "\udcff"), 2, "'\\udcff' is not text"),
        (("export", "-o", "nowhere/x.jsonl"), 1, "there is no directory"),
        (("export", "-o", "/dev/null", "--force"), 1, "/dev/null is not a file"),
        (("import",), 2, "Missing argument"),
        (("import", "a", "b"), 2, "expected one FILE, got 2"),
        (("import", "nowhere.jsonl"), 1, "nowhere.jsonl: No such file"),
        (("import", "/"), 1, "Is a directory"),
    ],
)
def test_what_can_not_be_is_refused_in_a_sentence(
    data: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    assert said in refused(*arguments, "--data", data, status=status)
    assert not data.exists()


async def test_an_export_ends_in_peace_where_its_reader_has_seen_enough(data: Path) -> None:
    text = "much " * 1_000
    await make_log(data, [Append(f"lineage/default/{n}", (session_started(), started("t", text))) for n in range(40)])
    command = [str(turnlog_command()), "export", "--data", str(data)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b'{"turnlog_export"')
        process.stdout.close()
        assert process.stderr.read() == b""


# Hard ends


@pytest.mark.parametrize("first", [0, 4])
async def test_a_kill_in_the_middle_of_an_import_leaves_what_was_there_before(
    data: Path, tmp_path: Path, first: int
) -> None:
    """`first` events are there before: none makes a new log."""
    text = "much " * 2_000
    turns = [Append(f"lineage/default/{n}", (session_started(), started("t", text))) for n in range(100)]
    await make_log(data, [*TWO_TURNS, *turns])
    copy = tmp_path / "copy"
    if first:
        (tmp_path / "x.jsonl").write_bytes(exported(data, "--until", first))
        done("import", tmp_path / "x.jsonl", "--data", copy)
    content = exported(data, "--after", first)
    command = [str(turnlog_command()), "import", "-", "--data", str(copy)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        # What is written has been read, but for what a pipe and a buffer hold: less than the half of this.
        process.stdin.write(content[: len(content) * 3 // 4])
        process.stdin.flush()
        process.kill()
    assert (copy / "log.db").exists() is bool(first)
    if first:
        assert rows(copy / "log.db") == rows(data / "log.db")[:first]
    else:
        assert "log.db.partial" in names(copy)
    (tmp_path / "x.jsonl").write_bytes(content)
    done("import", tmp_path / "x.jsonl", "--data", copy)
    assert exported(copy) == exported(data)
    assert names(copy) == {"lock", "log.db"}


async def test_a_full_disk_is_named_and_leaves_nothing(data: Path, tmp_path: Path) -> None:
    text = "much " * 1_000
    await make_log(data, [Append(f"lineage/default/{n}", (session_started(), started("t", text))) for n in range(60)])
    file = file_of(data, tmp_path)
    for command, gone in (
        (f"export --data {data} -o {tmp_path}/y.jsonl", tmp_path / "y.jsonl"),
        (f"import {file} --data {tmp_path}/new", tmp_path / "new" / "log.db"),
        (f"backup {tmp_path}/z.backup --data {data}", tmp_path / "z.backup"),
    ):
        limited = f"ulimit -f 100; exec {turnlog_command()} {command}"
        ended = await asyncio.to_thread(
            subprocess.run, ["sh", "-c", limited], capture_output=True, text=True, check=False
        )
        assert ended.returncode == 1
        assert gone.name in ended.stderr
        assert "Traceback" not in ended.stderr
        assert not list(gone.parent.glob(gone.name + "*"))
