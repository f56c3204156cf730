"""The items of a conversation, by the official SDK: listed, added, removed; turns and items see each other at once."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
import pytest_asyncio
from openai.types.conversations import ConversationItem

from api.turns.compress import Compression
from tests.support.api import call, fork
from tests.support.lasting import Lasting, lasting
from tests.support.sdk import check_item
from tests.support.server import Server
from tests.support.upstream import Message, Reply, Upstream, calls, refuses, says

SESSION_ID = "X-Hermes-Session-Id"
TOOL: Any = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}


@pytest_asyncio.fixture
async def lasts(data: Path, upstream: Upstream) -> AsyncIterator[Lasting]:
    async with lasting(data, upstream=upstream.url) as running:
        yield running


def user(text: Any, **more: Any) -> Any:
    return {"type": "message", "role": "user", "content": text} | more


def plain(messages: list[Message]) -> list[Any]:
    return [message["content"] for message in messages]


async def ask(server: Server, text: str, name: str, **options: Any) -> str:
    """One response in the conversation: the id of the session it was made in."""
    answer = await server.openai.responses.with_raw_response.create(model="m", input=text, conversation=name, **options)
    return str(answer.headers[SESSION_ID])


async def add(server: Server, name: str, *items: Any) -> list[str]:
    """The ids of items that are added."""
    added = await server.openai.conversations.items.create(name, items=items)
    return [str(item.id) for item in added.data]


async def items_of(server: Server, name: str) -> list[ConversationItem]:
    """All of them, oldest first, by the SDK's own paging."""
    return [item async for item in server.openai.conversations.items.list(name, order="asc", limit=3)]


async def texts_of(server: Server, name: str) -> list[str]:
    shown: list[dict[str, Any]] = [item.model_dump() for item in await items_of(server, name)]
    return [item["content"][0]["text"] if item["type"] == "message" else item["type"] for item in shown]


async def remove(server: Server, name: str, item_id: str) -> None:
    removed = await server.openai.conversations.items.delete(item_id, conversation_id=name)
    assert removed.id == name


async def test_turns_and_items_see_each_other_at_once_and_across_restarts(lasts: Lasting, upstream: Upstream) -> None:
    made = await lasts.openai.conversations.create()
    await ask(lasts.server, "one", made.id)
    await lasts.restart()
    (added,) = await add(lasts.server, made.id, user("by the way"))
    await lasts.restart()
    await ask(lasts.server, "two", made.id)
    assert plain(upstream.messages[1]) == ["one", "1: one", "by the way", "two"]
    await lasts.restart()
    assert await texts_of(lasts.server, made.id) == ["one", "1: one", "by the way", "two", "4: two"]
    first = (await items_of(lasts.server, made.id))[0]
    await remove(lasts.server, made.id, added)
    await lasts.restart()
    await remove(lasts.server, made.id, str(first.id))
    await ask(lasts.server, "three", made.id)
    assert plain(upstream.messages[2]) == ["1: one", "two", "4: two", "three"]
    await lasts.restart()
    assert await texts_of(lasts.server, made.id) == ["1: one", "two", "4: two", "three", "4: three"]
    for gone in (added, str(first.id), "msg_0"):
        with pytest.raises(openai.NotFoundError) as raised:
            await lasts.openai.conversations.items.retrieve(gone, conversation_id=made.id)
        assert (raised.value.param, raised.value.code) == ("item_id", "item_not_found")
        with pytest.raises(openai.NotFoundError):
            await lasts.openai.conversations.items.delete(gone, conversation_id=made.id)


async def test_items_are_listed_newest_first_in_pages_that_go_on_at_the_last_id(server: Server) -> None:
    made = await server.openai.conversations.create(items=[user(str(n)) for n in range(20)])
    await add(server, made.id, *(user(str(n)) for n in range(20, 25)))
    page = await server.openai.conversations.items.list(made.id)
    assert (len(page.data), page.has_more, page.last_id) == (20, True, page.data[-1].id)
    behind = await page.get_next_page()
    ids = [item.id for item in [*page.data, *behind.data]]
    assert (len(set(ids)), behind.has_more) == (25, False)
    assert await texts_of(server, made.id) == [str(n) for n in range(25)]
    for item in ids:
        found = await server.openai.conversations.items.retrieve(str(item), conversation_id=made.id)
        assert found.id == item


