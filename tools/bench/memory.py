"""Whether memory grows with the number of sessions ever seen."""

from tools.bench.figures import Figure, Figures
from tools.bench.generate import text
from tools.bench.plan import Plan
from tools.bench.server import turnlog
from tools.bench.turns import CONNECTIONS, USER_CHARACTERS

SUITE = "memory"


def measure(plan: Plan) -> list[Figure]:
    """Resident MB of the server as it starts and after 20,000 sessions of one turn each over HTTP, and how many of
    those it takes a second at 32 connections.
    """
    figures = Figures(SUITE)
    sessions = plan.sizes.sessions
    for number in plan.rounds(SUITE):
        data = plan.empty(f"memory-{number}") / "data"
        data.parent.mkdir()
        with turnlog(data) as server:
            server.get("/health")
            figures.add("at the start", server.resident_mb(), "MB")
            loaded = server.load(
                text(USER_CHARACTERS), "memory", connections=CONNECTIONS, turns=sessions, session_turns=1
            )
            server.settle()
            figures.add(f"after {sessions:,} sessions", server.resident_mb(), "MB", "<", 120)
        figures.add("new sessions, 32 connections", len(loaded.took_ms) / loaded.seconds, "sessions/s")
    return figures.all()
