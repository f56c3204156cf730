"""An erasure that is killed at any of its steps: either nothing is erased, or, with the next start, all is."""

import asyncio
import os
import shutil
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import aiosqlite

from api.turns.erasure import Order
from api.turns.erasure_scope import Selection
from eventstore.events import Erased, lineage_stream
from eventstore.purge import MARKER_FILE
from eventstore.sqlite import SqliteLog
from tests.support.facts import completed, session_started, started
from tests.support.server import Process
from tests.test_crash import recorded, verify
from tools.erase import _erase, _erasures

ORDER = Order("default", Selection("session", "s1"), "me", "law")
SAID = "Zqsaid"


async def _make(data: Path) -> None:
    log = await SqliteLog.open(data)
    for name in ("s1", "s2"):
        stream = lineage_stream("default", name)
        text = f"{SAID} in {name} " * 200  # some of it in overflow pages
        facts = (session_started(name), started("t1", text), completed("t1", text), started("t2", text))
        await log.append(stream, 0, facts)
    await log.close()
    async with _erasures(data):
        pass  # makes the views


def _dies_at(step: int, work: Callable[[], None]) -> bool:
    """Do the work in a process that kills itself with its `step`-th call of SQLite; whether it came that far."""
    child = os.fork()
    if child == 0:
        left = step
        execute: Callable[..., Any] = aiosqlite.Connection._execute

        def counted(self: Any, fn: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return execute(self, fn, *args, **kwargs)

        aiosqlite.Connection._execute = counted  # type: ignore[method-assign]
        try:
            work()
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def _until_none_dies(made: Path, data: Path, first: int) -> Iterator[int]:
    """For each step, the data directory as a process has left it that died there."""
    step, dies = first, True
    while dies:
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(made, data)
        dies = _dies_at(step, lambda: asyncio.run(_erase(data, ORDER, asks=False)))
        is_begun = (data / MARKER_FILE).exists()
        yield step
        step += 1 if is_begun else 2  # before, it mostly reads


def _holds(data: Path, text: str) -> bool:
    return any(text.encode() in file.read_bytes() for file in data.rglob("*") if file.is_file())


def test_killed_at_any_step_it_is_not_erased_at_all_or_with_the_next_start_wholly(tmp_path: Path, data: Path) -> None:
    made = tmp_path / "made"
    asyncio.run(_make(made))
    outcomes = []
    for step in _until_none_dies(made, data, 1):
        asyncio.run(_start(data))
        events = [entry.event for entry in asyncio.run(recorded(data)) if entry.stream.endswith("s1")]
        erased = sum(isinstance(event, Erased) for event in events)
        assert erased in (0, 5), (step, events)  # with the end of the open turn
        assert _holds(data, f"{SAID} in s1") is (erased == 0), step
        assert _holds(data, f"{SAID} in s2")
        assert not (data / MARKER_FILE).exists()
        outcomes.append(erased > 0)
    assert outcomes == sorted(outcomes)
    assert {True, False} == set(outcomes)
    asyncio.run(verify(data))


async def _start(data: Path) -> None:
    async with _erasures(data):
        pass  # takes up what is left, as a server does


async def test_a_server_that_is_killed_while_it_erases_finishes_that_when_it_is_started_again(
    data: Path, start: Callable[..., Awaitable[Process]]
) -> None:
    process = await start()
    for name in ("s1", "s2"):
        await process.server.chat(f"{SAID} in {name} " * 200, name)
    request = asyncio.create_task(process.server.http.delete("/api/sessions/s1?erase=true").__aenter__())
    while not (data / MARKER_FILE).exists():  # noqa: ASYNC110 (another process makes it)
        await asyncio.sleep(0)
    await process.kill9(request)
    again = await start()
    assert not (data / MARKER_FILE).exists()
    is_erased = "s1" not in [row["id"] for row in (await again.server.get("/api/sessions"))["data"]]
    events = [entry.event for entry in await recorded(data) if entry.stream.endswith("s1")]
    assert is_erased
    assert _holds(data, f"{SAID} in s1") is not any(isinstance(event, Erased) for event in events)
    assert _holds(data, f"{SAID} in s2")
