"""turnlog servers for tests: in this process on a real port, or as a process of its own that can be killed."""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Sequence
from pathlib import Path
from typing import Any, Self

import aiohttp
from aiohttp import web
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from api.app import make_app
from api.connections import Runner
from api.models.retries import Retries
from api.server import HEADER_BYTES_MAX
from api.settings import Settings

KEY = "test-key-0123456789"


class Server:
    """A server's address, and clients for it."""

    def __init__(self, url: str, app: web.Application | None = None) -> None:
        self.url = url
        self.app = app
        self.http = aiohttp.ClientSession(url, headers={"authorization": f"Bearer {KEY}"})
        # Reading all the world's certificates for each server took half of the time that most tests need.
        plain = DefaultAsyncHttpxClient(verify=False)
        self.openai = AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, http_client=plain)

    async def close(self) -> None:
        await self.http.close()
        await self.openai.close()

    async def chat(self, text: str, session_id: str | None = None, **body: Any) -> tuple[dict[str, Any], str]:
        """One chat turn with plain HTTP: the decoded answer, and the effective session id of its header."""
        headers = {"X-Hermes-Session-Id": session_id} if session_id else {}
        body = {"model": "m", "messages": [{"role": "user", "content": text}]} | body
        async with self.http.post("/v1/chat/completions", json=body, headers=headers) as response:
            answer = await response.json()
            assert response.status == 200, answer
            return answer, response.headers.get("X-Hermes-Session-Id", "")

    async def get(self, path: str, status: int = 200) -> dict[str, Any]:
        """GET a path, expecting that status."""
        async with self.http.get(path) as response:
            answer: dict[str, Any] = await response.json()
            assert response.status == status, answer
            return answer

    async def messages(self, session_id: str) -> list[dict[str, Any]]:
        """The session's messages as /api/sessions/{id}/messages shows them."""
        messages: list[dict[str, Any]] = (await self.get(f"/api/sessions/{session_id}/messages"))["data"]
        return messages


@contextlib.asynccontextmanager
async def serving(data: Path, *, upstream: str = "", **settings: Any) -> AsyncIterator[Server]:
    """A server in this process, on a real port. Leave the context to stop it, enter it again to restart it."""
    defaults: dict[str, Any] = {"api_key": KEY, "default_model": "m", "grace_s": 0.0, "lock_wait_s": 10.0}
    defaults |= {"retries": Retries(pause_s=0.001)}
    app = make_app(Settings(data=data, upstream=upstream, **(defaults | settings)))
    runner = Runner(
        app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0, max_field_size=HEADER_BYTES_MAX
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        server = Server(f"http://127.0.0.1:{runner.addresses[0][1]}", app)
        try:
            yield server
        finally:
            await server.close()
    finally:
        await runner.cleanup()


class Process:
    """`turnlog serve` as a process of its own: `await Process.start(...)`, then `kill9` or `terminate`."""

    def __init__(self, popen: "subprocess.Popen[str]", server: Server, log_path: Path) -> None:
        self.popen = popen
        self.server = server
        self._log_path = log_path

    @classmethod
    async def start(cls, data: Path, *flags: str, env: dict[str, str] | None = None) -> Self:
        command = [str(turnlog_command()), "serve", "--data", str(data), "--port", "0", *flags]
        data.mkdir(parents=True, exist_ok=True)
        log_path = data / "stderr.log"
        environment = {**os.environ, "TURNLOG_API_KEY": KEY, **(env or {})}
        with log_path.open("a") as stderr:
            popen = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment)
        assert popen.stdout is not None
        seen = ""
        while not (found := re.search(r"turnlog serves (http://\S+)", seen)):
            line = await asyncio.to_thread(popen.stdout.readline)
            if not line:
                popen.stdout.close()
                raise RuntimeError(f"the server did not start (exit {popen.wait()}): {log_path.read_text()[-2000:]}")
            seen += line
        return cls(popen, Server(found[1]), log_path)

    @property
    def log(self) -> str:
        """What the server wrote to stderr."""
        return self._log_path.read_text()

    async def kill9(self, *requests: Awaitable[Any]) -> Sequence[Any]:
        """SIGKILL; what became of these requests that were under way.

        A test that has any names them: closing aiohttp's client under a reader that has not yet seen the hang-up leaves
        the reader waiting for good.
        """
        self.popen.send_signal(signal.SIGKILL)
        outcomes = await asyncio.gather(*requests, return_exceptions=True)
        await self._ended()
        return outcomes

    async def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self.popen.send_signal(signal.SIGTERM)
        return await self._ended()

    async def _ended(self) -> int:
        code = await asyncio.to_thread(self.popen.wait, 30)
        assert self.popen.stdout is not None
        self.popen.stdout.close()
        await self.server.close()
        return code


def turnlog_command() -> Path:
    """The installed `turnlog`."""
    return Path(sys.executable).parent / "turnlog"
