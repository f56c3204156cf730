"""Fixtures. Helpers with a life of their own are in `tests/support/`."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from eventstore.sqlite import SqliteLog
from tests.support.server import Process, Server, serving
from tests.support.upstream import Upstream, scripted_upstream


@pytest_asyncio.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """A scripted model server."""
    async with scripted_upstream() as running:
        yield running


@pytest_asyncio.fixture
async def server(tmp_path: Path, upstream: Upstream) -> AsyncIterator[Server]:
    """A turnlog server with the scripted model server behind it, its data in `tmp_path/data`."""
    async with serving(tmp_path / "data", upstream=upstream.url) as running:
        yield running


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory that does not exist yet."""
    return tmp_path / "data"


@pytest_asyncio.fixture
async def start(data: Path, upstream: Upstream) -> AsyncIterator[Callable[..., Awaitable[Process]]]:
    """Starts `turnlog serve` on `data` with the scripted model server. What a failed test leaves running is killed."""
    processes: list[Process] = []

    async def start(*flags: str, env: dict[str, str] | None = None) -> Process:
        processes.append(await Process.start(data, "--upstream", upstream.url, "--default-model", "m", *flags, env=env))
        return processes[-1]

    yield start
    for process in processes:
        if process.popen.returncode is None:
            await process.kill9()


@pytest_asyncio.fixture
async def log(data: Path) -> AsyncIterator[SqliteLog]:
    """An open log in `data`."""
    opened = await SqliteLog.open(data)
    yield opened
    await opened.close()
