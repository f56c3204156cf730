"""/api/sessions over HTTP: made, read, changed, deleted and forked, and what the model is sent meanwhile."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from eventstore.events import SessionAnnotated
from tests.support.api import call, create, fork, patch, record, rotate, row
from tests.support.server import Server, serving
from tests.support.upstream import Upstream, refuses

ROW_KEYS = [
    *("id", "source", "user_id", "model", "title", "started_at", "ended_at", "end_reason", "message_count"),
    *("tool_call_count", "input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens"),
    *("reasoning_tokens", "estimated_cost_usd", "actual_cost_usd", "api_call_count", "parent_session_id"),
    *("last_active", "preview", "session_key", "metadata", "has_system_prompt", "has_model_config"),
]


async def texts(server: Server, session_id: str) -> list[str]:
    """What the session's messages say."""
    return [message["content"] for message in await server.messages(session_id)]


def sent(upstream: Upstream) -> list[str]:
    """What the model was sent last."""
    return [message["content"] for message in upstream.messages[-1]]


# Made


async def test_a_session_is_made_with_all_that_it_was_given(server: Server) -> None:
    headers = {"X-Hermes-Session-Key": "k", "X-Hermes-User-Id": "ada"}
    body = {
        "id": "s1",
        "title": " T ",
        "model": "m9",
        "system_prompt": "Be brief.",
        "source": "cli",
        "metadata": {"a": "b"},
    }
    answer = await call(server, "POST", "/api/sessions", 201, json=body | {"unknown": 1}, headers=headers)
    made = answer["session"]
    assert answer["object"] == "hermes.session"
    assert list(made) == ROW_KEYS
    assert (made["id"], made["title"], made["model"], made["source"]) == ("s1", "T", "m9", "cli")
    assert (made["user_id"], made["session_key"], made["metadata"]) == ("ada", "k", {"a": "b"})
    assert (made["has_system_prompt"], made["message_count"], made["ended_at"]) == (True, 0, None)
    assert await row(server, "s1") == made
    assert await server.messages("s1") == []


async def test_what_a_client_says_of_itself_is_echoed(server: Server) -> None:
    said = {"X-Hermes-Session-Key": "k", "X-Hermes-Chat-Id": "c"}
    async with server.http.post("/api/sessions", json={"id": "s1"}, headers=said) as answer:
        told = said | {"X-Hermes-Session-Id": "s1"}
        assert {name: answer.headers[name] for name in told} == told


async def test_a_session_without_anything_gets_an_id(server: Server) -> None:
    one, other = await create(server), await create(server, session_id=None)
    assert one["id"] != other["id"]
    assert (one["source"], one["model"], one["title"], one["metadata"]) == ("api_server", None, None, {})
    assert (await create(server, user="ada"))["user_id"] == "ada"
    assert (await create(server, session_id="s2"))["id"] == "s2"


async def test_the_sessions_prompt_and_model_are_those_of_its_turns(server: Server, upstream: Upstream) -> None:
    await create(server, id="s1", model="m9", system_prompt="Be brief.")
    for api, body in (
        ("chat/completions", {"messages": [{"role": "user", "content": "one"}]}),
        ("responses", {"input": "two"}),
    ):
        await call(server, "POST", f"/v1/{api}", 200, json=body, headers={"X-Hermes-Session-Id": "s1"})
        assert upstream.requests[-1]["model"] == "m9"
        assert upstream.messages[-1][0] == {"role": "system", "content": "Be brief."}
    await server.chat("three", "s1", model="m2")
    assert upstream.requests[-1]["model"] == "m2"
    await call(server, "POST", "/v1/responses", 200, json={"input": "four"})
    assert upstream.requests[-1]["model"] == "m"


async def test_a_slug_and_a_response_lead_to_the_sessions_model_too(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url, default_model="") as server:
        await create(server, id="s1", model="m9")
        session = {"X-Hermes-Session-Id": "s1"}
        first = {"input": "one", "conversation": "notes"}
        first_id = (await call(server, "POST", "/v1/responses", 200, json=first, headers=session))["id"]
        await call(server, "POST", "/v1/responses", 200, json={"input": "two", "conversation": "notes"})
        await call(server, "POST", "/v1/responses", 200, json={"input": "three", "previous_response_id": first_id})
        unstored = {"messages": [{"role": "user", "content": "four"}], "store": False}
        await call(server, "POST", "/v1/chat/completions", 200, json=unstored, headers=session)
        assert [request["model"] for request in upstream.requests] == ["m9"] * 4
        for body in ({"input": "x"}, {"input": "x", "conversation": "another"}):
            error = await call(server, "POST", "/v1/responses", 400, json=body)
            assert (error["param"], error["code"]) == ("model", "missing_required_parameter")


