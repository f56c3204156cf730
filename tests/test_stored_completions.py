"""Stored chat completions with the official SDK, over HTTP: made with `store: true`, listed, read, changed, deleted."""

import asyncio
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion

from api import keys
from tests.support.api import call, rotate
from tests.support.server import Server, serving
from tests.support.upstream import Upstream, calls, says

PATH = "/v1/chat/completions"
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


def user(content: Any) -> dict[str, Any]:
    """A user's message."""
    return {"role": "user", "content": content}


async def make(server: Server, *texts: str, session: str = "", **body: Any) -> ChatCompletion:
    """A chat completion that is stored, of a session where one is named."""
    asked: dict[str, Any] = {"model": "m", "store": True, "messages": [user(text) for text in texts or ("hi",)]} | body
    headers = {"X-Hermes-Session-Id": session} if session else {}
    completion = await server.openai.chat.completions.create(**asked, extra_headers=headers)
    assert isinstance(completion, ChatCompletion)
    return completion


async def listed(server: Server, **query: Any) -> list[str]:
    """The ids of all completions that the SDK finds, page after page."""
    return [completion.id async for completion in server.openai.chat.completions.list(**query)]


async def refused(server: Server, method: str, path: str, status: int, **more: Any) -> tuple[str, str]:
    """The param and the code of a refusal."""
    error = await call(server, method, f"{PATH}{path}", status, **more)
    return error["param"], error["code"]


# Reading


async def test_a_stored_completion_is_read_as_it_was_answered(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: calls("f", '{"x":1}')
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    asked: dict[str, Any] = {"tools": [tool], "tool_choice": "auto", "seed": 7, "temperature": 0.5, "user": "ada"}
    made = await make(server, metadata={"topic": "boats"}, **asked)
    read = await server.openai.chat.completions.retrieve(made.id)
    assert read.metadata == {"topic": "boats"}
    assert read.choices == made.choices
    assert read.usage == made.usage
    assert (read.id, read.created, read.model, read.object) == (made.id, made.created, made.model, made.object)
    extra = read.to_dict()
    assert {name: extra[name] for name in asked if name != "user"} | {"user": extra["input_user"]} == asked
    assert (extra["top_p"], extra["presence_penalty"], extra["response_format"]) == (1.0, 0.0, None)


async def test_a_streamed_completion_is_stored_too(server: Server) -> None:
    chunks: Any = await server.openai.chat.completions.create(
        model="m", store=True, stream=True, messages=[{"role": "user", "content": "one two"}]
    )
    ids = {chunk.id async for chunk in chunks}
    read = await server.openai.chat.completions.retrieve(*ids)
    assert read.choices[0].message.content == "1: one two"
    assert read.choices[0].finish_reason == "stop"


async def test_the_model_server_is_not_asked_to_store_anything(server: Server, upstream: Upstream) -> None:
    await make(server, metadata={"a": "b"})
    await make(server, store=False)
    assert all("store" not in request and "metadata" not in request for request in upstream.requests)


@pytest.mark.parametrize("store", [None, False])
async def test_only_what_was_stored_by_name_can_be_addressed(server: Server, store: bool | None) -> None:
    made = await make(server, store=store)
    with pytest.raises(openai.NotFoundError) as error:
        await server.openai.chat.completions.retrieve(made.id)
    assert (error.value.code, error.value.param) == ("completion_not_found", "completion_id")
    assert await listed(server) == []


@pytest.mark.parametrize("completion_id", ["chatcmpl-nope", "nope", "chatcmpl-%00", "chatcmpl-%ED%A0%80", "x" * 3_000])
async def test_what_was_never_made_is_404_by_every_route(server: Server, completion_id: str) -> None:
    unknown = ("completion_id", "completion_not_found")
    for method, path, body in (
        ("GET", "", None),
        ("POST", "", {"metadata": {}}),
        ("DELETE", "", None),
        ("GET", "/messages", None),
    ):
        assert await refused(server, method, f"/{completion_id}{path}", 404, json=body) == unknown


async def test_a_turn_that_failed_is_no_completion(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: says("", raw=b"not json")
    with pytest.raises(openai.InternalServerError):
        await make(server)
    assert await listed(server) == []


async def test_a_completion_is_listed_once_it_has_completed(server: Server, upstream: Upstream) -> None:
    upstream.gate.clear()
    making = asyncio.create_task(make(server))
    await upstream.wait_for_requests(1)
    assert await listed(server) == []
    upstream.gate.set()
    made = await making
    assert await listed(server) == [made.id]


async def test_stored_completions_survive_a_restart(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        made = await make(server, metadata={"a": "1"})
        await server.openai.chat.completions.update(made.id, metadata={"a": "2"})
    async with serving(data, upstream=upstream.url) as server:
        read = await server.openai.chat.completions.retrieve(made.id)
        assert (read.choices, read.metadata) == (made.choices, {"a": "2"})


async def test_another_tenant_finds_nothing_of_it(data: Path, upstream: Upstream) -> None:
    data.mkdir()
    acme, bravo = (keys.add(data, name, name) for name in ("acme", "bravo"))
    async with serving(data, upstream=upstream.url, api_key="") as server:
        server.openai.api_key = acme
        made = await make(server, metadata={"a": "1"})
        other = server.openai.with_options(api_key=bravo).chat.completions
        for attempt in (other.retrieve(made.id), other.update(made.id, metadata={}), other.delete(made.id)):
            with pytest.raises(openai.NotFoundError):
                await attempt
        assert [completion async for completion in other.list(metadata={"a": "1"})] == []
        assert await listed(server) == [made.id]


# Changing and deleting


async def test_metadata_is_replaced_and_found_by(server: Server) -> None:
    made = await make(server, metadata={"a": "1", "b": "1"})
    changed = await server.openai.chat.completions.update(made.id, metadata={"a": "2"})
    assert (changed.id, changed.metadata, changed.choices) == (made.id, {"a": "2"}, made.choices)
    assert (await server.openai.chat.completions.retrieve(made.id)).metadata == {"a": "2"}
    assert await listed(server, metadata={"a": "2"}) == [made.id]
    assert await listed(server, metadata={"b": "1"}) == []
    cleared = await server.openai.chat.completions.update(made.id, metadata=None)
    assert cleared.metadata == {}


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "metadata", "missing_required_parameter"),
        ({"metadata": "x"}, "metadata", "invalid_value"),
        ({"metadata": {"k": 5}}, "metadata", "invalid_value"),
        ({"metadata": {"k" * 65: "v"}}, "metadata", "invalid_value"),
        ({"metadata": {"k": "v" * 513}}, "metadata", "invalid_value"),
        ({"metadata": {str(n): "v" for n in range(17)}}, "metadata", "invalid_value"),
        ([], None, "invalid_type"),
    ],
)
async def test_metadata_that_can_not_be_is_400(server: Server, body: object, param: str, code: str) -> None:
    made = await make(server, metadata={"a": "1"})
    assert await refused(server, "POST", f"/{made.id}", 400, json=body) == (param, code)
    assert (await server.openai.chat.completions.retrieve(made.id)).metadata == {"a": "1"}


