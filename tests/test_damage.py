"""A log that was altered is never served as if it were whole."""

import sqlite3
from pathlib import Path

import pytest

from api import guard
from api.context import GUARD
from eventstore.log import LogDamaged
from tests.support.server import Process, serving
from tests.support.upstream import Upstream


async def _three_turns(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        for word in ("one", "two", "three"):
            await server.chat(word, "s1")


def _flip_a_byte(data: Path, needle: bytes) -> None:
    """Change one byte of the file itself, where `needle` stands in it."""
    path = data / "log.db"
    content = bytearray(path.read_bytes())
    content[content.index(needle)] ^= 1
    path.write_bytes(content)


async def test_a_server_does_not_start_on_a_damaged_log_and_names_the_position(data: Path, upstream: Upstream) -> None:
    await _three_turns(data, upstream)
    _flip_a_byte(data, b'"two"')
    with pytest.raises(RuntimeError) as failed:
        await Process.start(data)
    assert "exit 1" in str(failed.value)
    assert "the log is damaged at position 4" in str(failed.value)


async def test_damage_that_shows_after_the_start_shuts_the_door(
    data: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _three_turns(data, upstream)
    _flip_a_byte(data, b'"two"')
    monkeypatch.setattr(guard, "WAIT_S", 0)
    async with serving(data, upstream=upstream.url) as server:
        assert server.app is not None
        check = server.app[GUARD]
        assert check._task is not None
        await check._task
        for path in ("/health", "/api/sessions", "/api/sessions/s1/messages"):
            answer = await server.get(path, status=503)
            assert answer["error"]["code"] == "log_damaged"
            assert "position 4" in answer["error"]["message"]


async def test_a_damaged_session_is_not_read_even_before_the_check_gets_there(
    data: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _three_turns(data, upstream)

    async def blind(_self: guard.Guard, _log: object) -> None:
        """A check that has not come far yet."""

    monkeypatch.setattr(guard.Guard, "start", blind)
    with sqlite3.connect(data / "log.db") as database:
        database.execute("DROP TRIGGER events_are_never_updated")
        database.execute("UPDATE events SET recorded_us = recorded_us + 1 WHERE position = 4")
    database.close()
    async with serving(data, upstream=upstream.url) as server:
        for path in ("/api/sessions/s1/messages", "/api/sessions/search?q=two"):
            answer = await server.get(path, status=503)
            assert answer["error"]["code"] == "log_damaged"
            assert "position 4" in answer["error"]["message"]


def test_damage_without_a_position_says_so_too() -> None:
    assert str(LogDamaged(0, "SQLite says: malformed")) == "the log is damaged: SQLite says: malformed"