async def test_an_id_that_is_taken_is_409_and_nothing_changes(server: Server) -> None:
    await server.chat("hello", "s1")
    await rotate(server, "s1", "s2")
    before = await server.get("/api/sessions?include_children=true")
    for taken in ("s1", "s2"):
        async with server.http.post("/api/sessions", json={"id": taken, "title": "T"}) as answer:
            assert (answer.status, answer.headers["x-should-retry"]) == (409, "false")
            error = (await answer.json())["error"]
            assert (error["code"], error["param"]) == ("session_exists", "id")
        assert (await fork(server, "s1", 409, id=taken))["code"] == "session_exists"
    assert await server.get("/api/sessions?include_children=true") == before


async def test_of_many_that_want_one_id_one_gets_it(server: Server) -> None:
    async def attempt(number: int) -> int:
        async with server.http.post("/api/sessions", json={"id": "s1", "title": f"T{number}"}) as answer:
            return answer.status

    assert Counter(await asyncio.gather(*(attempt(n) for n in range(30)))) == {201: 1, 409: 29}


# Changed


async def test_a_session_is_renamed_annotated_and_ended(server: Server) -> None:
    await server.chat("hello", "s1")
    changed = await patch(server, "s1", title="T", metadata={"a": "b"}, end_reason="done")
    assert (changed["title"], changed["metadata"], changed["end_reason"]) == ("T", {"a": "b"}, "done")
    assert changed["ended_at"] >= changed["started_at"]
    assert await row(server, "s1") == changed
    assert (await patch(server, "s1", end_reason="other"))["end_reason"] == "done"
    assert await patch(server, "s1") == changed
    cleared = await patch(server, "s1", title=None, metadata=None, end_reason=None)
    assert (cleared["title"], cleared["metadata"], cleared["end_reason"]) == (None, {}, "done")
    assert len(await server.messages("s1")) == 2


async def test_a_turn_opens_an_ended_session_again(server: Server) -> None:
    await server.chat("hello", "s1")
    await patch(server, "s1", end_reason="done")
    await server.chat("again", "s1")
    assert ((await row(server, "s1"))["end_reason"], (await row(server, "s1"))["ended_at"]) == (None, None)


async def test_a_change_does_not_wait_for_the_turn_that_runs(server: Server, upstream: Upstream) -> None:
    upstream.gate.clear()
    running = asyncio.create_task(server.chat("hello", "s1"))
    await upstream.wait_for_requests(1)
    assert (await patch(server, "s1", title="T"))["title"] == "T"
    forked = await fork(server, "s1")
    upstream.gate.set()
    await running
    assert await texts(server, "s1") == ["hello", "1: hello"]
    assert await texts(server, forked["id"]) == []


async def test_changes_of_an_older_session_are_those_of_the_newest(server: Server) -> None:
    await server.chat("hello", "s1")
    await rotate(server, "s1", "s2")
    changed = await patch(server, "s1", title="T")
    assert (changed["id"], changed["title"]) == ("s2", "T")
    assert (await row(server, "s1"))["title"] is None


async def test_changes_survive_a_restart(data: Path) -> None:
    async with serving(data) as server:
        await create(server, id="s1", model="m9", system_prompt="Be brief.", title="T")
        await patch(server, "s1", metadata={"a": "b"}, end_reason="done")
        before = await row(server, "s1")
    async with serving(data) as server:
        assert await row(server, "s1") == before
    (data / "views.db").unlink()
    async with serving(data) as server:
        assert await row(server, "s1") == before


async def test_metadata_that_is_none_is_shown_as_none(server: Server) -> None:
    await create(server, id="s1")
    await record(server, "s1", [SessionAnnotated(metadata=b"\xff{")])
    assert (await row(server, "s1"))["metadata"] == {}


# Deleted


