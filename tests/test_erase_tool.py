"""`turnlog erase`, and every door of erasing with bad input."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from eventstore.events import SessionErased
from eventstore.sqlite import SqliteLog
from tests.support.api import call
from tests.support.facts import completed, session_started, started
from tests.support.server import Process, Server, serving
from tests.test_crash import recorded
from tools.cli import main

STREAM = "lineage/default/s1"


def turnlog(*arguments: str, answer: str = "") -> Result:
    return CliRunner().invoke(main, arguments, input=answer)


def erase(data: Path, *arguments: str, answer: str = "") -> Result:
    return turnlog("erase", "--data", str(data), *arguments, answer=answer)


@pytest.fixture
def made(data: Path) -> Path:
    """A data directory with one session."""

    async def make() -> None:
        log = await SqliteLog.open(data)
        await log.append(STREAM, 0, (session_started(title="Zqtitle"), started("t1", "Zqsaid"), completed("t1")))
        await log.append("lineage/acme/s1", 0, (session_started(title="of acme"),))
        await log.close()

    asyncio.run(make())
    return data


def holds(data: Path) -> bool:
    return any(b"Zq" in file.read_bytes() for file in data.iterdir())


def test_it_lists_what_is_meant_asks_erases_and_says_so(made: Path) -> None:
    asked = erase(made, "--session", "s1", "--why", "law", "--by", "Ada", answer="y\n")
    assert asked.exit_code == 0, asked.output
    assert "session s1 'Zqtitle': 3 events" in asked.stderr
    assert "Erase all of this for good? [y/N]" in asked.stderr
    assert asked.stdout == f"erased s1: 3 events\n3 events are erased: nothing of them is left in {made}\n"
    assert not holds(made)
    (*_, last) = asyncio.run(recorded(made))
    assert last.event == SessionErased(ranges=((1, 3),), by="Ada", why="law")
    verified = turnlog("replay", "--verify", "--data", str(made))
    assert verified.exit_code == 0, verified.output
    shown = turnlog("audit", "show", "s1", "--data", str(made))
    assert "SessionErased" in shown.output
    assert "by=Ada" in shown.output
    assert turnlog("audit", "show", "s1", "--json", "--data", str(made)).exit_code == 0


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_nothing_is_erased_without_a_yes(made: Path, answer: str) -> None:
    refused = erase(made, "--session", "s1", "--why", "law", answer=answer)
    assert refused.exit_code == 1
    assert "Aborted" in refused.output
    assert holds(made)


def test_another_tenants_session_is_left_alone(made: Path) -> None:
    assert erase(made, "--session", "s1", "--why", "law", "--tenant", "acme", "--yes").exit_code == 0
    assert holds(made)


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        ((), "Missing option '--why'", 2),
        (("--why", "law"), "exactly one of --session", 2),
        (("--why", "law", "--session", "s1", "--user", "u"), "exactly one of --session", 2),
        (("--why", "", "--session", "s1"), "expected 1 to 256 characters", 2),
        (("--why", "law", "--session", " "), "expected 1 to 256 characters", 2),
        (("--why", "law", "--session", "x" * 257), "expected 1 to 256 characters", 2),
        (("--why", "law", "--session", "a\nb"), "expected 1 to 256 characters", 2),
        (("--why", "law", "--session", "s\udcff"), "expected 1 to 256 characters", 2),
        (("--why", "law", "--session", "s1", "--by", ""), "expected 1 to 256 characters", 2),
        (("--why", "law", "--session", "never"), "Nothing to erase: no content of session 'never'", 1),
        (("--why", "law", "--session-key", "never"), "Nothing to erase: no content of session key 'never'", 1),
        (("--why", "law", "--session", "s1", "--tenant", "never"), "Nothing to erase", 1),
        (("--why", "law", "--session", "s1", "extra"), "unexpected extra argument", 2),
    ],
)
def test_bad_input_is_told_in_a_sentence(made: Path, arguments: tuple[str, ...], said: str, code: int) -> None:
    refused = erase(made, "--yes", *arguments)
    assert refused.exit_code == code, refused.output
    assert said in refused.output
    assert isinstance(refused.exception, SystemExit)
    assert holds(made)


def test_without_a_log_none_is_made(data: Path) -> None:
    refused = erase(data, "--session", "s1", "--why", "law")
    assert refused.exit_code == 1
    assert "there is no log in" in refused.output
    assert not data.exists()


def test_a_damaged_log_is_told(made: Path) -> None:
    (made / "log.db").write_bytes(b"no database" * 500)
    refused = erase(made, "--session", "s1", "--why", "law", "--yes")
    assert refused.exit_code == 1
    assert "the log" in refused.output
    assert isinstance(refused.exception, SystemExit)


async def test_where_a_server_runs_it_says_what_to_ask_that_for(
    data: Path, start: Callable[..., Awaitable[Process]]
) -> None:
    process = await start()
    await process.server.chat("Zqsaid", "s1")
    refused = await asyncio.to_thread(erase, data, "--session", "s1", "--why", "law", "--yes")
    assert refused.exit_code == 1
    assert f"in use by process {process.popen.pid}" in refused.output
    assert """POST /api/erasures {"session": "…", "why": "…"}""" in refused.output
    assert holds(data)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "session"),
        ({"why": "law"}, "session"),
        ({"session": "", "why": "law"}, "session"),
        ({"session": "s1", "user": "u"}, "session"),
        ({"session": 5}, "session"),
        ({"user": "x" * 257}, "user"),
        ({"session_key": "a\nb"}, "session_key"),
        ({"conversation": "c", "why": "x" * 257}, "why"),
        ({"conversation": "c", "why": "a\x00b"}, "why"),
        ([], None),
        ("s1", None),
        (None, None),
    ],
)
async def test_a_bad_order_is_refused(server: Server, body: Any, param: str | None) -> None:
    error = await call(server, "POST", "/api/erasures", 400, json=body)
    assert error["param"] == param


async def test_a_bad_order_in_a_path_is_refused(server: Server) -> None:
    await server.chat("hello", "s1")
    for query, param in (
        ("erase=maybe", "erase"),
        ("erase=true&why=a%00b", "why"),
        (f"erase=1&why={'x' * 257}", "why"),
    ):
        error = await call(server, "DELETE", f"/api/sessions/s1?{query}", 400)
        assert (error["param"], error["code"]) == (param, "invalid_value")
    await call(server, "POST", "/api/erasures", 400, data=b"{")
    await call(server, "POST", "/api/erasures", 404, json={"session": "never"})
    assert await server.messages("s1")


async def test_no_key_no_erasure(data: Path) -> None:
    async with serving(data) as server:
        await server.chat("Zqsaid", "s1")
        bad = {"authorization": "Bearer wrong"}
        await call(server, "POST", "/api/erasures", 401, json={"session": "s1"}, headers=bad)
        await call(server, "DELETE", "/api/sessions/s1?erase=true", 401, headers=bad)
        assert await server.messages("s1")
