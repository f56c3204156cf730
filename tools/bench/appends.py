"""The log alone, in this process: durable appends, reads of one stream, and the session cache in front of it."""

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from api.turns.cache import Sessions
from eventstore.events import TurnStarted, encode, lineage_stream
from eventstore.sqlite import SqliteLog
from tools.bench.figures import Figure, Figures, median, percentile
from tools.bench.generate import TENANT, text
from tools.bench.plan import Plan

SUITE = "appends"
TASKS = (1, 16, 64)
STREAM_EVENTS = 50
READ_STREAMS = 64
EVENT_BYTES_MIN, EVENT_BYTES_MAX = 440, 516
_WARM_UP_SHARE = 0.25
_SYNCS = 200
_PAGE = bytes(4_096)


def measure(plan: Plan) -> list[Figure]:
    """Durable appends (synchronous=FULL) of one event each by 1, 16 and 64 tasks: events/s, p50 and p99 in ms.

    Beside them, in µs: one fdatasync of 4 kB on the same disk, `read` of a 50-event stream, a session from the cache.
    """
    figures = Figures(SUITE)
    for number in plan.rounds(SUITE):
        directory = plan.empty(f"appends-{number}")
        directory.mkdir()
        figures.add("the disk alone: fdatasync of 4 kB, p50", _sync_us(directory / "sync"), "µs")
        for tasks in TASKS:
            data = directory / str(tasks)
            uvloop.run(_round(plan, data, tasks, figures))
        shutil.rmtree(directory)
    return figures.all()


async def _round(plan: Plan, data: Path, tasks: int, figures: Figures) -> None:
    async with contextlib.AsyncExitStack() as stack:
        log = await SqliteLog.open(data, synchronous="FULL")
        stack.push_async_callback(log.close)
        seconds = plan.sizes.append_s
        await _append_for(log, tasks, seconds * _WARM_UP_SHARE, "warm-up")
        began = time.perf_counter()
        took_ms = await _append_for(log, tasks, seconds, "measured")
        per_s = len(took_ms) / (time.perf_counter() - began)
        name = f"{tasks} task{'s' if tasks > 1 else ''}"
        is_meant = tasks == TASKS[-1]
        figures.add(f"{name}: durable appends", per_s, "events/s", ">=" if is_meant else None, 40_000)
        figures.add(f"{name}: p50", median(took_ms), "ms")
        figures.add(f"{name}: p99", percentile(took_ms, 99), "ms", "<" if is_meant else None, 5)
        if is_meant:
            await _reads(log, plan.sizes.reads, figures)


async def _append_for(log: SqliteLog, tasks: int, seconds: float, name: str) -> list[float]:
    """Have `tasks` tasks append for `seconds`; how long each append took, in milliseconds."""
    took_ms: list[float] = []
    until = time.perf_counter() + seconds
    async with asyncio.TaskGroup() as group:
        for task in range(tasks):
            group.create_task(_append_until(log, until, f"{name}-{task}", took_ms))
    return took_ms


async def _append_until(log: SqliteLog, until: float, name: str, took_ms: list[float]) -> None:
    events = [turn_started(length) for length in range(STREAM_EVENTS)]
    count = 0
    now = time.perf_counter()
    while now < until:
        number, version = divmod(count, STREAM_EVENTS)
        await log.append(lineage_stream(TENANT, f"{name}-{number}"), version, (events[version],))
        count += 1
        began, now = now, time.perf_counter()
        took_ms.append((now - began) * 1_000)


def turn_started(number: int) -> TurnStarted:
    """A turn's first fact, of 440 to 516 bytes as it is stored, whatever the number."""
    content = text(265 + number * 7 % (EVENT_BYTES_MAX - EVENT_BYTES_MIN))
    event = TurnStarted(
        turn_id=f"{number:028x}",
        api="chat",
        model="turnlog-builtin",
        items=(f'{{"role":"user","content":"{content}"}}'.encode(),),
        owner="018f3c2a9b7e0123456789abcdef",
        lease_ms=630_000,
    )
    size = len(encode(event))
    if not EVENT_BYTES_MIN <= size <= EVENT_BYTES_MAX:
        raise AssertionError(f"the event has {size} bytes: the figures would not compare with earlier ones")
    return event


async def _reads(log: SqliteLog, reads: int, figures: Figures) -> None:
    streams = [lineage_stream(TENANT, f"read-{number}") for number in range(READ_STREAMS)]
    for version in range(STREAM_EVENTS):
        # One event each at a time, so that no stream's events lie side by side.
        await asyncio.gather(*(log.append(stream, version, (turn_started(version),)) for stream in streams))
    again = streams * (reads // len(streams) + 1)
    figures.add(f"read of a {STREAM_EVENTS}-event stream, p50", await _median_us(log.read, again), "µs")
    sessions = Sessions(log)
    for stream in streams:
        await sessions.get(stream)
    figures.add("session from the cache, p50", await _median_us(sessions.get, again), "µs")


async def _median_us(read: Callable[[str], Awaitable[object]], streams: list[str]) -> float:
    took: list[float] = []
    for stream in streams:
        began = time.perf_counter_ns()
        await read(stream)
        took.append((time.perf_counter_ns() - began) / 1_000)
    return median(took)


def _sync_us(path: Path) -> float:
    """How long the disk takes to make one written page durable, in microseconds."""
    took: list[float] = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        os.write(descriptor, _PAGE * _SYNCS)
        os.fdatasync(descriptor)
        for number in range(_SYNCS):
            began = time.perf_counter_ns()
            os.pwrite(descriptor, _PAGE, number * len(_PAGE))
            os.fdatasync(descriptor)
            took.append((time.perf_counter_ns() - began) / 1_000)
    finally:
        os.close(descriptor)
    return median(took)