async def test_a_deleted_completion_is_gone_and_its_session_is_not(server: Server, upstream: Upstream) -> None:
    made = await make(server, "one", session="s1", metadata={"a": "1"})
    deleted = await server.openai.chat.completions.delete(made.id)
    assert deleted.to_dict() == {"id": made.id, "object": "chat.completion.deleted", "deleted": True}
    assert await refused(server, "DELETE", f"/{made.id}", 404) == ("completion_id", "completion_not_found")
    assert await listed(server) == await listed(server, metadata={"a": "1"}) == []
    await make(server, "two", session="s1")
    assert [message["content"] for message in upstream.messages[-1]] == ["one", "1: one", "two"]


async def test_a_deleted_session_takes_its_completions_with_it(server: Server) -> None:
    made = await make(server, session="s1", metadata={"a": "1"})
    kept = await make(server, metadata={"a": "1"})
    await call(server, "DELETE", "/api/sessions/s1", 200)
    assert await listed(server) == await listed(server, metadata={"a": "1"}) == [kept.id]
    assert await refused(server, "GET", f"/{made.id}", 404) == ("completion_id", "completion_not_found")


async def test_behind_a_rotation_a_completion_is_what_it_was(server: Server) -> None:
    made = await make(server, "one", session="s1")
    await rotate(server, "s1", "s2")
    again = await make(server, "two", session="s1")
    assert await listed(server) == [made.id, again.id]
    assert (await server.openai.chat.completions.retrieve(made.id)).choices == made.choices
    await server.openai.chat.completions.update(made.id, metadata={"a": "1"})
    assert (await server.openai.chat.completions.retrieve(made.id)).metadata == {"a": "1"}
    messages = server.openai.chat.completions.messages
    assert [message.content async for message in messages.list(made.id)] == ["one"]
    assert [message.content async for message in messages.list(again.id)] == ["summary of s1", "two"]
    await server.openai.chat.completions.delete(made.id)
    assert await listed(server) == [again.id]


# Lists


async def test_the_sdk_pages_through_all_of_them(server: Server) -> None:
    made = [(await make(server, str(number))).id for number in range(5)]
    assert await listed(server) == made
    assert await listed(server, limit=2) == made
    assert await listed(server, limit=2, order="desc") == made[::-1]
    assert await listed(server, limit=2, after=made[1]) == made[2:]


