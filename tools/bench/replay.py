"""Replay of a generated log, in this process: what a rebuild, an audit and a start after a loss of the views cost."""

import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from eventstore.sqlite import SqliteLog
from eventstore.verifying.verification import verify
from projections.rebuild import rebuild
from projections.runner import VIEWS_FILE
from projections.session import Session
from projections.views import VIEWS
from tools.bench.figures import Figure, Figures
from tools.bench.plan import Plan

SUITE = "replay"

Replay = Callable[[SqliteLog], Awaitable[int]]


def measure(plan: Plan) -> list[Figure]:
    """Events per second of a scan with decoding and folding into sessions, without and with the hash chain checked; of
    a rebuild of all views into an empty file; of an audit, without and with the tree that checkpoints are of.
    """
    data = plan.generated()
    figures = Figures(SUITE)

    async def views(log: SqliteLog) -> int:
        return await _views(log, plan.empty("rebuilt") / VIEWS_FILE)

    plan.empty("rebuilt").mkdir()
    for _ in plan.rounds(SUITE):
        figures.add("scan, decode, fold", _per_s(data, _fold), "events/s", ">=", 600_000)
        figures.add("the same, chain checked", _per_s(data, _checked), "events/s")
        figures.add("rebuild of the views", _per_s(data, views), "events/s", ">=", 60_000)
        figures.add("audit verify", _verified_per_s(data), "events/s", ">=", 400_000)
        figures.add("the same, with checkpoints", _verified_per_s(data, is_tree_wanted=True), "events/s")
    return figures.all()


def _per_s(data: Path, replay: Replay) -> float:
    return uvloop.run(_timed(data, replay))


def _verified_per_s(data: Path, *, is_tree_wanted: bool = False) -> float:
    began = time.perf_counter()
    found = verify(data, is_tree_wanted=is_tree_wanted)
    return found.whole.position / (time.perf_counter() - began)


async def _timed(data: Path, replay: Replay) -> float:
    log = await SqliteLog.open_read_only(data)
    try:
        began = time.perf_counter()
        events = await replay(log)
        return events / (time.perf_counter() - began)
    finally:
        await log.close()


async def _fold(log: SqliteLog, *, check: bool = False) -> int:
    sessions: dict[str, Session] = {}
    events = 0
    async for batch in log.read_all(check=check):
        for recorded in batch:
            session = sessions.get(recorded.stream)
            if session is None:
                session = sessions[recorded.stream] = Session(recorded.stream)
            session.apply(recorded)
        events += len(batch)
    return events


async def _checked(log: SqliteLog) -> int:
    return await _fold(log, check=True)


async def _views(log: SqliteLog, path: Path) -> int:
    store = await rebuild(log, path, VIEWS)
    store.close()
    return store.head.position
