"""Bytes that begin like JSON, or like a fact, and are none: they are shown, or said to be damaged."""

from pathlib import Path

import msgspec
import pytest

from eventstore.events import why_not
from eventstore.proofs.checkpoint import CHECKPOINTS_FILE, read
from tests.support.api import record
from tests.support.facts import completed, started
from tests.support.feed import following, page
from tests.support.server import Server
from tests.test_tools import turnlog

LIKE_A_STRING = b'"\xff\xfe" and more'  # as one in 12,000 digests does: a string, but for its bytes


async def test_a_digest_that_begins_like_a_string_is_shown_in_hexadecimal(server: Server, tmp_path: Path) -> None:
    ended = msgspec.structs.replace(completed("t1", "hi"), history_digest=LIKE_A_STRING)
    await server.chat("hello", "s1")
    await record(server, "s1", [started("t1", "hello"), ended])
    assert (await page(server))["data"][4]["data"]["history_digest"] == LIKE_A_STRING.hex()
    async with following(server, "after=3&until=5") as reader:
        assert [sent.name for sent in await reader.rest()] == ["TurnStarted", "TurnCompleted"]
    for command in (("export",), ("audit", "show", "s1"), ("audit", "show", "s1", "--json")):
        done = turnlog(*command, "--data", "data", cwd=tmp_path)
        assert (done.returncode, LIKE_A_STRING.hex()[:20] in done.stdout or "--json" not in command) == (0, True)


@pytest.mark.parametrize("data", [b"\x81\xa4type\xa2\xff\xfe", b"\x91" * 5_000])
def test_a_fact_that_holds_no_text_or_has_no_end_is_not_one(data: bytes) -> None:
    assert "its data is not a TurnStarted" in (why_not("TurnStarted", data) or "")


def test_a_line_of_checkpoints_that_is_not_text_is_torn(tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINTS_FILE
    path.write_bytes(b'{"note":"\xff"}\n' + b"[" * 5_000)
    assert read(path).torn == [1, 2]


def test_what_is_not_text_is_not_what_was_remembered(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b'{"hash":"\xff"}')
    done = turnlog("audit", "verify", "--remember", "kept", "--data", ".", cwd=tmp_path)
    assert (done.returncode, "is not what --remember writes" in done.stderr) == (1, True), done.stderr
