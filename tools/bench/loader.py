"""A cheap HTTP client, as a process of its own: prebuilt requests on kept-alive connections, answers read no further
than their length. It must leave the server a core of its own, and take little of the other.

Reads a `Load` from stdin and writes a `Loaded` to stdout, both MessagePack. Started by its path, so that it imports
nothing of the rest.
"""

import asyncio
import re
import sys
import time
from functools import partial
from typing import cast

import msgspec
import uvloop

PATH = "/v1/chat/completions"
GRACE_S = 60.0

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_OK = b"HTTP/1.1 200"


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What to send. Either for `measure_s` after `warm_up_s`, or `turns` of them where that is not 0.

    Each connection speaks for one session, or for a new one every `session_turns` turns where that is not 0.
    """

    host: str
    port: int
    key: str
    connections: int
    session: str
    user_text: str
    warm_up_s: float = 0.0
    measure_s: float = 0.0
    turns: int = 0
    session_turns: int = 0
    path: str = PATH


class Loaded(msgspec.Struct, frozen=True):
    """What came of it, without the warm-up: the seconds it took, and each answer's latency, in order of arrival."""

    seconds: float
    took_ms: list[float]
    problem: str = ""


class _Run:
    """What the connections share."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.took_ms: list[float] = []
        self.sent = 0
        self.open = load.connections
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.measured_from = time.perf_counter() + load.warm_up_s
        self.until = self.measured_from + load.measure_s
        self.ended = self.measured_from

    def may_send(self, now: float) -> bool:
        """Whether there is another request to be sent."""
        if self.load.turns:
            return self.sent < self.load.turns
        return now < self.until

    def leave(self) -> None:
        """One connection has nothing more to do."""
        self.open -= 1
        if not self.open and not self.done.done():
            self.done.set_result(None)

    def fail(self, problem: str) -> None:
        """Stop: an answer was not what it should be, and the figures would mean nothing."""
        if not self.done.done():
            self.done.set_exception(RuntimeError(problem))


class _Connection(asyncio.Protocol):
    """One client: the next request as soon as the last answer is whole."""

    def __init__(self, run: _Run, number: int) -> None:
        self._run = run
        self._name = f"{run.load.session}-{number}"
        self._turn = 0
        self._request = b""
        self._received = b""
        self._answer_bytes = 0  # of the answer under way, head and body; 0 while its head is not whole
        self._began = 0.0
        self._leaving = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's own, which does not inherit from it
        self._send(time.perf_counter())

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        if not self._answer_bytes:
            self._read_head()
        if self._answer_bytes and len(self._received) >= self._answer_bytes:
            self._answered()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._leaving:
            self._run.fail(f"the server closed the connection: {exc}")

    def _send(self, now: float) -> None:
        run = self._run
        if not run.may_send(now):
            self._leaving = True
            self._transport.close()
            run.leave()
            return
        run.sent += 1
        turns = run.load.session_turns
        if not self._request or (turns and self._turn % turns == 0):
            session = f"{self._name}-{self._turn // turns}" if turns else self._name
            self._request = request(run.load, session)
        self._turn += 1
        self._received, self._answer_bytes = b"", 0
        self._began = time.perf_counter()
        self._transport.write(self._request)

    def _read_head(self) -> None:
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._received, 0, end)
        if not self._received.startswith(_OK) or length is None:
            self._run.fail(f"unexpected answer: {self._received[:1_000]!r}")
            return
        self._answer_bytes = end + 4 + int(length[1])

    def _answered(self) -> None:
        run, now = self._run, time.perf_counter()
        if self._began >= run.measured_from and (run.load.turns or now <= run.until):
            run.took_ms.append((now - self._began) * 1_000)
            run.ended = now
        self._send(now)


def request(load: Load, session: str) -> bytes:
    """The bytes of one turn."""
    message = {"role": "user", "content": load.user_text}
    body = msgspec.json.encode({"model": "turnlog-builtin", "messages": [message]})
    head = (
        f"POST {load.path} HTTP/1.1\r\nHost: {load.host}:{load.port}\r\nAuthorization: Bearer {load.key}\r\n"
        f"Content-Type: application/json\r\nX-Hermes-Session-Id: {session}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def fire(load: Load) -> Loaded:
    """Send all of it."""
    run = _Run(load)
    loop = asyncio.get_running_loop()
    for number in range(load.connections):
        await loop.create_connection(partial(_Connection, run, number), load.host, load.port)
    try:
        async with asyncio.timeout(load.warm_up_s + load.measure_s + GRACE_S):
            await run.done
    except TimeoutError:
        return Loaded(0.0, [], f"{run.open} connections had no answer after {GRACE_S:g} s more than they had")
    except RuntimeError as error:
        return Loaded(0.0, [], str(error))
    return Loaded((run.ended if load.turns else run.until) - run.measured_from, run.took_ms)


if __name__ == "__main__":
    asked = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Load)
    sys.stdout.buffer.write(msgspec.msgpack.encode(uvloop.run(fire(asked))))