async def test_what_is_deleted_can_not_be_read_and_its_ids_begin_anew(server: Server, upstream: Upstream) -> None:
    body = {"input": "secret", "conversation": "notes"}
    headers = {"X-Hermes-Session-Id": "s1"}
    response_id = (await call(server, "POST", "/v1/responses", 200, json=body, headers=headers))["id"]
    await rotate(server, "s1", "s2")
    await server.chat("more", "s1")
    answer = await call(server, "DELETE", "/api/sessions/s2", 200)
    assert answer == {"object": "hermes.session.deleted", "id": "s2", "deleted": True}
    for session_id in ("s1", "s2"):
        for path in ("", "/messages", "/lineage"):
            assert (await call(server, "GET", f"/api/sessions/{session_id}{path}", 404))["code"] == "session_not_found"
        assert (await patch(server, session_id, 404, title="T"))["code"] == "session_not_found"
        assert (await fork(server, session_id, 404))["code"] == "session_not_found"
        assert (await call(server, "DELETE", f"/api/sessions/{session_id}", 404))["code"] == "session_not_found"
    await call(server, "GET", f"/v1/responses/{response_id}", 404)
    chained = {"input": "x", "previous_response_id": response_id}
    assert (await call(server, "POST", "/v1/responses", 404, json=chained))["code"] == "previous_response_not_found"
    for query in ("", "?include_children=true"):
        assert (await server.get(f"/api/sessions{query}"))["data"] == []

    assert (await server.chat("anew", "s2"))[1] == "s2"
    assert sent(upstream) == ["anew"]
    await call(server, "POST", "/v1/responses", 200, json={"input": "by slug", "conversation": "notes"})
    assert sent(upstream) == ["by slug"]
    assert (await server.chat("by id", "s1"))[1] == "s1"
    assert sent(upstream) == ["by id"]
    assert {"s1", "s2"} < {entry["id"] for entry in (await server.get("/api/sessions"))["data"]}
    assert (await row(server, "s1"))["preview"] == "by id"
    await call(server, "POST", "/v1/responses", 200, json={"input": "again", "conversation": "notes"})
    assert sent(upstream) == ["by slug", "1: by slug", "again"]