async def test_items_can_be_taken_out_page_by_page(server: Server) -> None:
    made = await server.openai.conversations.create(items=[user(str(n)) for n in range(20)])
    await ask(server, "and you?", made.id)
    async for item in server.openai.conversations.items.list(made.id, limit=4):
        if item.model_dump()["content"][0]["text"] not in ("3", "and you?"):
            await remove(server, made.id, str(item.id))
    assert await texts_of(server, made.id) == ["3", "and you?"]


async def test_a_conversation_longer_than_any_page_reaches_the_model_whole(server: Server, upstream: Upstream) -> None:
    made = await server.openai.conversations.create(items=[user(f"{n}") for n in range(20)])
    for begin in range(20, 140, 20):
        await add(server, made.id, *(user(f"{n}") for n in range(begin, begin + 20)))
    await ask(server, "and now?", made.id)
    assert plain(upstream.messages[0]) == [*(f"{n}" for n in range(140)), "and now?"]
    assert len(await items_of(server, made.id)) == 142


async def test_every_kind_of_item_is_as_the_sdk_knows_it(server: Server, upstream: Upstream) -> None:
    picture = {"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo=", "detail": "auto"}
    items: list[Any] = [
        user([{"type": "input_text", "text": "look"}, picture]),
        {"role": "assistant", "content": "I see"},
        {"type": "reasoning", "id": "rs_mine", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        {"role": "developer", "content": "be brief"},
    ]
    made = await server.openai.conversations.create(items=items)
    upstream.script = lambda _: calls("weather", '{"city": "Rome"}', "c2")
    await ask(server, "and Rome?", made.id, tools=[TOOL])
    shown = (await call(server, "GET", f"/v1/conversations/{made.id}/items?order=asc", 200))["data"]
    for item in shown:
        check_item(item)
    assert [item["type"] for item in shown] == [
        *("message", "message", "reasoning", "function_call", "function_call_output", "message"),
        *("message", "function_call"),
    ]
    assert shown[2]["id"] == "rs_mine"
    (sent,) = upstream.messages
    assert [message["role"] for message in sent] == ["user", "assistant", "assistant", "tool", "system", "user"]


async def test_a_call_and_its_output_can_be_taken_out_of_a_turn(server: Server, upstream: Upstream) -> None:
    made = await server.openai.conversations.create()
    call_ = {"type": "function", "function": {"name": "weather", "arguments": "{}"}}
    both = {"role": "assistant", "content": "let me see", "tool_calls": [call_ | {"id": "c1"}, call_ | {"id": "c2"}]}
    upstream.script = lambda _: Reply(message=both, finish_reason="tool_calls")
    await ask(server, "weather?", made.id, tools=[TOOL])
    upstream.script = lambda _: says("rain")
    outputs: Any = [{"type": "function_call_output", "call_id": id_, "output": f"of {id_}"} for id_ in ("c1", "c2")]
    await server.openai.responses.create(model="m", input=outputs, conversation=made.id)
    shown: list[dict[str, Any]] = [item.model_dump() for item in await items_of(server, made.id)]
    for item in [item for item in shown if item.get("call_id") == "c1"]:
        await remove(server, made.id, item["id"])
    await ask(server, "thanks", made.id)
    asked, said, put_out, rain, thanks = upstream.messages[-1]
    assert plain([asked, said, put_out, rain, thanks]) == ["weather?", "let me see", "of c2", "rain", "thanks"]
    assert [one["id"] for one in said["tool_calls"]] == ["c2"]
    kept = [item["id"] for item in shown if item.get("call_id") != "c1"]
    assert [item.id for item in await items_of(server, made.id)][: len(kept)] == kept


async def test_what_failed_was_cancelled_or_is_still_open_is_no_item(server: Server, upstream: Upstream) -> None:
    made = await server.openai.conversations.create(items=[user("one")])
    upstream.script = lambda _: refuses(500)
    with pytest.raises(openai.InternalServerError):
        await ask(server, "two", made.id)
    upstream.script = lambda _: says("ok")
    upstream.gate.clear()
    asking = asyncio.create_task(ask(server, "three", made.id))
    await upstream.wait_for_requests(2)
    assert await texts_of(server, made.id) == ["one"]
    upstream.gate.set()
    await asking
    assert await texts_of(server, made.id) == ["one", "three", "ok"]


# At once


async def test_items_wait_for_the_turn_that_is_being_taken(server: Server, upstream: Upstream) -> None:
    made = await server.openai.conversations.create(items=[user("one")])
    (first,) = await items_of(server, made.id)
    upstream.gate.clear()
    asking = asyncio.create_task(ask(server, "two", made.id))
    await upstream.wait_for_requests(1)
    adding = asyncio.create_task(add(server, made.id, user("three")))
    removing = asyncio.create_task(remove(server, made.id, str(first.id)))
    assert await texts_of(server, made.id) == ["one"]
    assert not adding.done()
    assert not removing.done()
    upstream.gate.set()
    await asyncio.gather(asking, adding, removing)
    assert await texts_of(server, made.id) == ["two", "2: two", "three"]


async def test_turns_and_items_at_once_come_one_after_the_other(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda body: says(f"re: {body['messages'][-1]['content']}")
    made = await server.openai.conversations.create()
    turns = [ask(server, f"q{n}", made.id) for n in range(8)]
    added = [add(server, made.id, user(f"a{n}"), user(f"b{n}")) for n in range(8)]
    await asyncio.gather(*(one for pair in zip(turns, added, strict=True) for one in pair))
    said = await texts_of(server, made.id)
    for n in range(8):
        assert said[said.index(f"q{n}") + 1] == f"re: q{n}"
        assert said[said.index(f"a{n}") + 1] == f"b{n}"
    for sent in upstream.messages:
        assert plain(sent) == said[: len(sent)]


async def test_of_two_who_remove_one_item_one_does(server: Server) -> None:
    made = await server.openai.conversations.create(items=[user("one"), user("two")])
    (first, _) = await items_of(server, made.id)
    path = f"/v1/conversations/{made.id}/items/{first.id}"
    answers = await asyncio.gather(*(server.http.delete(path) for _ in range(4)))
    assert sorted(answer.status for answer in answers) == [200, 404, 404, 404]
    assert await texts_of(server, made.id) == ["two"]


# Rotations and forks


async def test_what_a_compression_kept_can_be_removed_too(lasts: Lasting, upstream: Upstream) -> None:
    for number in range(8):
        session_id = await ask(lasts.server, f"question {number} ".ljust(60, "x"), "long")
    before = await texts_of(lasts.server, "long")
    upstream.script = lambda _: says("a summary")
    await call(lasts.server, "POST", f"/api/sessions/{session_id}/compress", 200)
    assert await texts_of(lasts.server, "long") == before, "nothing that was said is lost"
    asked = len(upstream.requests)
    await ask(lasts.server, "kept?", "long")
    sent = plain(upstream.messages[asked])
    items = {item.model_dump()["content"][0]["text"]: str(item.id) for item in await items_of(lasts.server, "long")}
    kept = [text for text in sent if text in before]
    assert 1 < len(kept) < len(before)
    await lasts.restart()
    for text in kept:
        await remove(lasts.server, "long", items[text])
        await lasts.restart()
        sent.remove(text)
        assert text not in await texts_of(lasts.server, "long")
    summarised = next(text for text in before if text not in kept)
    await remove(lasts.server, "long", items[summarised])
    await ask(lasts.server, "left?", "long")
    assert plain(upstream.messages[-1]) == [*sent, "a summary", "left?"]


async def test_a_compression_that_added_items_make_due_comes_before_the_next_turn(
    data: Path, upstream: Upstream
) -> None:
    upstream.script = lambda _: says("a summary")
    async with lasting(data, upstream=upstream.url, compression=Compression(context_tokens=800)) as lasts:
        made = await lasts.openai.conversations.create(items=[user(f"{n} ".ljust(200, "x")) for n in range(20)])
        assert not upstream.requests
        answer = await lasts.openai.responses.with_raw_response.create(model="m", input="now", conversation=made.id)
        assert answer.headers["X-Turnlog-Compression"] == "rotated"
        assert "a summary" in str(upstream.messages[-1])
        assert len(upstream.messages[-1]) < 20
        assert len(await items_of(lasts.server, made.id)) == 22


async def test_a_fork_loses_what_it_inherited_and_its_parent_does_not(lasts: Lasting, upstream: Upstream) -> None:
    await lasts.server.chat("one", "parent")
    await lasts.server.chat("two", "parent")
    await fork(lasts.server, "parent", id="child")
    ours, theirs = [
        (await lasts.openai.conversations.create(extra_headers={SESSION_ID: id_})).id for id_ in ("child", "parent")
    ]
    items = await items_of(lasts.server, ours)
    assert [item.id for item in items] == [item.id for item in await items_of(lasts.server, theirs)]
    await remove(lasts.server, ours, str(items[1].id))
    for _ in range(2):
        assert await texts_of(lasts.server, ours) == ["one", "two", "3: two"]
        assert await texts_of(lasts.server, theirs) == ["one", "1: one", "two", "3: two"]
        await lasts.restart()
    await lasts.server.chat("three", "child")
    assert plain(upstream.messages[-1]) == ["one", "two", "3: two", "three"]
    await remove(lasts.server, theirs, str(items[0].id))
    await lasts.restart()
    await lasts.server.chat("four", "child")
    assert plain(upstream.messages[-1])[:3] == ["one", "two", "3: two"]
    await lasts.server.chat("three", "parent")
    assert plain(upstream.messages[-1]) == ["1: one", "two", "3: two", "three"]


# What else knows of items


async def test_added_items_are_found_and_removed_ones_are_not(lasts: Lasting) -> None:
    made = await lasts.openai.conversations.create()
    await ask(lasts.server, "the albatross flies", made.id)
    (added, _) = await add(lasts.server, made.id, user("the pelican swims"), user("a heron stands"))
    found = await lasts.server.get("/api/sessions/search?q=pelican")
    assert len(found["data"]) == 1
    await remove(lasts.server, made.id, added)
    first = (await items_of(lasts.server, made.id))[0]
    await remove(lasts.server, made.id, str(first.id))
    for _ in range(2):
        for word in ("pelican", "albatross"):
            assert (await lasts.server.get(f"/api/sessions/search?q={word}"))["data"] == []
        await lasts.restart()


async def test_removed_items_are_not_recalled_and_added_ones_are(lasts: Lasting, upstream: Upstream) -> None:
    key = {"X-Hermes-Session-Key": "ada"}
    made = await lasts.openai.conversations.create(items=[user("The keeper's name is Grace.")], extra_headers=key)

    async def asked(session_id: str) -> list[Any]:
        await lasts.server.openai.responses.create(
            model="m", input="What is the keeper's name?", extra_headers=key | {SESSION_ID: session_id}
        )
        return plain(upstream.messages[-1])

    assert "Grace" in (await asked("s1"))[0]
    (item,) = await items_of(lasts.server, made.id)
    await remove(lasts.server, made.id, str(item.id))
    assert not any("Grace" in text for text in await asked("s2"))
    await lasts.restart()
    assert not any("Grace" in text for text in await asked("s3"))


async def test_a_transcript_that_lost_or_got_an_item_is_not_taken_for_one_that_is_resent(
    lasts: Lasting, upstream: Upstream
) -> None:
    async def resend(*texts: str) -> str:
        roles = ("user", "assistant")
        messages: Any = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
        answer = await lasts.openai.chat.completions.with_raw_response.create(model="m", messages=messages)
        return answer.headers[SESSION_ID]

    session_id = await resend("one")
    assert await resend("one", "1: one", "two") == session_id
    made = await lasts.openai.conversations.create(extra_headers={SESSION_ID: session_id})
    items = await items_of(lasts.server, made.id)
    await remove(lasts.server, made.id, str(items[3].id))
    other = await resend("one", "1: one", "two", "3: two", "three")
    assert other != session_id
    assert plain(upstream.messages[-1]) == ["one", "1: one", "two", "3: two", "three"]
    await lasts.restart()
    third = await resend("one", "1: one", "two", "3: two", "three", "5: three", "four")
    assert third == other, "its own history is known"
    again = await lasts.openai.conversations.create(extra_headers={SESSION_ID: other})
    await add(lasts.server, again.id, user("by the way"))
    history = ("one", "1: one", "two", "3: two", "three", "5: three", "four", "7: four")
    assert await resend(*history, "five") != other, "what was added is not in it: it forks before that"
    assert plain(upstream.messages[-1]) == [*history, "five"]


# Bad input


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "items", "missing_required_parameter"),
        ({"items": None}, "items", "invalid_value"),
        ({"items": []}, "items", "empty_array"),
        ({"items": [""]}, "items[0].content", "empty_message"),
        ({"items": "x"}, "items", "invalid_value"),
        ({"items": [user("x")] * 21}, "items", "array_above_max_length"),
        (
            {"items": [user("x"), {"type": "function_call", "name": "f"}]},
            "items[1].call_id",
            "missing_required_parameter",
        ),
        ({"items": [{"type": "mcp_call"}]}, "items[0].type", "unsupported_item"),
        ({"items": [user("x")], "metadata": {}}, "metadata", "unknown_parameter"),
        ({"items": [user("x", id="mine")]}, "items", "duplicate_item"),
        ({"items": [user("x", id="new"), user("y", id="new")]}, "items", "duplicate_item"),
    ],
)
async def test_items_that_can_not_be_added_are_refused_and_leave_nothing(
    server: Server, body: Any, param: str, code: str
) -> None:
    made = await server.openai.conversations.create(items=[user("one", id="mine")])
    error = await call(server, "POST", f"/v1/conversations/{made.id}/items", 400, json=body)
    assert (error["param"], error["code"]) == (param, code)
    if code == "duplicate_item":
        assert error["message"].startswith("Duplicate item found with id ")
    assert await texts_of(server, made.id) == ["one"]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        *(("limit=0", "limit"), ("limit=101", "limit"), ("limit=", "limit"), ("limit=-1", "limit")),
        *(("order=", "order"), ("order=up", "order"), ("after=msg_0", "after"), ("include=everything", "include")),
    ],
)
async def test_a_page_that_can_not_be_is_refused(server: Server, query: str, param: str) -> None:
    made = await server.openai.conversations.create(items=[user("one")])
    error = await call(server, "GET", f"/v1/conversations/{made.id}/items?{query}", 400)
    assert error["param"] == param


