"""One long session over HTTP: whether its turns get slower, and whether they take more room, as it grows."""

from itertools import pairwise
from pathlib import Path

import msgspec

from eventstore.sqlite import LOG_FILE
from projections.runner import VIEWS_FILE
from tools.bench.figures import Figure, Figures, median
from tools.bench.generate import text
from tools.bench.plan import Plan
from tools.bench.server import BenchFailed, Server, turnlog

SUITE = "session"
USER_CHARACTERS = 400
EARLY = slice(4, 15)  # turns 5 to 15: "turn 10"
ENDS = 50  # how many turns are the beginning of a session, and how many its end
WARM_UP_TURNS = 200


class _Message(msgspec.Struct):
    content: str


class _Messages(msgspec.Struct):
    data: list[_Message]
    total: int


_decode = msgspec.json.Decoder(_Messages).decode


def measure(plan: Plan) -> list[Figure]:
    """A session of 1,000 turns of 400 characters on one connection: p50 in ms of turns 5 to 15, the first and the last
    50, and the last against the early ones; then what a turn takes on disk, in bytes, in either half of another such
    session, and as a multiple of what was said in it.
    """
    figures = Figures(SUITE)
    for number in plan.rounds(SUITE):
        directory = plan.empty(f"session-{number}")
        directory.mkdir()
        _latency(plan, directory / "latency", figures)
        _storage(plan, directory / "storage", figures)
    return figures.all()


def _latency(plan: Plan, data: Path, figures: Figures) -> None:
    with turnlog(data) as server:
        server.load(text(USER_CHARACTERS), "warm-up", turns=WARM_UP_TURNS, session_turns=10)
        took_ms = server.load(text(USER_CHARACTERS), "long", turns=plan.sizes.session_turns).took_ms
    early, last = median(took_ms[EARLY]), median(took_ms[-ENDS:])
    figures.add("turn 10 (5 to 15), p50", early, "ms")
    figures.add(f"first {ENDS} turns, p50", median(took_ms[:ENDS]), "ms")
    figures.add(f"last {ENDS} of {plan.sizes.session_turns} turns, p50", last, "ms")
    figures.add(f"last {ENDS} / turn 10", last / early, "ratio", "<=", 1.2)


def _storage(plan: Plan, data: Path, figures: Figures) -> None:
    half = plan.sizes.session_turns // 2
    with turnlog(data):
        pass
    sizes = [_stored_bytes(data)]
    said = [0]
    for end in (half, 2 * half):
        with turnlog(data) as server:
            server.load(text(USER_CHARACTERS), "stored", turns=half)
            server.settle()
            said.append(_said_bytes(server, "stored-0", 2 * end))
        sizes.append(_stored_bytes(data))
    first, second = ((after - before) / half for before, after in pairwise(sizes))
    figures.add(f"stored per turn, turns 1 to {half}", first, "bytes")
    figures.add(f"stored per turn, turns {half + 1} to {2 * half}", second, "bytes")
    figures.add("second half / first half", second / first, "ratio")
    figures.add("stored / new content", (sizes[-1] - sizes[0]) / said[-1], "ratio", "<", 2.5)


def _stored_bytes(data: Path) -> int:
    """The log and the views after a clean stop, which leaves nothing in a write-ahead log."""
    return sum(path.stat().st_size for name in (LOG_FILE, VIEWS_FILE) for path in data.glob(f"{name}*"))


def _said_bytes(server: Server, session_id: str, messages: int) -> int:
    """How many bytes of text the session's user and model have said: all `messages` of them must be there."""
    said: list[_Message] = []
    while len(said) < messages:
        page = _decode(server.get(f"/api/sessions/{session_id}/messages?offset={len(said)}"))
        if page.total != messages or not page.data:
            raise BenchFailed(f"the session has {page.total} messages, {messages} were expected")
        said += page.data
    return sum(len(message.content.encode()) for message in said)
