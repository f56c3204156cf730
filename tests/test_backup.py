"""A backup is the log of one moment in one file, made while the server serves; a restore goes on from it."""

import asyncio
import contextlib
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from eventstore.chain import link
from eventstore.sqlite import LOG_FILE
from tests.support.facts import completed, session_started, started
from tests.support.moving import TWO_TURNS, Append, done, erase, exported, make_log, names, refused, rows
from tests.support.server import Process, Server, serving, turnlog_command
from tests.support.upstream import Upstream

CLIENTS = 8
STALL_S = 5.0
WAIT_S = 30.0
CHECKPOINT = b'{"size":8}\n'


def many(count: int, text: str = "much ") -> list[Append]:
    """So many whole turns, each in a session of its own."""
    return [
        Append(f"lineage/default/n{n}", (session_started(f"n{n}"), started(f"t{n}", text), completed(f"t{n}", text)))
        for n in range(count)
    ]


@pytest.fixture
async def furnished(data: Path) -> Path:
    """A data directory with all that belongs to a log."""
    await make_log(data)
    (data / "keys.json").write_bytes(b"[]")
    (data / "checkpoints.jsonl").write_bytes(CHECKPOINT + b'{"siz')
    (data / "api_key").write_bytes(b"tl_opens_everything\n")
    (data / "audit.key").write_bytes(b"signs everything\n")
    (data / "views.db").write_bytes(b"")
    return data


async def test_a_backup_has_the_log_and_what_belongs_to_it_but_no_secrets(furnished: Path, tmp_path: Path) -> None:
    said = done("backup", tmp_path / "b", "--data", furnished).output
    size = (tmp_path / "b").stat().st_size
    assert said.startswith(f"backed up 8 events to {tmp_path}/b ({size:,} bytes, with ")
    assert rows(tmp_path / "b") == rows(furnished / LOG_FILE)
    assert (tmp_path / "b").stat().st_mode & 0o777 == 0o600
    assert b"everything" not in (tmp_path / "b").read_bytes()
    assert names(tmp_path) == {"b", "data"}
    with sqlite3.connect(f"file:{tmp_path}/b?immutable=1", uri=True) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    database.close()


@pytest.mark.parametrize("secrets", [False, True])
async def test_a_restored_directory_is_as_the_one_that_was_backed_up(
    furnished: Path, tmp_path: Path, secrets: bool
) -> None:
    erase(furnished, [2])
    done("backup", tmp_path / "b", "--data", furnished, *(["--with-keys"] if secrets else []))
    new = tmp_path / "there" / "new"
    restored = done("restore", tmp_path / "b", "--data", new).output
    assert "restored 8 events into" in restored
    assert rows(new / LOG_FILE) == rows(furnished / LOG_FILE)
    assert exported(new) == exported(furnished)
    assert names(new) == {"lock", LOG_FILE, "keys.json", "checkpoints.jsonl"} | (
        {"api_key", "audit.key"} if secrets else set()
    )
    assert ("put audit.key back" in restored) is not secrets
    # A line that was half written as the backup was made is nothing yet.
    assert (new / "checkpoints.jsonl").read_bytes() == CHECKPOINT
    assert new.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in new.iterdir()} == {0o600}
    with sqlite3.connect(new / LOG_FILE) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert database.execute("SELECT count(*) FROM sqlite_schema WHERE type = 'trigger'").fetchone() == (2,)
        assert database.execute("SELECT 1 FROM sqlite_schema WHERE name = 'files'").fetchone() is None
    database.close()


async def test_what_was_erased_is_in_no_free_page_of_a_backup(data: Path, tmp_path: Path) -> None:
    await make_log(data, many(3, "a long secret " * 1_000))
    erase(data, range(1, 10))
    done("backup", tmp_path / "b", "--data", data)
    assert b"a long secret" not in (tmp_path / "b").read_bytes()


async def test_an_empty_log_is_backed_up_and_restored(data: Path, tmp_path: Path) -> None:
    await make_log(data, [])
    assert "backed up 0 events" in done("backup", tmp_path / "b", "--data", data).output
    done("restore", tmp_path / "b", "--data", tmp_path / "new")
    assert rows(tmp_path / "new" / LOG_FILE) == []


