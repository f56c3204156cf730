"""Commands where something is not what they expect: not a file, no text, no room. A sentence each time."""

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.moving import make_log
from tests.support.server import turnlog_command
from tests.test_tools import turnlog

NOT_TEXT = os.fsdecode(b"\xff")


def _loop(path: Path) -> None:
    path.symlink_to(path)


@pytest.mark.parametrize("command", [("show", NOT_TEXT), ("prompt", NOT_TEXT), ("diff", NOT_TEXT, "1", "2")])
async def test_an_id_that_is_not_text_is_refused(data: Path, tmp_path: Path, command: tuple[str, ...]) -> None:
    await make_log(data)
    for arguments in (command, (command[0], "s1", *command[2:], "--tenant", NOT_TEXT)):
        done = turnlog("audit", *arguments, "--data", "data", cwd=tmp_path)
        assert (done.returncode, "is not text in UTF-8" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir])
@pytest.mark.parametrize(
    "command", [("audit", "show", "s1"), ("audit", "verify"), ("audit", "checkpoint"), ("export",), ("serve",)]
)
def test_what_is_in_the_place_of_the_log_and_not_a_file_is_not_waited_for(
    data: Path, tmp_path: Path, command: tuple[str, ...], make: Callable[[Path], None]
) -> None:
    data.mkdir()
    make(data / "log.db")
    done = turnlog(*command, "--data", "data", cwd=tmp_path)
    assert (done.returncode, "log.db can not be read: it is not a file" in done.stderr) == (1, True), done.stderr
    assert "Traceback" not in done.stderr


async def test_a_key_that_is_not_a_file_is_not_waited_for(data: Path, tmp_path: Path) -> None:
    await make_log(data)
    os.mkfifo(data / "audit.key")
    done = turnlog("audit", "key", "--data", "data", cwd=tmp_path)
    assert (done.returncode, "it is not a file" in done.stderr) == (1, True), done.stderr


def test_a_full_standard_output_is_said_so(data: Path) -> None:
    asyncio.run(make_log(data))
    for arguments in (("audit", "show", "s1"), ("export",), ("replay",)):
        command = [str(turnlog_command()), *arguments, "--data", str(data)]
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
        assert (done.returncode, "No space left on device" in done.stderr) == (1, True)
        assert len(done.stderr.splitlines()) == 1, done.stderr


def test_a_closed_standard_output_is_said_so(data: Path) -> None:
    asyncio.run(make_log(data))
    command = ["sh", "-c", 'exec "$@" >&-', "sh", str(turnlog_command()), "export", "--data", str(data)]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, "Error: standard output is closed\n")


def test_a_file_whose_name_is_not_text_is_written_and_named(data: Path, tmp_path: Path) -> None:
    asyncio.run(make_log(data))
    command = [str(turnlog_command()), "backup", NOT_TEXT, "--data", "data"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, timeout=60, check=False)
    assert (done.returncode, b" to \xff (" in done.stdout, (tmp_path / NOT_TEXT).exists()) == (0, True, True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("audit", "verify", "--data", "a" * 300), "File name too long"),
        (("backup", "a" * 300, "--data", "data"), "File name too long"),
        (("backup", "copy", "--data", "loop"), "there is no log in loop"),
        (("replay", "--into", "a" * 300, "--data", "data"), "File name too long"),
        (("--config", "binary", "audit", "verify"), "can not be read"),
        (("--config", "nested", "audit", "verify"), "can not be read"),
        (("audit", "diff", "s1", "9999-12-31T23:59:60Z", "2", "--data", "data"), "turn them around"),
        (("audit", "diff", "s1", "2", "0001-01-01T00:00:00+23:59", "--data", "data"), "turn them around"),
    ],
)
async def test_odd_names_files_and_times_are_refused_in_a_sentence(
    data: Path, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    await make_log(data)
    _loop(tmp_path / "loop")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "nested").write_text("a = " + "[" * 100_000)
    done = turnlog(*arguments, cwd=tmp_path)
    assert (done.returncode in (1, 2), said in done.stderr, "Traceback" in done.stderr) == (True, True, False), (
        done.stderr
    )
