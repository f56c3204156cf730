"""Parts of the log: by position, stream, version, tenant and type, looked for in bounded steps."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eventstore import chain, places
from eventstore.events import (
    STORED_TYPES,
    ConversationCreated,
    Erased,
    Event,
    SessionEnded,
    conversation_stream,
    lineage_stream,
    queue_stream,
    type_name,
)
from eventstore.log import LogDamaged, Part, Recorded
from eventstore.selection import every, is_in
from eventstore.sqlite import LOG_FILE, SqliteLog
from tests.support.facts import STREAM, completed, session_started, started

TENANTS = ("a", "a-b", "ab", "b")
NAMES = ("s1", "s%", "a", "a/b", "/a/s1", "_", "é", "s1/a")
STREAMS = [f(tenant, name) for f in (lineage_stream, conversation_stream) for tenant in TENANTS for name in NAMES]
FACTS: tuple[Event, ...] = (
    session_started(),
    started("t1"),
    completed("t1", "x" * 300),
    SessionEnded(reason="done"),
    ConversationCreated(name="a", session_id="b"),
)

positions = st.integers(0, 70)
parts = st.builds(
    Part,
    after_position=positions,
    until_position=st.none() | positions,
    tenant=st.sampled_from(("", *TENANTS, "c", "%")),
    stream=st.sampled_from(("", "", *STREAMS)),
    after_version=st.just(0) | st.integers(0, 9),
    until_version=st.none() | st.integers(0, 9),
    types=st.frozensets(st.sampled_from([cls.__name__ for cls in STORED_TYPES])) | st.just(frozenset()),
)


async def everything(log: SqliteLog) -> list[Recorded]:
    return [recorded async for batch in log.read_all() for recorded in batch]


async def fill(log: SqliteLog, lengths: list[int]) -> None:
    """Some events in many streams of many tenants, the streams between each other."""
    versions = dict.fromkeys(STREAMS, 0)
    for number, length in enumerate(lengths):
        stream = STREAMS[number * 7 % len(STREAMS)] if number % 3 else STREAMS[0]
        events = [FACTS[(number + n) % len(FACTS)] for n in range(length)]
        await log.append(stream, versions[stream], events)
        versions[stream] += length


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(parts, min_size=8, max_size=12),
    st.integers(1, 9),
    st.sampled_from(((20_000, 200_000, 8_000_000), (7, 15, 900), (1, 1, 1))),
)
async def test_a_part_is_the_log_filtered(
    monkeypatch: pytest.MonkeyPatch, filled: SqliteLog, wanted: list[Part], limit: int, bounds: tuple[int, int, int]
) -> None:
    for name, value in zip(("WINDOW", "LOOKED_MAX"), bounds, strict=False):
        monkeypatch.setattr(places, name, value)
    whole = await everything(filled)
    for part in wanted:
        expected = [recorded for recorded in whole if is_in(part, recorded)]
        assert [recorded async for batch in every(filled, part) for recorded in batch] == expected
        found = await filled.select(part, limit, bounds[-1])
        assert found.events == [recorded for recorded in expected if recorded.position <= found.looked_to]
        assert len(found.events) <= limit
        assert found.looked_to >= part.after_position
        assert found.is_all or found.looked_to > part.after_position


@pytest_asyncio.fixture
async def filled(log: SqliteLog) -> SqliteLog:
    """A log of some sixty events."""
    await fill(log, [1, 2, 3, 1, 4] * 6)
    return log


async def test_a_page_that_holds_the_last_event_says_so(filled: SqliteLog) -> None:
    whole = await everything(filled)
    head = whole[-1].position
    assert await filled.select(Part(), len(whole)) == (whole, head, True)
    assert await filled.select(Part(), len(whole) - 1) == (whole[:-1], head - 1, False)
    assert await filled.select(Part(after_position=head)) == ([], head, True)
    assert await filled.select(Part(after_position=head + 5)) == ([], head + 5, True)
    assert await filled.select(Part(stream="lineage/a/none")) == ([], head, True)
    assert await filled.select(Part(types=frozenset({"TurnQueued"}))) == ([], head, True)


async def test_an_empty_log_has_no_part(log: SqliteLog) -> None:
    assert await log.select(Part()) == ([], 0, True)
    assert await log.select(Part(stream=STREAM, after_position=3)) == ([], 3, True)


async def test_a_long_look_ends_and_says_how_far_it_came(filled: SqliteLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "LOOKED_MAX", 20)
    nothing = frozenset({"TurnQueued"})
    assert await filled.select(Part(types=nothing)) == ([], 20, False)
    monkeypatch.setattr(places, "LOOKED_MAX", 3)
    fourth = (await filled.read(STREAMS[0]))[3 - 1]
    assert await filled.select(Part(stream=STREAMS[0], types=nothing)) == ([], fourth.position, False)


async def test_an_event_larger_than_a_look_is_found_alone(log: SqliteLog) -> None:
    await log.append(STREAM, 0, [started(f"t{n}", "x" * 5_000) for n in range(3)])
    for after in range(3):
        found = await log.select(Part(after_position=after), bytes_max=1_000)
        assert [recorded.position for recorded in found.events] == [after + 1]
        assert found.is_all == (after == 2)


async def test_other_reads_come_in_between_the_steps_of_a_long_look(
    filled: SqliteLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "WINDOW", 1)
    long = asyncio.create_task(filled.select(Part(types=frozenset({"TurnQueued"}))))
    await filled.read(STREAM)
    assert not long.done()
    await long


async def test_what_was_altered_is_never_found_as_history(data: Path, filled: SqliteLog) -> None:
    db = sqlite3.connect(data / LOG_FILE)
    with db:
        db.execute("DROP TRIGGER events_are_never_updated")
        db.execute("UPDATE events SET recorded_us = recorded_us + 1 WHERE position = 9")
    db.close()
    assert len((await filled.select(Part(until_position=8))).events) == 8
    with pytest.raises(LogDamaged, match="position 9"):
        await filled.select(Part(after_position=8))


async def test_what_was_erased_is_found_by_its_type(data: Path, filled: SqliteLog) -> None:
    kind = type_name((await filled.at([9]))[0].event)
    db = sqlite3.connect(data / LOG_FILE)
    with db:
        db.execute("DROP TRIGGER events_are_never_updated")
        ((content,),) = db.execute("SELECT data FROM events WHERE position = 9").fetchall()
        db.execute("UPDATE events SET data = ? WHERE position = 9", (chain.digest(content),))
    db.close()
    found = await filled.select(Part(after_position=8, until_position=9, types=frozenset({kind})))
    assert [recorded.event for recorded in found.events] == [Erased(kind=kind)]


async def test_a_tool_beside_the_server_finds_what_was_recorded_since_it_opened_the_log(
    data: Path, log: SqliteLog
) -> None:
    await log.append(STREAM, 0, (session_started(),))
    beside = await SqliteLog.open_read_only(data)
    await log.append(queue_stream("acme", "t9"), 0, (started("t9"),))
    assert [recorded.position for recorded in (await beside.select(Part())).events] == [1, 2]
    await beside.close()