async def test_a_log_file_that_was_copied_by_hand_is_restored_like_a_backup(data: Path, tmp_path: Path) -> None:
    await make_log(data)
    done("restore", data / LOG_FILE, "--data", tmp_path / "new")
    assert exported(tmp_path / "new") == exported(data)


# While serving


async def run(*arguments: object) -> tuple[int, str]:
    """Run `turnlog` as a process beside this one; its exit code, and what it said."""
    command = [str(turnlog_command()), *map(str, arguments)]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


class Clients:
    """Clients that take turns, each in a session of its own, until they are told to stop."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.acknowledged: list[tuple[str, str]] = []
        self.slowest_s = 0.0
        self.stopping = False
        self.under_way = asyncio.Event()  # each has taken two turns or so

    async def talk(self, session: str) -> None:
        number = 0
        while not self.stopping:
            number += 1
            text = f"{session} says {number}"
            begun = time.monotonic()
            await self.server.chat(text, session)
            self.slowest_s = max(self.slowest_s, time.monotonic() - begun)
            self.acknowledged.append((session, text))
            if len(self.acknowledged) == 2 * CLIENTS:
                self.under_way.set()


@contextlib.asynccontextmanager
async def talking(server: Server) -> AsyncIterator[Clients]:
    """Clients that are at it while the body runs."""
    clients = Clients(server)
    async with asyncio.TaskGroup() as tasks:
        for number in range(CLIENTS):
            tasks.create_task(clients.talk(f"client-{number}"))
        try:
            await clients.under_way.wait()
            yield clients
        finally:
            clients.stopping = True


async def test_a_backup_under_load_has_every_turn_that_was_acknowledged_before_and_stalls_none(
    data: Path, tmp_path: Path, upstream: Upstream
) -> None:
    await make_log(data, many(1_000))
    async with serving(data, upstream=upstream.url) as server, talking(server) as clients:
        before = list(clients.acknowledged)
        status, said = await run("backup", tmp_path / "b", "--data", data)
        assert status == 0, said
        meanwhile = len(clients.acknowledged) - len(before)
        done("restore", tmp_path / "b", "--data", tmp_path / "new")
    assert meanwhile > CLIENTS
    assert clients.slowest_s < STALL_S
    original, copy = rows(data / LOG_FILE), rows(tmp_path / "b")
    assert copy == original[: len(copy)]
    async with serving(tmp_path / "new", upstream=upstream.url) as server:
        for session in {session for session, _ in before}:
            said_in_it = [message["content"] for message in await server.messages(session)]
            assert {text for name, text in before if name == session} <= set(said_in_it)


async def test_a_restored_session_goes_on_by_slug_session_and_response(
    data: Path, tmp_path: Path, upstream: Upstream
) -> None:
    async with serving(data, upstream=upstream.url) as server:
        await server.openai.responses.create(model="m", input="by slug", conversation="slug")
        response = await server.openai.responses.create(model="m", input="by response")
        await server.chat("by session", "s1")
        done("backup", tmp_path / "b", "--data", data)
        assert "in use by process" in refused("restore", tmp_path / "b", "--data", data, "--force")
        done("restore", tmp_path / "b", "--data", tmp_path / "new")
        await server.chat("said where it was", "s1")
    async with serving(tmp_path / "new", upstream=upstream.url) as server:
        await server.openai.responses.create(model="m", input="on", conversation="slug")
        await server.openai.responses.create(model="m", input="on", previous_response_id=response.id)
        await server.chat("on", "s1")
        asked = [[message["content"] for message in messages][0::2] for messages in upstream.messages[-3:]]
        assert asked == [["by slug", "on"], ["by response", "on"], ["by session", "on"]]


async def test_a_backup_of_what_a_killed_server_has_left_is_whole(
    data: Path, tmp_path: Path, start: Callable[..., Awaitable[Process]]
) -> None:
    process = await start()
    await process.server.chat("one", "s1")
    await process.kill9()
    done("backup", tmp_path / "b", "--data", data)
    done("restore", tmp_path / "b", "--data", tmp_path / "new")
    assert len(rows(tmp_path / "new" / LOG_FILE)) == 3


# What is in the way


async def test_a_backup_replaces_nothing_unless_it_is_told_to(data: Path, tmp_path: Path) -> None:
    await make_log(data)
    (tmp_path / "b").write_text("mine")
    assert "--force" in refused("backup", tmp_path / "b", "--data", data)
    assert (tmp_path / "b").read_text() == "mine"
    done("backup", tmp_path / "b", "--data", data, "--force")
    assert len(rows(tmp_path / "b")) == 8
    for name in (LOG_FILE, "views.db", "b"):
        assert "in the data directory" in refused("backup", data / name, "--data", data, "--force")


async def test_a_restore_replaces_nothing_and_names_what_is_there(furnished: Path, tmp_path: Path) -> None:
    done("backup", tmp_path / "b", "--data", furnished)
    new = tmp_path / "new"
    await make_log(new, TWO_TURNS[:1])
    (new / "checkpoints.jsonl").write_bytes(b"{}\n")
    (new / "keys.json").write_bytes(b"[]")
    before = exported(new)
    said = refused("restore", tmp_path / "b", "--data", new)
    assert "holds log.db" in said
    assert "checkpoints.jsonl" in said
    assert "keys.json" not in said  # the same in both
    assert exported(new) == before
    assert "replaced-1" in done("restore", tmp_path / "b", "--data", new, "--force").output
    assert exported(new / "replaced-1") == before
    assert (new / "replaced-1" / "checkpoints.jsonl").read_bytes() == b"{}\n"
    assert exported(new) == exported(furnished)
    assert "replaced-2" in done("restore", tmp_path / "b", "--data", new, "--force").output
    assert exported(new / "replaced-2") == exported(new) == exported(furnished)


async def test_a_restored_log_is_never_read_with_the_write_ahead_file_of_another(
    data: Path, tmp_path: Path, start: Callable[..., Awaitable[Process]]
) -> None:
    await make_log(tmp_path / "old")
    done("backup", tmp_path / "b", "--data", tmp_path / "old")
    process = await start()
    await process.server.chat("one", "s1")
    await process.kill9()
    assert (data / "log.db-wal").stat().st_size
    done("restore", tmp_path / "b", "--data", data, "--force")
    assert exported(data) == exported(tmp_path / "old")
    assert len(rows(data / "replaced-1" / LOG_FILE)) == 3


# What is damaged


@contextlib.contextmanager
def altered(path: Path) -> Iterator[sqlite3.Connection]:
    """The log's file, for somebody who does not keep to its rules."""
    with sqlite3.connect(path) as database:
        database.execute("DROP TRIGGER events_are_never_updated")
        database.execute("DROP TRIGGER events_are_never_deleted")
        yield database
    database.close()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("UPDATE events SET recorded_us = 1 WHERE position = 5", "damaged at position 5"),
        ("UPDATE events SET version = 9 WHERE position = 5", "damaged at position 5"),
        ("UPDATE events SET data = 'text' WHERE position = 3", "damaged at position 3"),
        ("UPDATE events SET stream = CAST(x'ff' AS TEXT) WHERE position = 3", "damaged at position 3"),
        ("DELETE FROM events WHERE position = 4", "damaged at position 4"),
        ("PRAGMA user_version = 7", "format 7; this turnlog reads format 1"),
        ("PRAGMA application_id = 7", "is no log"),
    ],
)
async def test_damage_is_named_by_backup_and_by_restore(data: Path, tmp_path: Path, change: str, said: str) -> None:
    await make_log(data)
    done("backup", tmp_path / "b", "--data", data)
    for path in (data / LOG_FILE, tmp_path / "b"):
        with altered(path) as database:
            database.execute(change)
    assert said in refused("backup", tmp_path / "c", "--data", data)
    assert said in refused("restore", tmp_path / "b", "--data", tmp_path / "new")
    assert names(tmp_path) <= {"b", "data", "new"}
    assert not (tmp_path / "new").exists() or names(tmp_path / "new") == {"lock"}


