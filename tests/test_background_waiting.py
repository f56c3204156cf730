"""Responses that wait in the background, and what happens meanwhile: names go, the log goes, room runs out."""

import asyncio
import time
from functools import partial
from pathlib import Path
from typing import Any

import openai
import pytest

from api.context import EVICTION
from api.turns import unbegun
from eventstore.events import TurnDequeued
from tests.support.api import call
from tests.support.background import S1, TEXT, ask, ended, hold
from tests.support.runs import start_run
from tests.support.server import Server, serving
from tests.support.upstream import Upstream
from tests.test_background import queued_behind, refused
from tests.test_crash import recorded
from tests.test_degraded import out_of_reach, views_are_back

KEYED = S1 | {"Idempotency-Key": "k"}


async def waiting(server: Server, upstream: Upstream, name: str) -> str:
    """A response that waits for another of the conversation."""
    hold(upstream)
    await ask(server, "first", conversation=name)
    second = await ask(server, "second", conversation=name)
    assert second.status == "queued"
    return second.id


async def conversation_of(server: Server, kind: str) -> str:
    return "slug" if kind == "slug" else (await server.openai.conversations.create()).id


async def delete_conversation(server: Server, name: str) -> None:
    await server.openai.conversations.delete(name)


async def delete_session(server: Server, _: str) -> None:
    [session] = (await server.get("/api/sessions"))["data"]
    await call(server, "DELETE", f"/api/sessions/{session['id']}", 200)


async def check_refused(server: Server, response_id: str, name: str) -> None:
    """It has failed, since there is no such conversation, and none came of it."""
    failed = await ended(server, response_id)
    assert (failed.status, failed.error and name in failed.error.message) == ("failed", True)
    with pytest.raises(openai.NotFoundError):
        await server.openai.conversations.retrieve(name)


async def check_taken(data: Path, name: str) -> None:
    """It is out of the queue, and the log says why."""
    [taken] = [entry.event for entry in await recorded(data) if isinstance(entry.event, TurnDequeued)]
    assert name in taken.reason


# Names


@pytest.mark.parametrize("kind", ["slug", "conv"])
@pytest.mark.parametrize("delete", [delete_conversation, delete_session])
async def test_a_queued_one_is_refused_once_its_conversation_is_gone(
    data: Path, upstream: Upstream, kind: str, delete: Any
) -> None:
    async with serving(data, upstream=upstream.url) as server:
        name = await conversation_of(server, kind)
        response_id = await waiting(server, upstream, name)
        await delete(server, name)
        upstream.gate.set()
        await check_refused(server, response_id, name)
    assert len(upstream.requests) == 1
    await check_taken(data, name)


@pytest.mark.parametrize("kind", ["slug", "conv"])
async def test_the_same_after_a_restart(data: Path, upstream: Upstream, kind: str) -> None:
    serve = partial(serving, data, upstream=upstream.url)
    async with serve() as server:
        name = await conversation_of(server, kind)
        response_id = await waiting(server, upstream, name)
        await server.openai.conversations.delete(name)
    upstream.gate.set()
    async with serve() as server:
        await check_refused(server, response_id, name)
    assert len(upstream.requests) == 2, "the first was asked for again"
    await check_taken(data, name)


