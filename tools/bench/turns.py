"""Turns over HTTP, beside handlers that do less, in alternating rounds.

What a turn costs is said as its share of three others: a handler of turnlog's own server that does nothing (request id,
key and log line included), a bare handler on aiohttp that does nothing, and a bare handler that makes the two durable
appends of a turn and nothing else.

Each connection begins a new session every `SESSION_TURNS` turns. With one session for good, a faster server would get
longer sessions in the same time, and past the bound of its session cache the figure would be that of the cache.
"""

import contextlib

from tools.bench import loader
from tools.bench.figures import Figure, Figures, median, percentile
from tools.bench.generate import text
from tools.bench.others import PATH
from tools.bench.plan import Plan
from tools.bench.server import Server, other, turnlog

SUITE = "turns"
CONNECTIONS = 32
USER_CHARACTERS = 80
SESSION_TURNS = 100


# A handler that does nothing of the same server is what the target is about; the others tell what bounds it.
OTHERS = {
    "turnlog": "nothing, same server",
    "bare": "nothing, bare aiohttp",
    "appends": "two appends, bare aiohttp",
}


def measure(plan: Plan) -> list[Figure]:
    """Chat turns of 80 characters, a session for each connection, with the built-in model: turns/s, p50 and p99 in
    ms, at 32 connections and at one; and their share of what the other handlers reach at 32.
    """
    figures = Figures(SUITE)
    directory = plan.empty("turns")
    directory.mkdir()
    with contextlib.ExitStack() as servers:
        ours = servers.enter_context(turnlog(directory / "data"))
        others = {what: servers.enter_context(other(what, directory)) for what in OTHERS}
        for number in plan.rounds(SUITE):
            name = f"turns-{number}"
            turns = _load(plan, ours, CONNECTIONS, name, figures, "turns")
            for what, title in OTHERS.items():
                base = _load(plan, others[what], CONNECTIONS, name, figures, title, path=PATH)
                figures.add(f"turns / {title}", turns / base, "ratio", ">=" if what == "turnlog" else None, 0.30)
            _load(plan, ours, 1, f"{name}-lone", figures, "turns")
            _load(plan, others["turnlog"], 1, f"{name}-lone", figures, OTHERS["turnlog"], path=PATH)
    return figures.all()


def _load(
    plan: Plan,
    server: Server,
    connections: int,
    session: str,
    figures: Figures,
    what: str,
    *,
    path: str = loader.PATH,
) -> float:
    loaded = server.load(
        text(USER_CHARACTERS),
        session,
        connections=connections,
        warm_up_s=plan.sizes.turns_warm_up_s,
        measure_s=plan.sizes.turns_s,
        session_turns=SESSION_TURNS,
        path=path,
    )
    per_s = len(loaded.took_ms) / loaded.seconds
    at = f"{what}, {connections} connection{'s' if connections > 1 else ''}"
    is_meant = what == "turns" and connections == 1
    figures.add(at, per_s, f"{'turns' if what == 'turns' else 'requests'}/s")
    figures.add(f"{at}: p50", median(loaded.took_ms), "ms", "<" if is_meant else None, 3)
    figures.add(f"{at}: p99", percentile(loaded.took_ms, 99), "ms")
    return per_s