async def test_a_backup_that_was_cut_short_or_is_none_is_refused(furnished: Path, tmp_path: Path) -> None:
    await make_log(furnished, many(100))
    backup = tmp_path / "b"
    done("backup", backup, "--data", furnished)
    whole = backup.read_bytes()
    (tmp_path / "x.jsonl").write_bytes(exported(furnished))
    for content, said in (
        (whole[: len(whole) // 2], "malformed"),
        (whole[:4096], "malformed"),
        (b"", "is no log"),
        ((tmp_path / "x.jsonl").read_bytes(), "not a database"),
    ):
        backup.write_bytes(content)
        assert said in refused("restore", backup, "--data", tmp_path / "new")
    backup.write_bytes(whole)
    with sqlite3.connect(backup) as database:
        database.execute("INSERT INTO files VALUES ('../../etc/passwd', 0, x'00')")
    database.close()
    assert "does not know: ../../etc/passwd" in refused("restore", backup, "--data", tmp_path / "new")
    assert not (tmp_path / "new" / LOG_FILE).exists()


async def test_a_newer_turnlogs_log_is_backed_up_but_not_restored_by_this_one(data: Path, tmp_path: Path) -> None:
    await make_log(data)
    with altered(data / LOG_FILE) as database:
        _add_newer(database)
    done("backup", tmp_path / "b", "--data", data)
    said = refused("restore", tmp_path / "b", "--data", tmp_path / "new")
    assert "position 9 can not be read: unknown event type 'TurnPraised'" in said


def _add_newer(database: sqlite3.Connection) -> None:
    (previous,) = database.execute("SELECT hash FROM events WHERE position = 8").fetchone()
    content = bytes(16) + b"\x81\xa4type\xabTurnPraised"
    row = (9, "praise/default/x", 1, "TurnPraised", 2**52)
    database.execute("INSERT INTO events VALUES (?,?,?,?,?,?,?)", (*row, content, link(previous, *row, content)))


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("backup", "b"), 1, "there is no log in"),
        (("backup",), 2, "Missing argument"),
        (("backup", "/"), 2, "is a directory"),
        (("backup", "/dev/null", "--force"), 1, "/dev/null is not a file"),
        (("backup", "nowhere/b"), 1, "there is no directory"),
        (("restore", "nowhere"), 2, "does not exist"),
        (("restore", "/"), 2, "is a directory"),
        (("restore", "/dev/null"), 1, "can not be restored"),
    ],
)
def test_what_can_not_be_is_refused_in_a_sentence(
    data: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    assert said in refused(*arguments, "--data", data, status=status)
    assert not data.exists()


def test_a_data_directory_that_can_not_be_made_is_said_so(tmp_path: Path) -> None:
    asyncio.run(make_log(tmp_path / "d"))
    done("backup", tmp_path / "b", "--data", tmp_path / "d")
    (tmp_path / "file").write_text("")
    assert "can not make the data directory" in refused("restore", tmp_path / "b", "--data", tmp_path / "file" / "d")


# Hard ends


@pytest.mark.parametrize("command", ["backup", "restore"])
async def test_a_kill_leaves_all_or_nothing_and_the_next_try_succeeds(data: Path, tmp_path: Path, command: str) -> None:
    await make_log(data, many(500))
    done("backup", tmp_path / "b", "--data", data)
    target, arguments = {
        "backup": (tmp_path / "c", ("backup", tmp_path / "c", "--data", data)),
        "restore": (tmp_path / "new" / LOG_FILE, ("restore", tmp_path / "b", "--data", tmp_path / "new")),
    }[command]
    partial = target.with_name(target.name + ".partial")
    with subprocess.Popen([str(turnlog_command()), *map(str, arguments)]) as process:
        deadline = time.monotonic() + WAIT_S
        while not partial.exists() and process.poll() is None:
            assert time.monotonic() < deadline
        process.kill()
    if target.exists():
        assert rows(target) == rows(data / LOG_FILE)
        target.unlink()
    done(*arguments)
    assert rows(target) == rows(data / LOG_FILE)
    assert not partial.exists()


async def test_what_a_kill_has_left_of_a_restore_is_gone_with_the_next_start(data: Path) -> None:
    data.mkdir()
    (data / "log.db.partial").write_bytes(b"a secret")
    await make_log(data, [])
    assert names(data) == {"lock", LOG_FILE}
