"""The first byte of a streamed answer: what turnlog adds to its model server's own time.

The same request goes to a model server that answers at once, directly and through turnlog, in alternating pairs, each
on a connection that is kept alive. A pair's difference is what is counted: the machine's moods hit both alike.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path

import msgspec

from tools.bench.figures import Figure, Figures, median, percentile
from tools.bench.generate import text
from tools.bench.loader import PATH
from tools.bench.plan import Plan
from tools.bench.server import other, turnlog

SUITE = "streams"
USER_CHARACTERS = 80
SESSION_TURNS = 100
WARM_UP_PAIRS = 20

_Ask = Callable[[bytes, dict[str, str]], float]


def measure(plan: Plan) -> list[Figure]:
    """Streamed chat turns of 80 characters, one after the other: ms to the first byte of the answer's body, directly
    and through turnlog, p50 and p99; and those of the difference.
    """
    figures = Figures(SUITE)
    directory = plan.empty("streams")
    directory.mkdir()
    for number in plan.rounds(SUITE):
        _measure(plan.sizes.streams, directory, number, figures)
    return figures.all()


def _measure(pairs: int, directory: Path, number: int, figures: Figures) -> None:
    with contextlib.ExitStack() as parts:
        model = parts.enter_context(other("model", directory))
        upstream = f"http://{model.host}:{model.port}/v1"
        ours = parts.enter_context(turnlog(directory / f"data-{number}", "--upstream", upstream))
        directly, through = parts.enter_context(model.streams(PATH)), parts.enter_context(ours.streams(PATH))
        _pairs(directly, through, "warm-up", WARM_UP_PAIRS)
        took = _pairs(directly, through, "measured", pairs)
    added = [ours_ms - its_ms for its_ms, ours_ms in took]
    its_own, whole = zip(*took, strict=True)
    for what, samples, target in (
        ("first streamed byte, the model server's own", its_own, None),
        ("first streamed byte through turnlog", whole, None),
        ("first streamed byte, what turnlog adds", added, 3),
    ):
        figures.add(f"{what}: p50", median(samples), "ms", "<=" if target else None, target or 0)
        figures.add(f"{what}: p99", percentile(samples, 99), "ms")


def _pairs(directly: _Ask, through: _Ask, name: str, count: int) -> list[tuple[float, float]]:
    """What the first byte took, directly and through turnlog, `count` times; either goes first in every other pair."""
    said = [{"role": "user", "content": text(USER_CHARACTERS)}]
    body = msgspec.json.encode({"model": "m", "stream": True, "messages": said})
    took = []
    for number in range(count):
        headers = {"Content-Type": "application/json", "X-Hermes-Session-Id": f"{name}-{number // SESSION_TURNS}"}
        if number % 2:
            ours_ms = through(body, headers)
            its_ms = directly(body, headers)
        else:
            its_ms = directly(body, headers)
            ours_ms = through(body, headers)
        took.append((its_ms, ours_ms))
    return took
