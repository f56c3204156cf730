"""How soon a server is back."""

import time

import uvloop

from eventstore.sqlite import SqliteLog
from projections.rebuild import rebuild
from projections.runner import VIEWS_FILE
from projections.views import VIEWS
from tools.bench.figures import Figure, Figures
from tools.bench.plan import Plan
from tools.bench.server import turnlog

SUITE = "restart"


def measure(plan: Plan) -> list[Figure]:
    """Seconds from the start of the process to the first 200 of GET /health, with the generated log and up-to-date
    views.
    """
    data = plan.generated()
    uvloop.run(_build_views(plan))
    figures = Figures(SUITE)
    for _ in plan.rounds(SUITE):
        with turnlog(data) as server:
            server.get("/health")
            took_s = time.perf_counter() - server.started
        figures.add(f"{plan.sizes.events:,} events: until /health answers", took_s, "s", "<", 1.5)
    return figures.all()


async def _build_views(plan: Plan) -> None:
    data = plan.generated()
    log = await SqliteLog.open_read_only(data)
    try:
        store = await rebuild(log, data / VIEWS_FILE, VIEWS)
        store.close()
    finally:
        await log.close()