async def test_the_id_of_a_deleted_session_can_be_made_again(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        await server.chat("old", "s1")
        await call(server, "DELETE", "/api/sessions/s1", 200)
        await create(server, id="s1", title="T")
        await server.chat("new", "s1")
        assert sent(upstream) == ["new"]
    async with serving(data, upstream=upstream.url) as server:
        assert await texts(server, "s1") == ["new", "1: new"]
        assert (await row(server, "s1"))["title"] == "T"
        await server.chat("newer", "s1")
        assert sent(upstream) == ["new", "1: new", "newer"]


async def test_forks_of_a_deleted_session_keep_what_they_inherited(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        await server.chat("one", "s1")
        await fork(server, "s1", id="f1")
        await call(server, "DELETE", "/api/sessions/s1", 200)
        await server.chat("anew", "s1")
        assert await texts(server, "f1") == ["one", "1: one"]
    async with serving(data, upstream=upstream.url) as server:
        await server.chat("two", "f1")
        assert sent(upstream) == ["one", "1: one", "two"]


async def test_the_id_of_a_deleted_session_can_be_that_of_a_fork_of_its_fork(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        await server.chat("one", "s1")
        await fork(server, "s1", id="f1")
        await call(server, "DELETE", "/api/sessions/s1", 200)
        await fork(server, "f1", id="s1")
        await server.chat("two", "s1")
        assert sent(upstream) == ["one", "1: one", "two"]
    for first in ("s1", "f1"):
        async with serving(data, upstream=upstream.url) as server, asyncio.timeout(10):
            both = await asyncio.gather(texts(server, first), texts(server, "s1"), texts(server, "f1"))
            assert both[1] == ["one", "1: one", "two", "3: two"]
            assert both[2] == ["one", "1: one"]


async def test_deleting_a_session_cancels_the_turn_that_runs_in_it(server: Server, upstream: Upstream) -> None:
    upstream.gate.clear()
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    headers = {"X-Hermes-Session-Id": "s1"}
    running = asyncio.create_task(call(server, "POST", "/v1/chat/completions", 409, json=body, headers=headers))
    await upstream.wait_for_requests(1)
    await call(server, "DELETE", "/api/sessions/s1", 200)
    await call(server, "GET", "/api/sessions/s1", 404)
    assert (await running)["code"] == "turn_ended"  # at once, though the model has not answered yet
    upstream.gate.set()
    await call(server, "GET", "/api/sessions/s1", 404)
    await server.chat("anew", "s1")
    assert sent(upstream) == ["anew"]


async def test_of_two_that_delete_a_session_one_does(server: Server) -> None:
    await server.chat("hello", "s1")

    async def delete() -> int:
        async with server.http.delete("/api/sessions/s1") as answer:
            return answer.status

    assert sorted(await asyncio.gather(*(delete() for _ in range(5)))) == [200, 404, 404, 404, 404]


# Forked


async def test_after_a_fork_reading_the_original_returns_the_original(server: Server, upstream: Upstream) -> None:
    await server.chat("one", "s1")
    await server.chat("two", "s1")
    before, original = await server.messages("s1"), await row(server, "s1")
    forked = await fork(server, "s1")
    assert (forked["parent_session_id"], forked["end_reason"]) == ("s1", None)
    assert await texts(server, forked["id"]) == await texts(server, "s1")
    await server.chat("only in the fork", forked["id"])
    assert sent(upstream) == ["one", "1: one", "two", "3: two", "only in the fork"]
    assert await server.messages("s1") == before
    assert await row(server, "s1") == original
    await server.chat("only in the original", "s1")
    assert sent(upstream) == ["one", "1: one", "two", "3: two", "only in the original"]
    assert "only in the original" not in await texts(server, forked["id"])
    assert [entry["id"] for entry in (await server.get("/api/sessions"))["data"]] == ["s1", forked["id"]]


async def test_a_failed_fork_changes_nothing(server: Server, upstream: Upstream) -> None:
    await server.chat("one", "s1")
    await server.chat("other", "s2")
    upstream.script = lambda _: refuses(400)
    body = {"model": "m", "messages": [{"role": "user", "content": "fails"}]}
    await call(server, "POST", "/v1/chat/completions", 400, json=body, headers={"X-Hermes-Session-Id": "s1"})
    failed = (await server.messages("s1"))[-1]["turn_id"]
    others = (await server.messages("s2"))[0]["turn_id"]
    before = await server.get("/api/sessions")
    for turn_id in ("nope", f"resp_{others}", others, failed, "resp_"):
        error = await fork(server, "s1", 404 if turn_id != "resp_" else 201, id=f"f-{turn_id}", turn_id=turn_id)
        if turn_id != "resp_":
            assert (error["code"], error["param"]) == ("turn_not_found", "turn_id")
            await call(server, "GET", f"/api/sessions/f-{turn_id}", 404)
    assert (await fork(server, "s1", 409, id="s2"))["code"] == "session_exists"
    await call(server, "DELETE", "/api/sessions/f-resp_", 200)
    assert await server.get("/api/sessions") == before
    assert (await row(server, "s1"))["end_reason"] is None


@pytest.mark.parametrize("prefix", ["", "resp_", "chatcmpl-", "run_"])
async def test_a_session_is_forked_at_any_of_its_turns(data: Path, upstream: Upstream, prefix: str) -> None:
    async with serving(data, upstream=upstream.url) as server:
        for text in ("one", "two", "three"):
            await server.chat(text, "s1")
        turn_id = (await server.messages("s1"))[3]["turn_id"]
        await fork(server, "s1", id="f1", turn_id=prefix + turn_id)
        assert await texts(server, "f1") == ["one", "1: one", "two", "3: two"]
        inherited = (await server.messages("f1"))[0]["turn_id"]
        await fork(server, "f1", id="f2", turn_id=inherited)
    async with serving(data, upstream=upstream.url) as server:
        await server.chat("next", "f2")
        assert sent(upstream) == ["one", "1: one", "next"]


async def test_a_session_is_forked_at_a_turn_behind_a_rotation(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        await server.chat("one", "s1")
        await server.chat("two", "s1")
        await rotate(server, "s1", "s2")
        await server.chat("three", "s1")
        await rotate(server, "s2", "s3")
        everything = await server.messages("s3")
        first, third = everything[0]["turn_id"], everything[4]["turn_id"]
        assert (await fork(server, "s3", id="f1", turn_id=first))["parent_session_id"] == "s1"
        assert (await fork(server, "s1", id="f3", turn_id=third))["parent_session_id"] == "s2"
    async with serving(data, upstream=upstream.url) as server:
        await server.chat("next", "f1")
        assert sent(upstream) == ["one", "1: one", "next"]
        await server.chat("next", "f3")
        assert sent(upstream) == ["summary of s1", "three", "2: three", "next"]
        assert await texts(server, "f3") == [*[entry["content"] for entry in everything], "next", "4: next"]
        assert await server.messages("s3") == everything


async def test_a_session_without_turns_forks_empty(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        await create(server, id="s1", system_prompt="Be brief.")
        await fork(server, "s1", id="f1")
        await server.chat("later", "s1")
    async with serving(data, upstream=upstream.url) as server:
        await server.chat("hello", "f1")
        assert sent(upstream) == ["Be brief.", "hello"]
        lineage = await server.get("/api/sessions/f1/lineage")
        assert lineage["forked_from"] == {"session_id": "s1", "turn_id": None}


async def test_a_fork_is_what_its_source_is_but_for_its_title(server: Server) -> None:
    headers = {"X-Hermes-Session-Key": "k", "X-Hermes-User-Id": "ada"}
    body = {"id": "s1", "model": "m9", "system_prompt": "Be brief.", "source": "cli", "title": "X"}
    await call(server, "POST", "/api/sessions", 201, json=body, headers=headers)
    second = await fork(server, "s1")
    taken = ("model", "source", "user_id", "session_key", "has_system_prompt")
    assert [second[key] for key in taken] == ["m9", "cli", "ada", "k", True]
    assert second["title"] == "X #2"
    assert (await fork(server, second["id"]))["title"] == "X #3"
    assert (await fork(server, "s1"))["title"] == "X #2"
    assert (await fork(server, "s1", title="Other"))["title"] == "Other"
    assert (await fork(server, "s1", title=""))["title"] is None
    await server.chat("hello", "untitled")
    assert (await fork(server, "untitled"))["title"] is None
    async with server.http.post("/api/sessions/untitled/fork") as answer:
        assert answer.status == 201


# Lineages


async def test_a_lineage_names_its_sessions_summaries_and_forks(server: Server) -> None:
    await create(server, id="s1", title="T")
    await server.chat("one", "s1")
    await rotate(server, "s1", "s2", title="T #2")
    await fork(server, "s2", id="f1")
    for session_id in ("s1", "s2"):
        lineage = await server.get(f"/api/sessions/{session_id}/lineage")
        assert (lineage["object"], lineage["root_id"], lineage["tip_id"]) == ("hermes.session.lineage", "s1", "s2")
        first, second = lineage["generations"]
        assert (first["id"], first["parent_session_id"], first["title"]) == ("s1", None, "T")
        assert (first["end_reason"], first["ended_at"], first["summary"]) == ("compression", second["started_at"], None)
        assert (second["id"], second["parent_session_id"], second["title"]) == ("s2", "s1", "T #2")
        assert (second["end_reason"], second["ended_at"]) == (None, None)
        told = {"summariser": "m", "trigger": "manual", "tokens_before": 90, "tokens_after": 10}
        assert second["summary"] == {"text": "summary of s1", **told}
        assert (lineage["forked_from"], lineage["forks"]) == (None, ["f1"])
    lineage = await server.get("/api/sessions/f1/lineage")
    turn_id = (await server.messages("s1"))[0]["turn_id"]
    assert lineage["forked_from"] == {"session_id": "s1", "turn_id": turn_id}
    assert (len(lineage["generations"]), lineage["forks"]) == (1, [])


async def test_a_rotated_lineage_is_listed_once_as_its_tip(server: Server) -> None:
    await server.chat("one", "s1")
    await rotate(server, "s1", "s2")
    await server.chat("two", "s1")
    await rotate(server, "s2", "s3", title="T")
    await server.chat("three", "s1")
    old, tip = await row(server, "s1"), await row(server, "s3")
    assert (old["end_reason"], old["message_count"], "_lineage_root_id" in old) == ("compression", 2, False)
    assert (tip["end_reason"], tip["message_count"], tip["parent_session_id"]) == (None, 2, "s2")
    (entry,) = (await server.get("/api/sessions"))["data"]
    assert entry["id"] == "s3"
    assert (entry["_lineage_root_id"], entry["parent_session_id"], entry["title"]) == ("s1", None, "T")
    assert (entry["started_at"], entry["last_active"]) == (old["started_at"], tip["last_active"])
    assert (entry["message_count"], entry["input_tokens"], entry["output_tokens"]) == (2, 33, 21)
    children = (await server.get("/api/sessions?include_children=yes"))["data"]
    assert [child["id"] for child in children] == ["s3", "s2", "s1"]
    assert children == [await row(server, child["id"]) for child in children]
    messages = await server.get("/api/sessions/s1/messages")
    assert (messages["session_id"], messages["total"], messages["has_more"]) == ("s3", 6, False)
    assert [message["session_id"] for message in messages["data"]] == ["s1", "s1", "s2", "s2", "s3", "s3"]


# Listed and paged


async def pages(server: Server, by: str, query: str) -> list[str]:
    """The ids of all pages, one page after the other."""
    ids: list[str] = []
    step = "offset=0" if by == "offset" else "cursor="
    while True:
        page = await server.get(f"/api/sessions?limit=150&{step}{query}")
        ids += [entry["id"] for entry in page["data"]]
        assert (page["next_cursor"] is not None) == page["has_more"] == (len(page["data"]) == 150 and page["has_more"])
        if not page["has_more"]:
            return ids
        step = f"offset={len(ids)}" if by == "offset" else f"cursor={page['next_cursor']}"


async def test_a_thousand_sessions_are_listed_and_paged_completely(data: Path) -> None:
    async with serving(data) as server:

        async def make(number: int) -> None:
            headers = {"X-Hermes-Session-Key": "k"} if number % 4 == 0 else {}
            body = {"id": f"s{number}", "source": "cli" if number % 5 == 0 else "api_server", "user": f"u{number % 3}"}
            await call(server, "POST", "/api/sessions", 201, json=body, headers=headers)

        for first in range(0, 1_000, 100):
            await asyncio.gather(*(make(number) for number in range(first, first + 100)))
        for query, wanted in (
            ("", range(1_000)),
            ("&include_children=1", range(1_000)),
            ("&source=cli", range(0, 1_000, 5)),
            ("&source=api_server", [number for number in range(1_000) if number % 5]),
            ("&user=u1", range(1, 1_000, 3)),
            ("&session_key=k", range(0, 1_000, 4)),
            ("&session_key=k&user=u0&source=cli", range(0, 1_000, 60)),
            ("&user=nobody", []),
        ):
            by_offset, by_cursor = await pages(server, "offset", query), await pages(server, "cursor", query)
            assert by_offset == by_cursor
            assert len(by_cursor) == len(wanted)
            assert set(by_cursor) == {f"s{number}" for number in wanted}
        newest = (await server.get("/api/sessions?limit=1"))["data"][0]["last_active"]
        await server.chat("now", "s500")
        page = await server.get("/api/sessions?limit=1000")
        assert page["data"][0]["id"] == "s500"
        assert page["data"][0]["last_active"] > newest
        assert (page["limit"], page["offset"], len(page["data"])) == (200, 0, 200)


async def test_a_page_of_nothing_says_whether_there_is_more(server: Server) -> None:
    empty = await server.get("/api/sessions?limit=0")
    assert (empty["data"], empty["has_more"], empty["next_cursor"]) == ([], False, None)
    await server.chat("hello", "s1")
    assert (await server.get("/api/sessions?limit=0"))["has_more"] is True


async def test_messages_are_paged_completely(server: Server) -> None:
    for number in range(5):
        await server.chat(f"{number}", "s1")
    whole = await server.get("/api/sessions/s1/messages")
    assert (whole["total"], whole["limit"], whole["offset"], whole["has_more"]) == (10, 500, 0, False)
    newest = await server.get("/api/sessions/s1/messages?limit=3")
    assert (newest["data"], newest["offset"]) == (whole["data"][7:], 7)
    found: list[Any] = []
    for offset in range(0, 12, 3):
        page = await server.get(f"/api/sessions/s1/messages?limit=3&offset={offset}")
        assert page["has_more"] == (offset + 3 < 10)
        found += page["data"]
    assert found == whole["data"]


async def test_the_capabilities_name_what_there_is(server: Server) -> None:
    capabilities = await server.get("/v1/capabilities")
    for feature in ("session_resources", "session_fork", "session_chat", "session_chat_streaming"):
        assert capabilities["features"][feature] is True
    names = (
        "session_create",
        "session_update",
        "session_delete",
        "session_fork",
        "session_chat",
        "session_chat_stream",
    )
    assert {*names, "session_lineage", "session_messages"} <= set(capabilities["endpoints"])
    assert capabilities["endpoints"]["session_update"] == {"method": "PATCH", "path": "/api/sessions/{session_id}"}
