"""What a compression adds to the turn that it comes before, beyond the call for the summary itself.

The built-in model writes no summaries, so the one that is made without a model takes no call at all: what is left is
turnlog's own part.
"""

from pathlib import Path

import msgspec

from tools.bench.figures import Figure, Figures, median
from tools.bench.generate import text
from tools.bench.loader import PATH
from tools.bench.plan import Plan
from tools.bench.server import BenchFailed, Server, turnlog

SUITE = "compression"
USER_CHARACTERS = 2_000
BEFORE = 10  # turns that a rotating one is compared with: those just before it, which send the longest prompts
TURNS_MAX = 400  # by then a session of these turns must have been compressed


def measure(plan: Plan) -> list[Figure]:
    """p50 in ms of the turns before which a session was compressed, at the default threshold of 64,000 tokens, less
    that of the turns just before them.
    """
    figures = Figures(SUITE)
    for number in plan.rounds(SUITE):
        _measure(plan, plan.empty(f"compression-{number}"), figures)
    return figures.all()


def _measure(plan: Plan, data: Path, figures: Figures) -> None:
    with turnlog(data) as server:
        pairs = [_rotation(server, f"long-{number}") for number in range(plan.sizes.rotations)]
    rotating, plain = median([pair[0] for pair in pairs]), median([pair[1] for pair in pairs])
    figures.add("a turn just before the threshold, p50", plain, "ms")
    figures.add("a turn that rotates, p50", rotating, "ms")
    figures.add("what the compression adds", rotating - plain, "ms", "<", 5)


def _rotation(server: Server, session: str) -> tuple[float, float]:
    """A session until it is compressed: what that turn took, and what the turns before it took (p50), in ms."""
    body = msgspec.json.encode({"messages": [{"role": "user", "content": text(USER_CHARACTERS)}]})
    took: list[float] = []
    for _ in range(TURNS_MAX):
        took_ms, headers = server.post(PATH, body, {"X-Hermes-Session-Id": session})
        if headers.get("x-turnlog-compression") == "rotated":
            return took_ms, median(took[-BEFORE:])
        took.append(took_ms)
    raise BenchFailed(f"a session of {TURNS_MAX} turns was not compressed")
