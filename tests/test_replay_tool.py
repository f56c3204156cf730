"""`turnlog replay`: beside a running server, into a file, and compared with the live views."""

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner

from eventstore.purge import MARKER_FILE
from projections.runner import VIEWS_FILE
from projections.views import VIEWS
from tests.support.server import Process, Server, serving, turnlog_command
from tools.cli import main

EXPECTED = [
    "sessions: 1 row differs of 2:",
    "  - sessions: tenant='default' root_id='s1' superseded=0 title='x' turns=7",
    "  + sessions: tenant='default' root_id='s1' superseded=0 title='Fruit' turns=1",
    "tips: 1 row differs of 2:",
    "  + tips: tenant='default' session_id='s0' root_id='s0' tip_id='s0'",
    "conversations: 1 row differs of 1:",
    (
        "  - conversations: tenant='default' name='slug' root_id='s9' turn_id=None created_us=1 updated_us=2 "
        "position=1 metadata='{}'"
    ),
    "passages: 2 rows differ of 33:",
    "  - passage_lineages: id=1 tip_id='other'",
    "  + passage_lineages: id=1 tip_id='s0'",
    "  - passages_fts: term='pears' doc=99",
    (
        "Error: 5 rows differ as of position 11 (- as the live views have them, + as the log gives them): "
        "run 'turnlog replay'"
    ),
]


async def verify(data: Path, *arguments: str) -> tuple[int, str]:
    """`turnlog replay --verify`."""
    return await in_process(data, "--verify", *arguments)


async def in_process(data: Path, *arguments: str) -> tuple[int, str]:
    """What `replay` tells, without a process of its own."""
    done = await asyncio.to_thread(CliRunner().invoke, main, ["replay", "--data", str(data), *arguments])
    return done.exit_code, done.output


