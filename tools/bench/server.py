"""Servers as processes of their own, and the load that they are put under."""

import contextlib
import http.client
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import msgspec

from tools.bench import loader
from tools.bench.loader import Load, Loaded

KEY = "bench-key-0123456789"
STOP_S = 60.0
DONE = b"data: [DONE]\n\n"
_SERVES = re.compile(r"serves http://([\d.]+):(\d+)")


class BenchFailed(Exception):
    """Something could not be measured at all."""


class Server:
    """A running server. `started` is `time.perf_counter()` as its process was started."""

    def __init__(self, process: "subprocess.Popen[str]", host: str, port: int, started: float) -> None:
        self.host = host
        self.port = port
        self.started = started
        self._process = process

    def get(self, path: str) -> bytes:
        """The body of a GET that must succeed."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=STOP_S)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Authorization": f"Bearer {KEY}"})
            response = connection.getresponse()
            body = response.read()
        if response.status != http.HTTPStatus.OK:
            raise BenchFailed(f"GET {path} was answered with {response.status}: {body[:500]!r}")
        return body

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> tuple[float, dict[str, str]]:
        """A POST that must succeed: how long it took in ms, and the headers of its answer, names in lower case."""
        with contextlib.closing(http.client.HTTPConnection(self.host, self.port, timeout=STOP_S)) as connection:
            connection.connect()
            began = time.perf_counter()
            connection.request("POST", path, body, {"Authorization": f"Bearer {KEY}", **headers})
            response = connection.getresponse()
            answer = response.read()
            took_ms = (time.perf_counter() - began) * 1_000
        if response.status not in (http.HTTPStatus.OK, http.HTTPStatus.CREATED):
            raise BenchFailed(f"POST {path} was answered with {response.status}: {answer[:500]!r}")
        return took_ms, {name.lower(): value for name, value in response.getheaders()}

    @contextlib.contextmanager
    def streams(self, path: str) -> Iterator[Callable[[bytes, dict[str, str]], float]]:
        """A kept-alive connection for POSTs whose answers are streamed: called with a body and headers, it reads the
        answer to its end, and says after how many ms its first byte had come.
        """
        with contextlib.closing(http.client.HTTPConnection(self.host, self.port, timeout=STOP_S)) as connection:
            connection.connect()
            yield partial(_first_byte_ms, connection, path)

    def settle(self) -> None:
        """Return once the views are level with the log: a query waits for that."""
        self.get("/api/sessions?limit=1")

    def resident_mb(self) -> float:
        """What the process holds in memory (VmRSS), in MB of a million bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        if found is None:
            raise BenchFailed("the kernel does not say how much memory the server holds")
        return int(found[1]) * 1_024 / 1e6

    def load(
        self,
        user_text: str,
        session: str,
        *,
        connections: int = 1,
        warm_up_s: float = 0.0,
        measure_s: float = 0.0,
        turns: int = 0,
        session_turns: int = 0,
        path: str = loader.PATH,
    ) -> Loaded:
        """Put the server under a load from a process of its own; see `Load`."""
        asked = Load(
            host=self.host,
            port=self.port,
            key=KEY,
            connections=connections,
            session=session,
            user_text=user_text,
            warm_up_s=warm_up_s,
            measure_s=measure_s,
            turns=turns,
            session_turns=session_turns,
            path=path,
        )
        done = subprocess.run(  # noqa: S603 (our own file, by its path)
            [sys.executable, "-P", loader.__file__],
            input=msgspec.msgpack.encode(asked),
            stdout=subprocess.PIPE,
            check=True,
        )
        loaded = msgspec.msgpack.decode(done.stdout, type=Loaded)
        if loaded.problem:
            raise BenchFailed(loaded.problem)
        return loaded


def _first_byte_ms(connection: http.client.HTTPConnection, path: str, body: bytes, headers: dict[str, str]) -> float:
    began = time.perf_counter()
    connection.request("POST", path, body, {"Authorization": f"Bearer {KEY}", **headers})
    response = connection.getresponse()
    first = response.read1(1)
    took_ms = (time.perf_counter() - began) * 1_000
    answer = first + response.read()
    if response.status != http.HTTPStatus.OK or not answer.endswith(DONE):
        raise BenchFailed(f"POST {path} was answered with {response.status}: {answer[:500]!r}")
    return took_ms


@contextlib.contextmanager
def turnlog(data: Path, *flags: str) -> Iterator[Server]:
    """`turnlog serve` with the built-in model on `data`; stopped with SIGTERM, which checkpoints the log."""
    command = Path(sys.executable).parent / "turnlog"
    with _started([str(command), "serve", "--data", str(data), "--port", "0", *flags], data.parent) as server:
        yield server


@contextlib.contextmanager
def other(what: str, directory: Path) -> Iterator[Server]:
    """A server to compare with; see `others.py`."""
    data = directory / what
    with _started([sys.executable, "-m", "tools.bench.others", what, str(data)], directory) as server:
        yield server


@contextlib.contextmanager
def _started(command: Sequence[str], directory: Path) -> Iterator[Server]:
    # Settings of whoever measures must not be the server's: neither from the environment nor from ./turnlog.toml.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TURNLOG_")}
    started = time.perf_counter()
    process = subprocess.Popen(  # noqa: S603 (our own commands)
        command,
        cwd=directory,
        env={**environment, "TURNLOG_API_KEY": KEY},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        host, port = _address(process)
        yield Server(process, host, port, started)
    finally:
        _stop(process)


def _address(process: "subprocess.Popen[str]") -> tuple[str, int]:
    assert process.stdout is not None  # noqa: S101 (it is a pipe)
    for line in process.stdout:
        if found := _SERVES.search(line):
            return found[1], int(found[2])
    raise BenchFailed(f"{process.args!r} did not start (exit {process.wait()}): run it by hand to see why")


def _stop(process: "subprocess.Popen[str]") -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise BenchFailed(f"{process.args!r} did not stop within {STOP_S:g} s of SIGTERM") from None
    finally:
        if process.stdout:
            process.stdout.close()
