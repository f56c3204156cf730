"""The queue in the log: what is put into it comes out whole, in order, and once."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from api.ids import new_session_id
from api.turns.directory import Directory
from api.turns.queue import BEGUN, Queue
from api.turns.request import Names, TurnRequest
from eventstore.events import Identity, TurnDequeued, TurnQueued, lineage_stream, queue_stream
from eventstore.sqlite import SqliteLog
from projections.runner import VIEWS_FILE, Runner
from projections.views import VIEWS
from tests.support.facts import started, user
from tests.test_views import given as given_facts

REQUEST = TurnRequest(
    tenant="acme",
    api="responses",
    names=Names("s1", "slug", "resp_t0"),
    model="m",
    items=(user("new"),),
    opening=(user("old"), b'{"role":"assistant","content":"said"}', user("new")),
    instructions=(b'{"role":"system","content":"brief"}',),
    parameters=b'{"temperature":0.5}',
    stream=True,
    session_key="k",
    identity=Identity(user_id="u"),
    idempotency_key="key",
    body_digest=b"\x01",
    compact_threshold_tokens=1_000,
    uses_memory=False,
    background=True,
    turn_id="t1",
    history=2,
    root_id="s1",
)
# Of a response that is asked for in the background, which is never over a socket: the route is its API's, the scope of
# its key is found as it begins.
NEVER = {"route", "idempotency_scope", "must_exist", "continues", "seen"}
T1 = queue_stream("acme", "t1")


class Opened:
    """A queue, with the log that it is in."""

    def __init__(self, log: SqliteLog, views: Runner) -> None:
        self.log = log
        self.queue = Queue(log, views, Directory(log, views, new_session_id))


@pytest_asyncio.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opened]:
    log = await SqliteLog.open(tmp_path)
    views = await Runner.start(log, tmp_path / VIEWS_FILE, VIEWS)
    yield Opened(log, views)
    await views.stop()
    await log.close()


def test_the_example_has_something_in_every_field() -> None:
    for field in msgspec.structs.fields(TurnRequest):
        assert (getattr(REQUEST, field.name) == field.default) == (field.name in NEVER), field.name


@pytest.mark.parametrize("request_", [REQUEST, msgspec.structs.replace(REQUEST, items=REQUEST.opening, history=0)])
async def test_what_is_queued_comes_out_whole(opened: Opened, request_: TurnRequest) -> None:
    await opened.queue.put(request_)
    assert await opened.queue.left() == [request_]


async def test_the_queue_keeps_its_order_and_what_is_taken_is_gone(opened: Opened) -> None:
    requests = [msgspec.structs.replace(REQUEST, turn_id=f"t{number}") for number in (3, 1, 2)]
    for request in requests:
        await opened.queue.put(request)
    await opened.queue.take(requests[1], "cancelled")
    assert await opened.queue.left() == [requests[0], requests[2]]


async def test_one_that_has_begun_is_passed_over(opened: Opened) -> None:
    await opened.queue.put(REQUEST)
    await opened.log.append(lineage_stream("acme", "s1"), 0, (started("t1", api="responses", background=True),))
    assert await opened.queue.left() == []
    assert [entry.event for entry in await opened.log.read(T1, 1)] == [TurnDequeued(turn_id="t1", reason=BEGUN)]


def test_only_what_waits_is_in_the_view(tmp_path: Path) -> None:
    queued = TurnQueued(turn_id="t1", api="responses", model="m", items=(user("a"),), new_items=1)
    given_facts(tmp_path, queued, stream=T1).then_rows("queued", (1, "acme", "t1"))
    taken = TurnDequeued(turn_id="t1", reason=BEGUN)
    given_facts(tmp_path, queued, taken, stream=T1).then_rows("queued")