async def test_a_page_says_where_it_begins_and_ends(server: Server) -> None:
    made = [(await make(server, str(number))).id for number in range(3)]
    page = await server.get(f"{PATH}?limit=2")
    assert [page["object"], page["first_id"], page["last_id"], page["has_more"]] == ["list", made[0], made[1], True]
    page = await server.get(f"{PATH}?after={made[1]}")
    assert [page["first_id"], page["last_id"], page["has_more"]] == [made[2], made[2], False]
    page = await server.get(f"{PATH}?after={made[2]}")
    assert page == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


async def test_all_can_be_deleted_while_they_are_paged_through(server: Server) -> None:
    made = [(await make(server, str(number))).id for number in range(5)]
    seen = []
    async for completion in server.openai.chat.completions.list(limit=2):
        seen.append(completion.id)
        await server.openai.chat.completions.delete(completion.id)
    assert seen == made
    assert await listed(server) == []


async def test_they_are_found_by_model_and_by_several_pairs_of_metadata(server: Server) -> None:
    one = await make(server, metadata={"a": "1", "b[]": "x=y&z"}, model="m1")
    two = await make(server, metadata={"a": "1"}, model="m2")
    assert await listed(server, model="m1") == [one.id]
    assert await listed(server, metadata={"a": "1"}) == [one.id, two.id]
    assert await listed(server, metadata={"a": "1", "b[]": "x=y&z"}) == [one.id]
    assert await listed(server, metadata={"a": "1"}, model="m2") == [two.id]
    assert await listed(server, metadata={"a": "2"}) == await listed(server, model="m3") == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("limit=x", "limit"),
        ("limit=", "limit"),
        ("limit=-1", "limit"),
        ("order=up", "order"),
        ("after=resp_1", "after"),
        ("after=", "after"),
        ("metadata=x", "metadata"),
        ("metadata[]=x", "metadata"),
        (f"metadata[{'k' * 65}]=x", "metadata"),
        (f"metadata[k]={'v' * 513}", "metadata[k]"),
        (f"model={'m' * 513}", "model"),
        ("&".join(f"metadata[{n}]=x" for n in range(17)), "metadata"),
    ],
)
async def test_a_list_that_can_not_be_is_400(server: Server, query: str, param: str) -> None:
    assert await refused(server, "GET", f"?{query}", 400) == (param, "invalid_value")


async def test_bytes_that_are_no_text_find_nothing(server: Server) -> None:
    await make(server, metadata={"k": "v"})
    assert (await server.get(f"{PATH}?metadata[k]=%ED%A0%80%00&model=%FF"))["data"] == []


# Messages


async def test_the_messages_are_those_that_were_answered(server: Server) -> None:
    asked: list[dict[str, Any]] = [
        {"role": "system", "content": "be brief"},
        user("one"),
        {"role": "assistant", "content": "two"},
        user([{"type": "text", "text": "look"}, PICTURE]) | {"name": "ada"},
    ]
    made = await make(server, messages=asked)
    page = await server.openai.chat.completions.messages.list(made.id)
    assert [message.id for message in page.data] == [f"{made.id}-{number}" for number in range(4)]
    assert [message.role for message in page.data] == ["system", "user", "assistant", "user"]
    assert [message.content for message in page.data] == ["be brief", "one", "two", None]
    assert [message.content_parts for message in page.data[:3]] == [None] * 3
    parts = page.data[3].content_parts
    assert parts
    assert [part.to_dict() for part in parts] == asked[3]["content"]
    assert page.data[3].to_dict()["name"] == "ada"


async def test_the_messages_of_a_session_are_its_transcript_up_to_then(server: Server) -> None:
    first = await make(server, "one", session="s1")
    second = await make(server, "two", session="s1")
    messages = server.openai.chat.completions.messages
    assert [message.content async for message in messages.list(first.id)] == ["one"]
    assert [message.content async for message in messages.list(second.id)] == ["one", "1: one", "two"]


async def test_messages_are_paged_either_way(server: Server) -> None:
    made = await make(server, *map(str, range(5)))
    messages = server.openai.chat.completions.messages
    assert [message.content async for message in messages.list(made.id, limit=2)] == list("01234")
    assert [message.content async for message in messages.list(made.id, limit=2, order="desc")] == list("43210")
    assert [message.content async for message in messages.list(made.id, after=f"{made.id}-2")] == list("34")
    behind = await server.get(f"{PATH}/{made.id}/messages?after={made.id}-9")
    assert behind == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    behind = await server.get(f"{PATH}/{made.id}/messages?after={made.id}-9&order=desc&limit=2")
    assert [message["content"] for message in behind["data"]] == ["4", "3"]


@pytest.mark.parametrize(
    ("query", "param"),
    [("limit=0", "limit"), ("order=x", "order"), ("after=chatcmpl-1-0", "after"), ("after=1", "after")],
)
async def test_a_page_of_messages_that_can_not_be_is_400(server: Server, query: str, param: str) -> None:
    made = await make(server)
    assert await refused(server, "GET", f"/{made.id}/messages?{query}", 400) == (param, "invalid_value")
