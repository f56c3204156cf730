"""Names, and what becomes of them when the lineage that they led to is deleted."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from api.turns.directory import Directory
from api.turns.refusals import ConversationNotFound, SessionNotFound
from api.turns.request import Names
from eventstore.events import Event
from eventstore.log import Recorded
from eventstore.sqlite import SqliteLog


class GatedViews:
    """Views that hold one answer at a gate: rows that were read, and not told yet."""

    def __init__(self, rows: list[Any]) -> None:
        self.rows = rows
        self.read = asyncio.Event()
        self.gate = asyncio.Event()

    async def fetch(self, _sql: str, _parameters: Sequence[object]) -> list[Any]:
        rows = self.rows
        self.read.set()
        await self.gate.wait()
        return rows


class SlowlyToldLog(SqliteLog):
    """A log whose appends are durable, and something else happens before whoever appended is told so."""

    before_it_is_told: Callable[[], None]

    async def append(self, stream: str, expected_version: int, events: Sequence[Event]) -> tuple[Recorded, ...]:
        recorded = await super().append(stream, expected_version, events)
        self.before_it_is_told()
        return recorded


async def test_a_name_that_was_read_before_a_deletion_is_not_remembered_behind_it(data: Path) -> None:
    log = await SqliteLog.open(data)
    views = GatedViews([("s1",)])
    directory = Directory(log, views, lambda: "new")
    asking = asyncio.create_task(directory.session("acme", "s2"))
    await views.read.wait()
    views.rows = []
    directory.forget_lineage("acme", "s1")
    views.gate.set()
    assert await asking == "s1"  # it was asked before the deletion
    with pytest.raises(SessionNotFound):
        await directory.session("acme", "s2")
    await log.close()


async def test_a_deleted_lineage_loses_all_its_names_and_no_other_does(data: Path) -> None:
    log = await SqliteLog.open(data)
    views = GatedViews([])
    views.gate.set()
    directory = Directory(log, views, lambda: "new")
    for tenant, name, root in (("acme", "s1", "s1"), ("acme", "s2", "s1"), ("acme", "x", "x"), ("bravo", "s1", "s1")):
        directory.learn(tenant, "session", name, root)
    directory.forget_lineage("acme", "s1")
    for name in ("s1", "s2"):
        with pytest.raises(SessionNotFound):
            await directory.session("acme", name)
    assert await directory.session("acme", "x") == "x"
    assert await directory.session("bravo", "s1") == "s1"
    await log.close()


async def test_a_deleted_conversation_is_forgotten_and_so_is_one_that_was_just_looked_up(data: Path) -> None:
    log = await SqliteLog.open(data)
    views = GatedViews([("s1",)])
    directory = Directory(log, views, lambda: "new")
    asking = asyncio.create_task(directory.conversation("acme", "trip"))
    await views.read.wait()
    views.rows = []
    directory.forget_conversation("acme", "trip")
    views.gate.set()
    assert await asking == "s1"
    with pytest.raises(ConversationNotFound):
        await directory.conversation("acme", "trip")
    directory.learn("acme", "conversation", "trip", "s1")
    directory.forget_conversation("bravo", "trip")
    assert await directory.conversation("acme", "trip") == "s1"
    await log.close()


async def test_a_name_that_was_deleted_while_it_was_claimed_is_not_remembered(data: Path) -> None:
    log = await SlowlyToldLog.open(data)
    views = GatedViews([])
    views.gate.set()
    directory = Directory(log, views, lambda: "new")
    log.before_it_is_told = lambda: directory.forget_conversation("acme", "trip")
    assert (await directory.place("acme", Names(conversation="trip"))).root_id == "new"
    with pytest.raises(ConversationNotFound):
        await directory.conversation("acme", "trip")
    await log.close()
