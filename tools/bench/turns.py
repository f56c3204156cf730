"""Turns over HTTP, beside a handler that does nothing on the same kind of server, in alternating rounds.

Each connection begins a new session every `SESSION_TURNS` turns. With one session for good, a faster server would get
longer sessions in the same time, and past the bound of its session cache the figure would be that of the cache.
"""

from tools.bench.figures import Figure, Figures, median, percentile
from tools.bench.generate import text
from tools.bench.plan import Plan
from tools.bench.server import Server, do_nothing, turnlog

SUITE = "turns"
CONNECTIONS = 32
USER_CHARACTERS = 80
SESSION_TURNS = 100


def measure(plan: Plan) -> list[Figure]:
    """Chat turns of 80 characters, a session for each connection, with the built-in model: turns/s, p50 and p99 in
    ms, at 32 connections and at one; and what share of the do-nothing handler's requests/s the former is.
    """
    figures = Figures(SUITE)
    directory = plan.empty("turns")
    directory.mkdir()
    with turnlog(directory / "data") as ours, do_nothing(directory) as nothing:
        for number in plan.rounds(SUITE):
            name = f"turns-{number}"
            base = _load(plan, nothing, CONNECTIONS, name, figures, "nothing")
            turns = _load(plan, ours, CONNECTIONS, name, figures, "turns")
            figures.add(f"turns / nothing, {CONNECTIONS} connections", turns / base, "ratio", ">=", 0.30)
            _load(plan, nothing, 1, f"{name}-lone", figures, "nothing")
            _load(plan, ours, 1, f"{name}-lone", figures, "turns")
    return figures.all()


def _load(plan: Plan, server: Server, connections: int, session: str, figures: Figures, what: str) -> float:
    loaded = server.load(
        text(USER_CHARACTERS),
        session,
        connections=connections,
        warm_up_s=plan.sizes.turns_warm_up_s,
        measure_s=plan.sizes.turns_s,
        session_turns=SESSION_TURNS,
    )
    per_s = len(loaded.took_ms) / loaded.seconds
    at = f"{what}, {connections} connection{'s' if connections > 1 else ''}"
    is_meant = what == "turns" and connections == 1
    figures.add(at, per_s, f"{'turns' if what == 'turns' else 'requests'}/s")
    figures.add(f"{at}: p50", median(loaded.took_ms), "ms", "<" if is_meant else None, 3)
    figures.add(f"{at}: p99", percentile(loaded.took_ms, 99), "ms")
    return per_s