async def test_a_queued_one_does_not_go_on_where_its_slug_leads_by_now(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        response_id = await waiting(server, upstream, "slug")
        await server.openai.conversations.delete("slug")
        other = asyncio.create_task(
            server.openai.responses.create(model="m", input="other", conversation="slug")  # claims the name anew
        )
        await upstream.wait_for_requests(2)
        upstream.gate.set()
        assert (await other).output_text == TEXT
        failed = await ended(server, response_id)
        assert failed.status == "failed"
        assert len((await server.openai.conversations.items.list("slug")).data) == 2


async def test_a_turn_in_front_claims_the_name_anew_that_was_deleted_while_it_waited(
    server: Server, upstream: Upstream
) -> None:
    hold(upstream)
    await ask(server, "first", conversation="slug")
    second = asyncio.create_task(server.openai.responses.create(model="m", input="second", conversation="slug"))
    await asyncio.sleep(0.2)  # until it waits
    await server.openai.conversations.delete("slug")
    upstream.gate.set()
    assert (await second).output_text == TEXT
    assert upstream.messages[-1] == [{"role": "user", "content": "second"}]
    assert len((await server.openai.conversations.items.list("slug")).data) == 2


# The log out of reach


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/runs"])
async def test_none_is_made_without_the_log_even_where_turns_are_answered_without_history(
    data: Path, upstream: Upstream, path: str
) -> None:
    body = {"model": "m", "input": "hello"} | ({"background": True} if path == "/v1/responses" else {})
    async with serving(data, upstream=upstream.url, history_on_failure="empty") as server:
        with out_of_reach(data):
            error = await call(server, "POST", path, 503, json=body)
            await call(server, "POST", "/v1/responses", 200, json={"model": "m", "input": "in front"})
        assert error["code"] == "log_unavailable"
        await views_are_back(server)
    assert len(upstream.requests) == 1


# Items


async def test_the_input_of_a_queued_one_can_be_read_and_of_a_cancelled_one_too(
    server: Server, upstream: Upstream
) -> None:
    first, second = await queued_behind(server, upstream)
    for _ in range(2):
        listed = await server.openai.responses.input_items.list(second, order="asc")
        [item] = listed.model_dump()["data"]
        assert item["content"][0]["text"] == "second"
        await server.openai.responses.cancel(second)
    upstream.gate.set()
    await ended(server, first)


async def test_those_that_never_began_are_kept_up_to_a_weight_newest_first(
    server: Server, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unbegun, "UNBEGUN_MAX_BYTES", 10_000)
    hold(upstream)
    await ask(server, "first", extra_headers=S1)
    cancelled = []
    for length in (4_000, 4_000, 4_000, 20_000):
        queued = await ask(server, "x" * length, extra_headers=S1)
        cancelled.append((await server.openai.responses.cancel(queued.id)).id)
        if len(cancelled) == 3:
            await refused(server.openai.responses.retrieve(cancelled[0]), 404)
            assert (await server.openai.responses.retrieve(cancelled[1])).status == "cancelled"
    for response_id in cancelled[:3]:
        await refused(server.openai.responses.retrieve(response_id), 404)
    assert (await server.openai.responses.retrieve(cancelled[3])).status == "cancelled"
    upstream.gate.set()


# Room, and age


async def test_what_a_key_has_made_is_told_where_there_is_no_room_for_more(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url, runs_max=2) as server:
        hold(upstream)
        first = await ask(server, "first", extra_headers=KEYED)
        queued = await ask(server, "second", extra_headers=S1 | {"Idempotency-Key": "q"})
        assert (await ask(server, "first", extra_headers=KEYED)).id == first.id
        assert (await ask(server, "second", extra_headers=S1 | {"Idempotency-Key": "q"})).id == queued.id
        other = await refused(ask(server, "other", extra_headers=KEYED), 409)
        assert other["code"] == "idempotency_key_conflict"
        for headers in ({}, S1 | {"Idempotency-Key": "new"}):
            assert (await refused(ask(server, "new", extra_headers=headers), 429))["code"] == "rate_limit_exceeded"
        upstream.gate.set()
        assert (await ended(server, queued.id)).output_text == TEXT


async def test_the_same_of_a_run(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url, runs_max=1) as server:
        hold(upstream)
        run_id = await start_run(server, "one", headers={"Idempotency-Key": "k"})
        assert await start_run(server, "one", headers={"Idempotency-Key": "k"}) == run_id
        upstream.gate.set()


async def test_one_that_was_queued_is_as_old_as_its_turn(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url, response_ttl_s=3_600.0) as server:
        first, second = await queued_behind(server, upstream)
        queued_until_us = time.time_ns() // 1_000
        upstream.gate.set()
        for response_id in (first, second):
            assert (await ended(server, response_id)).status == "completed"
        assert server.app is not None
        await server.app[EVICTION].sweep(queued_until_us + 3_600_000_000)
        await refused(server.openai.responses.retrieve(first), 404)
        assert (await server.openai.responses.retrieve(second)).status == "completed"
        await server.app[EVICTION].sweep(time.time_ns() // 1_000 + 3_600_000_000)
        await refused(server.openai.responses.retrieve(second), 404)