async def test_what_nobody_can_include_is_refused_everywhere(server: Server) -> None:
    made = await server.openai.conversations.create(items=[user("one", id="mine")])
    path = f"/v1/conversations/{made.id}/items"
    for method, place, body in (("POST", "", {"items": [user("two")]}), ("GET", "/mine", None)):
        error = await call(server, method, f"{path}{place}?include=everything", 400, json=body)
        assert error["param"] == "include"
        await call(server, method, f"{path}{place}?include=message.output_text.logprobs", 200, json=body)


async def test_an_item_keeps_the_id_that_it_came_with(server: Server, upstream: Upstream) -> None:
    made = await server.openai.conversations.create(items=[user("one", id="mine/1")])
    assert await add(server, made.id, user("two", id="mine2"), user("three")) != ["mine2"]
    found = await server.openai.conversations.items.retrieve("mine/1", conversation_id=made.id)
    assert found.id == "mine/1"
    await remove(server, made.id, "mine/1")
    await add(server, made.id, user("one again", id="mine/1"))
    await ask(server, "four", made.id)
    assert plain(upstream.messages[0]) == ["two", "three", "one again", "four"]


async def test_what_a_model_said_in_one_answer_goes_as_a_whole(lasts: Lasting, upstream: Upstream) -> None:
    call_ = {"index": 0, "id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    pieces: list[Message] = [{"content": "I look."}, {"tool_calls": [call_]}, {"content": "Wait."}]
    upstream.script = lambda _: Reply(pieces=pieces, finish_reason="tool_calls")
    stream = await lasts.openai.responses.create(
        model="m", input="rain?", conversation="trip", tools=[TOOL], stream=True
    )
    ids = [event.item.id async for event in stream if event.type == "response.output_item.done"]
    assert await texts_of(lasts.server, "trip") == ["rain?", "I look.", "function_call", "Wait."]
    await remove(lasts.server, "trip", str(ids[2]))
    await lasts.restart()
    assert await texts_of(lasts.server, "trip") == ["rain?", "function_call"]
    upstream.script = lambda _: says("dry")
    output: Any = {"type": "function_call_output", "call_id": "c1", "output": "none"}
    await lasts.openai.responses.create(model="m", input=[output], conversation="trip")
    assert plain(upstream.messages[-1]) == ["rain?", None, "none"]


async def test_ids_that_look_like_parts_of_an_answer_are_their_clients_own(lasts: Lasting, upstream: Upstream) -> None:
    whole, part = f"msg_{'0' * 28}", f"msg_{'0' * 28}_1"
    items = [user("keep", id=whole), user("secret", id=part)]
    made = await lasts.openai.conversations.create(items=items)
    await remove(lasts.server, made.id, part)
    assert await texts_of(lasts.server, made.id) == ["keep"]
    await ask(lasts.server, "b", made.id)
    assert plain(upstream.messages[-1]) == ["keep", "b"]