async def replay(data: Path, *arguments: str) -> tuple[int, str]:
    """The exit code, and all that is printed."""
    command = [str(turnlog_command()), "replay", "--data", str(data), *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said = (await process.communicate())[0].decode()
    assert "Traceback" not in said
    assert process.returncode is not None
    return process.returncode, said


async def some_turns(server: Server) -> None:
    for number in range(3):
        await server.chat(f"apples {number}", f"s{number}")
    async with server.http.patch("/api/sessions/s1", json={"title": "Fruit"}) as response:
        assert response.status == 200
    async with server.http.delete("/api/sessions/s2") as response:
        assert response.status == 200
    await server.get("/api/sessions")


def tamper(data: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(data / VIEWS_FILE, isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement)


async def test_a_running_server_switches_over_to_what_the_tool_has_rebuilt(data: Path) -> None:
    async with serving(data) as server:
        await some_turns(server)
        tamper(data, "UPDATE sessions SET title = 'Vegetables'")
        assert (await server.get("/api/sessions/s1"))["session"]["title"] == "Vegetables"
        inode = (data / VIEWS_FILE).stat().st_ino
        code, said = await replay(data)
        assert code == 0, said
        assert "up to position 11; the running server has switched over" in said
        assert (await server.get("/api/sessions/s1"))["session"]["title"] == "Fruit"
        assert (data / VIEWS_FILE).stat().st_ino != inode
        assert {path.name for path in data.glob("views*")} <= {"views.db", "views.db-wal", "views.db-shm"}
        await server.chat("more", "s1")
        assert (await verify(data))[0] == 0


async def test_turns_read_their_own_writes_while_tools_hand_over(data: Path) -> None:
    async with serving(data) as server:
        done = asyncio.Event()

        async def client(number: int) -> None:
            while not done.is_set():
                answer, session = await server.chat(f"hello {number}")
                listed = await server.get(f"/api/sessions/{session}")
                assert listed["session"]["message_count"] == 2, (answer, listed)
                assert len(await server.messages(session)) == 2

        clients = [asyncio.create_task(client(number)) for number in range(3)]
        codes = [await replay(data) for _ in range(2)]
        done.set()
        await asyncio.gather(*clients)
        assert [code for code, _ in codes] == [0, 0], codes
        assert (await verify(data))[0] == 0


async def test_a_server_that_is_killed_in_a_hand_over_starts_with_whole_views(data: Path) -> None:
    process = await Process.start(data)
    await some_turns(process.server)
    for seen in ("views.next.db.*", "views.next.db"):
        replaying = asyncio.create_task(in_process(data))
        while not (any(data.glob(seen)) or replaying.done()):  # noqa: ASYNC110 (a file has no event)
            await asyncio.sleep(0.001)
        await process.kill9()
        await replaying
        process = await Process.start(data)
        assert (await process.server.get("/api/sessions/s1"))["session"]["title"] == "Fruit"
    assert (await verify(data))[0] == 0
    await process.terminate()
    assert {path.name for path in data.glob("views*")} == {VIEWS_FILE}


async def test_verify_shows_exactly_the_rows_that_were_changed(data: Path) -> None:
    async with serving(data) as server:
        await some_turns(server)
    code, said = await verify(data)
    assert (code, "live and rebuilt are equal as of position 11" in said) == (0, True)
    assert [line.split(":")[0] for line in said.splitlines()[:-1]] == [view.name for view in VIEWS]
    tamper(
        data,
        "UPDATE sessions SET turns = 7, title = 'x' WHERE root_id = 's1'",
        "DELETE FROM tips WHERE session_id = 's0'",
        "INSERT INTO conversations VALUES ('default', 'slug', 's9', NULL, 1, 2, 1, '{}')",
        "UPDATE passage_lineages SET tip_id = 'other' WHERE root_id = 's0'",
        "INSERT INTO passages_fts (rowid, said) VALUES (99, 'pears')",
    )
    code, said = await verify(data)
    assert code == 1
    lines = [line for line in said.splitlines() if not line.endswith("equal")]
    assert lines == EXPECTED


async def test_one_view_is_compared_where_one_is_asked_for(data: Path) -> None:
    async with serving(data) as server:
        await some_turns(server)
    tamper(data, "UPDATE sessions SET turns = 7")
    assert (await verify(data, "--view", "tips"))[0] == 0
    assert (await verify(data, "--view", "sessions", "--view", "tips"))[0] == 1


async def test_of_many_rows_that_differ_the_first_are_shown(data: Path) -> None:
    async with serving(data) as server:
        await server.chat("hello", "s1")
        await server.get("/api/sessions")
    rows = ", ".join(f"('default', 'x{n:02}', 'x', 'x')" for n in range(50))
    tamper(data, f"INSERT INTO tips VALUES {rows}")
    code, said = await verify(data, "--view", "tips")
    assert code == 1
    assert "tips: 50 rows differ of 51:" in said
    assert said.count("\n  - ") == 20
    assert "  and 30 more" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--into", "{data}"), "is a directory"),
        (("--into", "{data}/log.db"), "exists: name a file that does not"),
        (("--into", "{data}/views.db"), "where a server keeps its own views"),
        (("--into", "{data}/views.next.db"), "where a server keeps its own views"),
        (("--into", "{data}/no/such/x.db"), "there is no directory"),
        (("--view", "tips"), "--view is about --verify"),
        (("--verify", "--view", "nothing"), "'nothing' is not one of"),
        (("--verify", "--into", "x.db"), "leave --into out"),
    ],
)
def test_bad_input_is_told_in_a_sentence(data: Path, arguments: tuple[str, ...], said: str) -> None:
    data.mkdir()
    (data / "log.db").touch()
    asked = ["replay", "--data", str(data), *(argument.format(data=data) for argument in arguments)]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())


async def test_views_that_are_about_to_lose_what_was_erased_are_not_called_wrong(data: Path) -> None:
    async with serving(data) as server:
        await some_turns(server)
    tamper(data, "UPDATE sessions SET title = 'Vegetables'")
    (data / MARKER_FILE).touch()
    code, said = await verify(data)
    assert (code, said.count("\n")) == (1, 1)
    assert "something is being erased: run this again" in said
    (data / MARKER_FILE).unlink()
    assert "run 'turnlog replay'" in (await verify(data))[1]
