"""`turnlog audit verify` as auditors use it: beside a server, from a remembered point, with their key, on bad input."""

import asyncio
import json
import os
import signal
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from eventstore.chain import GENESIS
from eventstore.events import SessionRenamed
from eventstore.proofs.checkpoint import CHECKPOINTS_FILE
from eventstore.sqlite import SqliteLog
from eventstore.verifying import verification
from eventstore.verifying.verification import Whole, verify
from eventstore.verifying.vouched import filed
from eventstore.verifying.workers import Crew, Worker
from tests.support.server import Process, Server
from tests.support.tampering import (
    KEPT,
    chained,
    make_log,
    rewrite,
    rows,
    sign,
    tampering,
    with_column,
)
from tests.test_tools import turnlog
from tools.bench.generate import make_log as make_large_log
from tools.cli import main

VERIFY = ("audit", "verify", "--data", "data")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(*arguments: str) -> Result:
    """Run a command in this process, which spares the test a start of one."""
    result = CliRunner().invoke(main, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


async def _append(data: Path, events: int) -> None:
    log = await SqliteLog.open(data)
    for number in range(events):
        await log.append(KEPT, 6 + number, (SessionRenamed(title=str(number)),))
    await log.close()


async def test_a_whole_log_is_told_in_one_sentence(data: Path) -> None:
    await make_log(data)
    done = run(*VERIFY)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith(
        "12 events are whole: positions 1 to 12, 3 streams, 4 erased by 1 erasure, no checkpoints; "
    )
    key = sign(data, 5, 12)
    said = run(*VERIFY).stdout
    assert f"2 checkpoints signed by {key.name}+{key.id.hex()}, the key in data; the last covers position 12; " in said
    said = run(*VERIFY, "--key", str(key)).stdout
    assert f"2 checkpoints signed by {key.name}+{key.id.hex()}, the key given; the last covers position 12; " in said


async def test_damage_is_told_by_its_position_and_the_exit_code_is_1(tmp_path: Path, data: Path) -> None:
    await make_log(data)
    with tampering(data) as database:
        database.execute("UPDATE events SET recorded_us = recorded_us + 1 WHERE position = 5")
    database = sqlite3.connect(data / "log.db")
    database.execute("DROP TRIGGER events_are_never_deleted")
    database.close()
    done = turnlog(*VERIFY, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    one, two = done.stderr.splitlines()
    assert one.startswith("Error: the log is damaged at position 5: it does not follow from the event before it")
    assert two.startswith("also: the log is damaged: the trigger events_are_never_deleted is missing")


async def test_another_key_is_not_believed(tmp_path: Path, data: Path) -> None:
    await make_log(data)
    sign(data, 12)
    theirs = sign(tmp_path / "data", 12, key_file="their.key")
    done = run(*VERIFY, "--key", str(theirs))
    assert done.exit_code == 1
    assert "line 1 of checkpoints.jsonl is not believed" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("--data", "nowhere"), 1, "there is no log in nowhere: expected nowhere/log.db"),
        (("--data", "file"), 2, "is a file"),
        (("--data", "text"), 1, "file is not a database"),
        (("--data", "newer"), 1, "the log has format 2; this turnlog reads format 1"),
        (("--data", "directory"), 1, "can not be read: it is not a file"),
        (("--key", "nonsense"), 2, "expected what 'turnlog audit key' prints"),
        (("--remember", "text"), 2, "is a directory"),
        (("--remember", "file"), 1, "file is not what --remember writes"),
        (("--remember", "no/where.json"), 1, "can not be written"),
        (("--data", "keyless"), 1, "there is no audit key at keyless/audit.key"),
    ],
)
async def test_bad_input_is_told_in_a_sentence(
    tmp_path: Path, data: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    await make_log(data)
    for name in ("text", "directory", "keyless"):
        (tmp_path / name).mkdir()
    (tmp_path / "file").write_text("[]")
    (tmp_path / "text" / "log.db").write_text("not a database, " * 100)
    (tmp_path / "directory" / "log.db").mkdir()
    (tmp_path / "keyless" / "log.db").write_bytes((data / "log.db").read_bytes())
    (tmp_path / "keyless" / CHECKPOINTS_FILE).write_text("{}\n")
    await make_log(tmp_path / "newer")
    newer = sqlite3.connect(tmp_path / "newer" / "log.db")
    newer.execute("PRAGMA user_version = 2")
    newer.close()
    given = arguments if "--data" in arguments else ("--data", "data", *arguments)
    done = run("audit", "verify", *given)
    assert done.exit_code == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


async def test_an_empty_log_is_whole(data: Path) -> None:
    await (await SqliteLog.open(data)).close()
    done = run(*VERIFY)
    assert done.stdout.startswith("the log is empty, 0 streams, no checkpoints; ")


async def test_it_goes_on_from_what_it_remembers(tmp_path: Path, data: Path) -> None:
    await make_log(data)
    sign(data, 7)
    remember = (*VERIFY, "--remember", "seen.json")
    assert "12 events are whole: positions 1 to 12, " in run(*remember).stdout
    assert "nothing is new behind position 12, " in run(*remember).stdout
    await _append(data, 3)
    sign(data, 14)
    said = run(*remember).stdout
    assert "3 events are whole: positions 13 to 15, behind what was whole before; in all 15 events, 3 streams" in said
    assert "4 erased by 1 erasure, 2 checkpoints signed by" in said
    assert "the last covers position 14" in said
    assert json.loads((tmp_path / "seen.json").read_bytes())["position"] == 15


async def test_what_was_altered_behind_the_remembered_point_is_found(data: Path) -> None:
    await make_log(data)
    before = verify(data, is_tree_wanted=True).whole
    await _append(data, 3)
    new = rows(data)
    for position in (13, 14):
        rewrite(data, [with_column(row, 4, row[4] + 1) if row[0] == position else row for row in new])
        assert verify(data, before=before).findings[0].position == position
    rewrite(data, chained(new[:13], [with_column(new[13], 5, bytes(16) + new[13][5][16:]), new[14]]))
    assert verify(data, before=before).findings == []  # all hashes anew, and nothing signed: nobody can see it


async def test_a_log_that_is_not_the_one_remembered_is_told(data: Path) -> None:
    await make_log(data)
    before = verify(data, is_tree_wanted=True).whole
    whole = rows(data)
    rewrite(data, whole[:10])
    cut = verify(data, before=before).findings[0]
    assert (cut.position, "the log ends at position 10, and was whole up to 12" in cut.reason) == (11, True)
    rewrite(data, chained(whole[:4], [with_column(whole[4], 5, bytes(16) + whole[4][5][16:]), *whole[5:]]))
    rewritten = verify(data, before=before).findings[0]
    assert (rewritten.position, "the log was rewritten there or before" in rewritten.reason) == (12, True)


async def test_what_is_remembered_at_any_point_makes_the_same_tree(data: Path) -> None:
    await make_log(data)
    await _append(data, 600)
    whole = verify(data, is_tree_wanted=True).whole
    complete = rows(data)
    for position in (0, 1, 255, 256, 257, whole.position):
        rewrite(data, complete[:position])
        part = verify(data, is_tree_wanted=True).whole if position else Whole(hash=GENESIS)
        rewrite(data, complete)
        after = verify(data, before=part, is_tree_wanted=True)
        assert (after.findings[:1], after.whole.peaks) == ([], whole.peaks)


async def test_an_altered_memory_is_refused(tmp_path: Path, data: Path) -> None:
    await make_log(data)
    remember = (*VERIFY, "--remember", "seen.json")
    run(*remember)
    seen = tmp_path / "seen.json"
    content = json.loads(seen.read_bytes())
    changes: list[dict[str, object]] = [
        {"position": 11},
        {"peaks": []},
        {"hash": "AAAA"},
        {"peaks": [[12, content["hash"]]]},
        {"type": "x"},
    ]
    for change in changes:
        seen.write_text(json.dumps(content | change))
        done = run(*remember)
        assert (done.exit_code, "is not what --remember writes" in done.stderr) == (1, True)


@pytest.fixture
def large(data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log of many stretches."""
    monkeypatch.setattr(verification, "STRETCH_POSITIONS", 256)
    make_large_log(data, 5_000)
    sign(data, 1_000, 3_333, 5_000)
    return data


def test_workers_find_what_one_process_finds(large: Path) -> None:
    key = sign(large)
    signed = filed(large, key).checkpoints
    alone, together = (verify(large, signed, workers=workers) for workers in (0, 2))
    assert alone.findings == together.findings == []
    assert alone.whole == together.whole
    assert [checkpoint.size for checkpoint in together.checkpoints] == [1_000, 3_333, 5_000]
    with tampering(large) as database:
        database.execute("UPDATE events SET recorded_us = recorded_us + 1 WHERE position IN (700, 4000)")
    assert verify(large, signed, workers=2).findings == verify(large, signed, workers=0).findings
    assert verify(large, signed, workers=2).findings[0].position == 700


def test_the_work_of_a_worker_that_died_is_done_by_the_others(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = Worker.__init__
    started_: list[Worker] = []

    def doomed(self: Worker, directory: Path) -> None:
        start(self, directory)
        started_.append(self)
        os.kill(self._process.pid, signal.SIGKILL)

    monkeypatch.setattr(Worker, "__init__", doomed)
    assert verify(large, workers=2).findings == []
    assert len(started_) == 2
    assert all(worker._process.returncode == -signal.SIGKILL for worker in started_)


def test_no_worker_outlives_whoever_started_it(large: Path) -> None:
    with Crew(large, 2) as crew:
        processes = [worker._process for worker in crew._workers]
        assert next(crew.check(verification._tasks(1, 5_000, False, True))).finding is None
    assert all(process.returncode is not None for process in processes)


async def test_it_runs_beside_a_server_that_takes_turns(start: Callable[..., Awaitable[Process]]) -> None:
    process = await start("--checkpoint-every-s", "0.05")
    over = asyncio.Event()

    async def talk(server: Server, session: str) -> int:
        turns = 0
        while not over.is_set():
            await server.chat("hello", session)
            turns += 1
        return turns

    talking = [asyncio.create_task(talk(process.server, f"s{number}")) for number in range(4)]
    for _ in range(2):
        done = await asyncio.to_thread(run, *VERIFY, "--remember", "seen.json")
        assert done.exit_code == 0, done.stderr
    over.set()
    assert min(await asyncio.gather(*talking)) > 0
    await process.terminate()
    done = run(*VERIFY)
    assert done.exit_code == 0, done.stderr
    assert "checkpoint" in done.stdout


async def test_an_erasure_in_front_of_its_eyes_is_no_damage(data: Path) -> None:
    """The rows are erased once they are told of the head: the fact is behind it."""
    await make_log(data)
    complete = rows(data)
    rewrite(data, complete[:8])
    head = rows(data)[-1][0]

    def erase(_position: int, _head: int) -> None:
        rewrite(data, complete)

    found = verify(data, progress=erase)
    assert (head, found.findings) == (8, [])
