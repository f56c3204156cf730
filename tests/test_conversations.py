"""/v1/conversations, by the official SDK: made, read, annotated, deleted, listed; restarts, slugs, tenants."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import openai
import pytest
import pytest_asyncio

from api.context import LINEAGES
from tests.support.api import call
from tests.support.lasting import Lasting, lasting
from tests.support.server import Server
from tests.support.upstream import Upstream
from tests.test_bad_input import two_tenants

SESSION_ID = "X-Hermes-Session-Id"
HELLO: Any = {"type": "message", "role": "user", "content": "hello"}
PATH = "/v1/conversations"


@pytest_asyncio.fixture
async def lasts(data: Path, upstream: Upstream) -> AsyncIterator[Lasting]:
    async with lasting(data, upstream=upstream.url) as running:
        yield running


async def ask(server: Server, text: str, **options: Any) -> tuple[str, str]:
    """One response: its text, and the id of the session it was made in."""
    answer = await server.openai.responses.with_raw_response.create(model="m", input=text, **options)
    return answer.parse().output_text, answer.headers[SESSION_ID]


async def test_a_conversation_is_made_read_annotated_and_deleted_across_restarts(lasts: Lasting) -> None:
    made = await lasts.openai.conversations.create(metadata={"topic": "boats"})
    assert (made.object, made.metadata) == ("conversation", {"topic": "boats"})
    assert made.id.startswith("conv_")
    await lasts.restart()
    assert await lasts.openai.conversations.retrieve(made.id) == made
    await lasts.restart()
    updated = await lasts.openai.conversations.update(made.id, metadata={"who": "ada"})
    assert updated.metadata == {"who": "ada"}
    await lasts.restart()
    assert await lasts.openai.conversations.retrieve(made.id) == updated
    assert updated.created_at == made.created_at
    cleared = await lasts.openai.conversations.update(made.id, metadata=None)
    assert cleared.metadata == {}
    gone = await lasts.openai.conversations.delete(made.id)
    assert (gone.id, gone.object, gone.deleted) == (made.id, "conversation.deleted", True)
    for _ in range(2):
        with pytest.raises(openai.NotFoundError):
            await lasts.openai.conversations.retrieve(made.id)
        await lasts.restart()


async def test_nothing_begins_before_there_is_something_in_it(server: Server) -> None:
    made = await server.openai.conversations.create()
    assert made.metadata == {}
    assert (await server.get("/api/sessions"))["data"] == []
    assert (await server.openai.conversations.items.list(made.id)).data == []
    text, session_id = await ask(server, "one", conversation=made.id)
    assert text == "1: one"
    (row,) = (await server.get("/api/sessions"))["data"]
    assert row["id"] == session_id


async def test_items_of_its_beginning_reach_the_model(lasts: Lasting, upstream: Upstream) -> None:
    answer = await lasts.openai.conversations.with_raw_response.create(
        items=[HELLO, {"role": "assistant", "content": "hi"}],
        extra_headers={"X-Hermes-Session-Key": "ada", "X-Hermes-User-Id": "u-1"},
    )
    made = answer.parse()
    assert (answer.headers["X-Hermes-Session-Key"], answer.headers["X-Hermes-User-Id"]) == ("ada", "u-1")
    session_id = answer.headers[SESSION_ID]
    (row,) = (await lasts.server.get("/api/sessions"))["data"]
    assert (row["id"], row["session_key"], row["user_id"], row["preview"]) == (session_id, "ada", "u-1", "hello")
    await lasts.restart()
    assert await ask(lasts.server, "and you?", conversation=made.id) == ("3: and you?", session_id)
    assert [message["content"] for message in upstream.messages[0]] == ["hello", "hi", "and you?"]
    shown = await lasts.server.messages(session_id)
    assert [(message["role"], message["content"], message["status"]) for message in shown] == [
        ("user", "hello", "completed"),
        ("assistant", "hi", "completed"),
        ("user", "and you?", "completed"),
        ("assistant", "3: and you?", "completed"),
    ]


async def test_a_conversation_can_be_made_of_a_session(server: Server) -> None:
    await server.chat("one", "s1")
    answer = await server.openai.conversations.with_raw_response.create(items=[HELLO], extra_headers={SESSION_ID: "s1"})
    assert answer.headers[SESSION_ID] == "s1"
    made = answer.parse()
    assert await ask(server, "three", conversation=made.id) == ("4: three", "s1")
    new = await server.openai.conversations.create(extra_headers={SESSION_ID: "s2"})
    assert await ask(server, "one", conversation=new.id) == ("1: one", "s2")


async def test_another_session_than_its_own_is_refused(server: Server) -> None:
    await server.chat("one", "s1")
    made = await server.openai.conversations.create()
    for path in (f"{PATH}/{made.id}/items", f"{PATH}/{made.id}/items/msg_1"):
        error = await call(server, "GET", path, 400, headers={SESSION_ID: "s1"})
        assert error["code"] == "session_mismatch"


# Slugs


@pytest.mark.parametrize("slug", ["trip", "trips/rome?#&%", "ünï cödé", "conversation"])
async def test_a_slug_is_an_id_too(lasts: Lasting, slug: str) -> None:
    _, session_id = await ask(lasts.server, "one", conversation=slug)
    await lasts.restart()
    made = await lasts.openai.conversations.retrieve(slug)
    assert (made.id, made.metadata) == (slug, {})
    assert (await lasts.openai.conversations.update(slug, metadata={"a": "b"})).metadata == {"a": "b"}
    assert len((await lasts.openai.conversations.items.list(slug)).data) == 2
    await lasts.openai.conversations.items.create(slug, items=[HELLO])
    assert await ask(lasts.server, "three", conversation=slug) == ("4: three", session_id)
    assert (await lasts.openai.conversations.delete(slug)).id == slug


async def test_a_deleted_slug_is_claimed_anew_and_its_session_goes_on(lasts: Lasting) -> None:
    _, first = await ask(lasts.server, "one", conversation="trip")
    await lasts.openai.conversations.delete("trip")
    text, second = await ask(lasts.server, "uno", conversation="trip")
    assert (text, second != first) == ("1: uno", True)
    await lasts.restart()
    assert (await lasts.server.chat("two", first))[0]["choices"][0]["message"]["content"] == "3: two"
    assert await ask(lasts.server, "due", conversation="trip") == ("3: due", second)
    await lasts.openai.conversations.delete("trip")
    await lasts.restart()
    assert (await ask(lasts.server, "eins", conversation="trip"))[0] == "1: eins"


async def test_items_of_a_name_that_nobody_uses_are_404(server: Server) -> None:
    for name in ("conv_0", "trip", "%ff", "%00", "a" * 300, "%ed%a0%80"):
        for method, path, body in (
            ("GET", "", None),
            ("POST", "", {"metadata": {}}),
            ("DELETE", "", None),
            ("GET", "/items", None),
            ("POST", "/items", {"items": [HELLO]}),
            ("GET", "/items/msg_1", None),
            ("DELETE", "/items/msg_1", None),
        ):
            error = await call(server, method, f"{PATH}/{name}{path}", 404, json=body)
            assert error["code"] == "conversation_not_found", (method, path)


async def test_a_turn_of_a_conversation_that_was_deleted_is_404_and_asks_nobody(lasts: Lasting) -> None:
    made = await lasts.openai.conversations.create(items=[HELLO])
    await lasts.openai.conversations.delete(made.id)
    for _ in range(2):
        with pytest.raises(openai.NotFoundError) as raised:
            await ask(lasts.server, "one", conversation=made.id)
        assert (raised.value.param, raised.value.code) == ("conversation", "conversation_not_found")
        await lasts.restart()
    sessions = (await lasts.server.get("/api/sessions"))["data"]
    assert len(sessions) == 1, "items in the conversation are not deleted"


async def test_a_deleted_session_takes_its_conversations_with_it(server: Server) -> None:
    answer = await server.openai.conversations.with_raw_response.create(items=[HELLO])
    made = answer.parse()
    await call(server, "DELETE", f"/api/sessions/{answer.headers[SESSION_ID]}", 200)
    with pytest.raises(openai.NotFoundError):
        await server.openai.conversations.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        await server.openai.conversations.items.create(made.id, items=[HELLO])
    with pytest.raises(openai.NotFoundError):
        await server.openai.conversations.delete(made.id)


# At once


async def test_a_turn_that_outlives_its_conversation_completes_and_brings_no_name_back(
    server: Server, upstream: Upstream
) -> None:
    upstream.gate.clear()
    asking = asyncio.create_task(ask(server, "one", conversation="trip"))
    await upstream.wait_for_requests(1)
    await server.openai.conversations.delete("trip")
    with pytest.raises(openai.NotFoundError):
        await server.openai.conversations.retrieve("trip")
    other = asyncio.create_task(ask(server, "uno", conversation="trip"))
    await upstream.wait_for_requests(2)
    upstream.gate.set()
    (_, first), (_, second) = await asking, await other
    assert first != second
    assert server.app is not None
    rows = await server.app[LINEAGES].views.fetch("SELECT root_id, turn_id FROM conversations", ())
    (turn,) = [message["turn_id"] for message in await server.messages(second) if message["role"] == "user"]
    assert rows == [(second, turn)]
    assert await ask(server, "due", conversation="trip") == ("3: due", second)


async def test_first_uses_and_deletions_at_once_leave_one_lineage_behind_a_name(server: Server) -> None:
    async def delete() -> None:
        with contextlib.suppress(openai.NotFoundError):
            await server.openai.conversations.delete("trip")

    for number in range(6):
        uses = [ask(server, f"{number} {use}", conversation="trip") for use in range(3)]
        await asyncio.gather(*uses, delete(), delete())
        one = await ask(server, "one", conversation="trip")
        other = await ask(server, "other", conversation="trip")
        assert one[1] == other[1]
        assert len((await server.openai.conversations.items.list("trip", limit=100)).data) >= 4
        told = [message for message in await server.messages(one[1]) if message["role"] == "user"]
        assert {message["session_id"] for message in told} == {one[1]}


# The list


async def names(server: Server, query: str = "", **more: Any) -> list[str]:
    return [row["id"] for row in (await call(server, "GET", PATH + query, 200, **more))["data"]]


async def test_all_conversations_are_listed_newest_first_in_pages(lasts: Lasting) -> None:
    assert await call(lasts.server, "GET", PATH, 200) == {
        "object": "list",
        "data": [],
        "first_id": "",
        "last_id": "",
        "has_more": False,
    }
    made = [(await lasts.openai.conversations.create(metadata={"n": str(n)})).id for n in range(4)]
    await ask(lasts.server, "one", conversation="a/b")
    newest_first = ["a/b", *made[::-1]]
    await lasts.restart()
    assert await names(lasts.server) == newest_first
    page = await call(lasts.server, "GET", f"{PATH}?limit=2", 200)
    assert (page["first_id"], page["last_id"], page["has_more"]) == ("a/b", made[3], True)
    assert page["data"][1]["metadata"] == {"n": "3"}
    assert await names(lasts.server, f"?limit=2&after={quote('a/b', safe='')}") == made[2:][::-1]
    assert await names(lasts.server, f"?after={made[0]}") == []
    assert await names(lasts.server, "?order=asc&limit=3") == made[:3]
    assert await names(lasts.server, f"?order=asc&after={made[2]}") == [made[3], "a/b"]
    await lasts.openai.conversations.delete(made[1])
    assert await names(lasts.server, "?order=asc") == [made[0], *made[2:], "a/b"]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("order=up", "order"),
        ("after=conv_0", "after"),
    ],
)
async def test_a_page_that_can_not_be_is_refused(server: Server, query: str, param: str) -> None:
    error = await call(server, "GET", f"{PATH}?{query}", 400)
    assert error["param"] == param


# Bad input


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata"),
        ({"metadata": {"k" * 65: "x"}}, "metadata"),
        ({"metadata": {"k": "v" * 513}}, "metadata"),
        ({"metadata": {"k": 1}}, "metadata"),
        ({"metadata": []}, "metadata"),
        ({"items": "x"}, "items"),
        ({"items": [HELLO] * 21}, "items"),
        ({"items": [HELLO, {"type": "message", "role": "user"}]}, "items[1].content"),
        ({"items": [{"type": "message", "role": "wizard", "content": "x"}]}, "items[0].role"),
        ({"items": [{"type": "message", "role": "user", "content": " "}]}, "items[0].content"),
        ({"items": [{"type": "function_call_output", "call_id": "c1"}]}, "items[0].output"),
        ({"items": [{"type": "web_search_call"}]}, "items[0].type"),
        ({"items": [7]}, "items[0]"),
        ({"items": [HELLO | {"id": "a"}, HELLO | {"id": "a"}]}, "items"),
        ({"topic": "boats"}, "topic"),
        ([], None),
    ],
)
async def test_a_conversation_that_can_not_be_is_refused_and_leaves_nothing(
    server: Server, body: Any, param: str | None
) -> None:
    error = await call(server, "POST", PATH, 400, json=body)
    assert error["type"] == "invalid_request_error"
    assert (error["param"] or "").startswith(param or "")
    assert await names(server) == []
    assert (await server.get("/api/sessions"))["data"] == []


async def test_the_most_that_is_allowed_is_taken(server: Server) -> None:
    notes = {f"{n:02}".ljust(64, "k"): "v" * 512 for n in range(16)}
    made = await server.openai.conversations.create(metadata=notes, items=[HELLO] * 20)
    assert made.metadata == notes
    assert len((await server.openai.conversations.items.list(made.id, limit=100)).data) == 20


async def test_a_body_that_is_none_makes_a_plain_conversation(server: Server) -> None:
    assert (await call(server, "POST", PATH, 200))["metadata"] == {}
    assert (await call(server, "POST", PATH, 200, json={"items": None, "metadata": None}))["metadata"] == {}
    error = await call(server, "POST", PATH, 400, data=b"{")
    assert error["code"] == "invalid_json"


@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "metadata"), ({"metadata": "x"}, "metadata"), ({"metadata": {}, "items": []}, "items"), (None, "metadata")],
)
async def test_an_update_without_metadata_is_refused(server: Server, body: Any, param: str) -> None:
    made = await server.openai.conversations.create(metadata={"a": "b"})
    more = {"json": body} if body is not None else {"data": b"{}"}
    error = await call(server, "POST", f"{PATH}/{made.id}", 400, **more)
    assert error["param"] == param
    assert (await server.openai.conversations.retrieve(made.id)).metadata == {"a": "b"}


async def test_nothing_of_another_tenant_can_be_seen_or_touched(data: Path, upstream: Upstream) -> None:
    async with two_tenants(data, upstream) as (server, acme, bravo, _):
        made = await call(server, "POST", PATH, 200, json={"items": [HELLO]}, headers=acme)
        item = (await call(server, "GET", f"{PATH}/{made['id']}/items", 200, headers=acme))["data"][0]["id"]
        for name in (made["id"], "notes"):
            for method, path, body in (
                ("GET", "", None),
                ("POST", "", {"metadata": {}}),
                ("DELETE", "", None),
                ("GET", "/items", None),
                ("POST", "/items", {"items": [HELLO]}),
                ("GET", f"/items/{item}", None),
                ("DELETE", f"/items/{item}", None),
            ):
                error = await call(server, method, f"{PATH}/{name}{path}", 404, json=body, headers=bravo)
                assert error["code"] == "conversation_not_found"
        assert await names(server, headers=bravo) == []
        assert await names(server, headers=acme) == [made["id"], "notes"]
        error = await call(server, "GET", f"{PATH}?after={made['id']}", 400, headers=bravo)
        assert error["param"] == "after"
        mine = await call(server, "POST", PATH, 200, headers=bravo | {SESSION_ID: "s1"}, json={"items": [HELLO]})
        assert len((await call(server, "GET", f"{PATH}/{mine['id']}/items", 200, headers=bravo))["data"]) == 1
