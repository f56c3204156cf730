"""The command line, with good input and bad; run as a process, as users run it, where that can make a difference."""

import json
import os
import re
import sqlite3
import subprocess
from pathlib import Path

import pytest

from api import keys as keyring
from eventstore.sqlite import SqliteLog
from tests.support.command import invoke
from tests.support.facts import completed, session_started, started
from tests.support.server import KEY, Process, serving, turnlog_command

STREAM = "lineage/default/s1"


def turnlog(*arguments: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command in `cwd`, with nothing of this machine's configuration."""
    ours = {"PATH": os.environ["PATH"], "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    environment = ours | {"HOME": str(cwd)} | env
    return subprocess.run(
        [str(turnlog_command()), *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        timeout=60,
        check=False,
    )


def test_help_names_every_command_in_one_line_each_and_the_first_to_be_used_first(tmp_path: Path) -> None:
    said = turnlog("--help", cwd=tmp_path).stdout.partition("Commands:\n")[2]
    commands = [line.split()[0] for line in said.splitlines()]
    assert commands == ["serve", "keys", "audit", "replay", "backup", "restore", "export", "import", "erase", "bench"]
    assert "..." not in said
    said = turnlog("audit", "--help", cwd=tmp_path).stdout.partition("Commands:\n")[2]
    commands = [line.split()[0] for line in said.splitlines()]
    assert commands == ["show", "diff", "prompt", "verify", "prove", "checkpoint", "key", "verifier"]
    assert "..." not in said


async def _a_log(data: Path) -> None:
    log = await SqliteLog.open(data)
    await log.append(STREAM, 0, (session_started(), started("t1", "hello Ada")))
    await log.append(STREAM, 2, (completed("t1", "hi there"),))
    await log.close()


def test_keys_are_made_listed_and_revoked(tmp_path: Path) -> None:
    made = invoke("keys", "add", "bridge", "--tenant", "acme", "--data", "d", cwd=tmp_path)
    secret = made.stdout.strip()
    assert secret.startswith("tl_")
    assert (tmp_path / "d" / "keys.json").stat().st_mode & 0o777 == 0o600
    assert secret not in (tmp_path / "d" / "keys.json").read_text()
    assert re.match(r"bridge +acme ", invoke("keys", "list", "--data", "d", cwd=tmp_path).stdout)
    assert invoke("keys", "revoke", "bridge", "--data", "d", cwd=tmp_path).exit_code == 0
    assert invoke("keys", "list", "--data", "d", cwd=tmp_path).stdout == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("keys", "add", "a b"), "expected 1 to 64 characters"),
        (("keys", "add", "a", "--tenant", "No/Good"), "expected 1 to 64 of a-z"),
        (("keys", "revoke", "nobody"), "no key named 'nobody'"),
        (("audit", "show", "s1"), "there is no log in"),
        (("replay",), "no log in"),
        (("replay", "--verify"), "views.db"),
        (("replay", "--until", "5"), "--until needs --into"),
        (("replay", "--until", "yesterday", "--into", "x.db"), "neither a position nor a time"),
        (("replay", "--until", "2026-01-01T00:00:00", "--into", "x.db"), "lacks a time zone"),
        (("serve", "--api-key", "short"), "at least 16 characters"),
        (("serve", "--no-auth", "--host", "0.0.0.0"), "loopback"),  # noqa: S104 (refused)
        (("serve", "--upstream", "localhost:8000"), "expects a URL"),
        (("serve", "--upstream", "http://x/v1", "--upstream-key-env", "NOT_SET_ANYWHERE"), "NOT_SET_ANYWHERE"),
        (("serve", "--port", "99999"), "99999"),
        (("frobnicate",), "No such command"),
        (("serve", "--upstream-api", "responses"), "about --upstream, which is not given"),
        (("keys", "add", "x"), "can not be written"),
        (("serve",), "can not be written"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    (tmp_path / "d" / "keys.json.new").mkdir(parents=True)
    done = invoke(*arguments, cwd=tmp_path, TURNLOG_DATA="d")
    assert done.exit_code != 0
    assert said in done.stderr


def test_a_process_that_is_refused_says_no_more_than_that(tmp_path: Path) -> None:
    done = turnlog("replay", "--until", "5", cwd=tmp_path, TURNLOG_DATA="d")
    assert done.returncode == 2
    assert "--until needs --into" in done.stderr
    assert "Traceback" not in done.stderr


async def test_audit_shows_a_sessions_events_a_line_each(tmp_path: Path) -> None:
    await _a_log(tmp_path / "d")
    shown = invoke("audit", "show", "s1", "--data", "d", cwd=tmp_path)
    lines = shown.stdout.splitlines()
    assert [line.split()[3] for line in lines] == ["SessionStarted", "TurnStarted", "TurnCompleted"]
    assert "hello Ada" in lines[1]
    as_json = invoke("audit", "show", "s1", "--json", "--data", "d", cwd=tmp_path).stdout.splitlines()
    assert json.loads(as_json[1])["data"]["items"] == [{"role": "user", "content": "hello Ada"}]
    missing = invoke("audit", "show", "s2", "--data", "d", cwd=tmp_path)
    assert (missing.exit_code, "no session 's2'" in missing.stderr) == (1, True)


async def test_replay_rebuilds_and_verifies_and_finds_what_differs(tmp_path: Path) -> None:
    await _a_log(tmp_path / "d")
    assert invoke("replay", "--data", "d", cwd=tmp_path).exit_code == 0
    verified = invoke("replay", "--verify", "--data", "d", cwd=tmp_path)
    assert (verified.exit_code, "are equal" in verified.stdout) == (0, True)
    with sqlite3.connect(tmp_path / "d" / "views.db") as database:
        database.execute("UPDATE sessions SET turns = 7")
        database.execute("INSERT INTO responses VALUES ('t0', 'x', 'y', 0)")
    database.close()
    verified = invoke("replay", "--verify", "--data", "d", cwd=tmp_path)
    assert verified.exit_code == 1
    assert "2 rows differ" in verified.stderr


async def test_replay_until_a_position_or_a_time_gives_the_views_as_they_were(tmp_path: Path) -> None:
    await _a_log(tmp_path / "d")
    for until, turns in (("2", 0), ("3", 1), ("2000-01-01T00:00:00Z", None), ("2100-01-01T00:00:00+02:00", 1)):
        (tmp_path / "then.db").unlink(missing_ok=True)
        done = invoke("replay", "--until", until, "--into", "then.db", "--data", "d", cwd=tmp_path)
        assert done.exit_code == 0, done.stderr
        with sqlite3.connect(tmp_path / "then.db") as database:
            row = database.execute("SELECT turns FROM sessions").fetchone()
        database.close()
        assert (row and row[0]) == turns


async def test_tools_work_beside_a_server(tmp_path: Path) -> None:
    data = tmp_path / "d"
    async with serving(data) as server:
        await server.chat("hello", "s1")
        assert turnlog("replay", "--into", "x.db", "--data", "d", cwd=tmp_path).returncode == 0
        await server.get("/api/sessions")
        assert turnlog("replay", "--verify", "--data", "d", cwd=tmp_path).returncode == 0
        assert turnlog("audit", "show", "s1", "--data", "d", cwd=tmp_path).returncode == 0


async def test_a_first_start_makes_a_key_and_says_how_to_use_it(tmp_path: Path) -> None:
    process = await Process.start(tmp_path / "d", env={"TURNLOG_API_KEY": ""})
    key = (tmp_path / "d" / "api_key").read_text().strip()
    assert (tmp_path / "d" / "api_key").stat().st_mode & 0o777 == 0o600
    async with process.server.http.get("/v1/models", headers={"authorization": f"Bearer {key}"}) as response:
        assert response.status == 200
    assert await process.terminate() == 0
    assert key not in process.log


async def test_the_log_lines_hold_the_request_id_and_never_content_or_keys(tmp_path: Path) -> None:
    process = await Process.start(tmp_path / "d")
    body = {"model": "m", "messages": [{"role": "user", "content": "a secret thought"}]}
    async with process.server.http.post("/v1/chat/completions", json=body) as response:
        request_id = response.headers["x-request-id"]
    async with process.server.http.post("/v1/chat/completions", data=b"a secret thought{") as response:
        assert response.status == 400
    await process.terminate()
    lines = [json.loads(line) for line in process.log.splitlines()]
    assert [line["status"] for line in lines if line.get("request_id") == request_id] == [200]
    assert "secret thought" not in process.log
    assert KEY not in process.log


def test_settings_come_from_flag_then_environment_then_file(tmp_path: Path) -> None:
    (tmp_path / "turnlog.toml").write_text('api-key = "short"\n')
    assert "got 5" in invoke("serve", cwd=tmp_path, TURNLOG_DATA="d").stderr
    assert "got 6" in invoke("serve", cwd=tmp_path, TURNLOG_DATA="d", TURNLOG_API_KEY="shorts").stderr
    flag = invoke("serve", "--api-key", "short12", cwd=tmp_path, TURNLOG_DATA="d", TURNLOG_API_KEY="shorts")
    assert "got 7" in flag.stderr
    (tmp_path / "turnlog.toml").write_text('aip-key = "x"\n')
    assert "unknown settings: aip_key" in invoke("serve", cwd=tmp_path).stderr


async def test_models_have_settings_of_their_own_in_the_configuration_file(data: Path) -> None:
    """A model whose window is small is compressed; any other is not, for `*` says so."""
    data.mkdir()
    config = data / "turnlog.toml"
    all_models = '[models."*"]\ncontext_tokens = 0\n'
    small = "[models.small]\ncontext_tokens = 400\ncompress-at = 0.25\n"
    config.write_text(all_models + small)
    process = await Process.start(data, env={"TURNLOG_CONFIG": str(config)})
    try:
        for model, is_compressed in (("small", True), ("large", False)):
            for _ in range(6):
                _, effective = await process.server.chat("hello " * 20, model, model=model)
            assert (effective != model) is is_compressed
    finally:
        await process.terminate()


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("[model.small]\ncontext_tokens = 1\n", "tables are called [models.NAME]"),
        ("[upstream.gpu]\nurl = 'http://x/v1'\n", "tables are called [upstreams.NAME]"),
        ("[models]\nsmall = 1\n", '[models."small"]'),
        (
            "[models.small]\ncontext = 1\n",
            '[models."small"] does not hold the settings',
        ),
        ("[models.small]\ncompress_at = 2.0\n", "compress_at"),
        ("[models.small]\ncontext_tokens = -1\n", "context_tokens"),
    ],
)
def test_a_models_settings_are_checked(tmp_path: Path, table: str, said: str) -> None:
    (tmp_path / "turnlog.toml").write_text(table)
    done = invoke("serve", cwd=tmp_path)
    assert done.exit_code == 2
    assert said in done.stderr
    assert "turnlog.toml" in done.stderr


def test_the_configuration_file_holds_for_every_command(tmp_path: Path) -> None:
    (tmp_path / "turnlog.toml").write_text('data = "elsewhere"\ncors-origin = ["https://a.example"]\n')
    assert invoke("keys", "add", "bridge", cwd=tmp_path).exit_code == 0
    assert (tmp_path / "elsewhere" / "keys.json").exists()
    assert "bridge" in invoke("keys", "list", cwd=tmp_path).stdout
    assert "no log in elsewhere" in invoke("audit", "show", "s1", cwd=tmp_path).stderr


def test_a_data_directory_that_can_not_be_made_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for command in (("serve",), ("keys", "add", "x")):
        done = invoke(*command, "--data", "file/d", cwd=tmp_path)
        assert (done.exit_code, "Traceback" in done.stderr) == (1, False)
        assert "can not make the data directory file/d" in done.stderr


async def test_a_configured_key_stands_in_for_the_one_that_the_first_start_made(tmp_path: Path) -> None:
    data = tmp_path / "d"
    made, added = keyring.first_key(data), keyring.add(data, "phone")
    async with serving(data) as server:
        for key, status in ((KEY, 200), (added, 200), (made, 401)):
            async with server.http.get("/v1/models", headers={"authorization": f"Bearer {key}"}) as response:
                assert response.status == status


def test_a_directory_in_place_of_the_lock_is_told_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "d" / "lock").mkdir(parents=True)
    told = turnlog("serve", cwd=tmp_path, TURNLOG_DATA="d", TURNLOG_API_KEY=KEY).stderr
    assert "can not be opened for writing" in told
    assert "Traceback" not in told


@pytest.mark.parametrize(
    "command",
    ["audit verify", "audit show s1", "backup b", "export", "replay --until 1 --into v", "serve"],
)
async def test_a_log_whose_tables_have_lost_their_names_is_damaged_in_a_sentence(tmp_path: Path, command: str) -> None:
    await _a_log(tmp_path / "d")
    file = tmp_path / "d" / "log.db"
    content = file.read_bytes().replace(b"tableevents", b"table\x01\x01\x01\x01\x01\x80", 1)
    file.write_bytes(content.replace(b"CREATE TABLE events", b"CREATX TABLE events", 1))
    done = turnlog(*command.split(), "--data", "d", cwd=tmp_path)
    assert done.returncode == 1
    assert "Error: the log is damaged: SQLite finds it malformed" in done.stderr
    assert "Traceback" not in done.stderr
