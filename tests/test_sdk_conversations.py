"""Programs written for OpenAI's Conversations API, with the official `openai` SDK as it comes."""

from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.support.programs import asks_weather, collect, in_thread, refused, says_thought
from tests.support.server import Server, serving
from tests.support.upstream import Reply, Upstream, echo

PICTURE = "data:image/png;base64,iVBORw0KGgo="


def user(text: str) -> Any:
    return {"type": "message", "role": "user", "content": text}


def assistant(text: str) -> Any:
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


def text_of(item: Any) -> str:
    text: str = item.content[0].text
    return text


async def texts(server: Server, conversation_id: str) -> list[str]:
    """Everything of a conversation, oldest first."""
    return [
        text_of(item) for item in await collect(server.openai.conversations.items.list(conversation_id, order="asc"))
    ]


async def ask(server: Server, text: str, conversation: str) -> str:
    """One turn; the text of its answer."""
    response = await server.openai.responses.create(model="m", input=text, conversation=conversation)
    return response.output_text


# A conversation's life


async def test_a_conversation_is_made_read_changed_and_deleted(server: Server) -> None:
    conversations = server.openai.conversations
    made = await conversations.create(metadata={"topic": "demo", "owner": "ada"})
    assert made.id.startswith("conv_")
    assert (made.object, made.metadata) == ("conversation", {"topic": "demo", "owner": "ada"})
    assert await conversations.retrieve(made.id) == made
    changed = await conversations.update(made.id, metadata={"topic": "else"})
    assert changed.metadata == {"topic": "else"}
    assert changed.created_at == made.created_at
    assert await conversations.retrieve(made.id) == changed
    gone = await conversations.delete(made.id)
    assert gone.model_dump() == {"id": made.id, "object": "conversation.deleted", "deleted": True}


async def test_a_deleted_conversation_is_unknown_to_every_method(server: Server, upstream: Upstream) -> None:
    conversations = server.openai.conversations
    made = await conversations.create(items=[user("one")])
    (item,) = (await conversations.items.list(made.id)).data
    assert item.id
    await conversations.delete(made.id)
    for attempt in (
        conversations.retrieve(made.id),
        conversations.update(made.id, metadata={}),
        conversations.delete(made.id),
        conversations.items.list(made.id),
        conversations.items.create(made.id, items=[user("x")]),
        conversations.items.retrieve(item.id, conversation_id=made.id),
        conversations.items.delete(item.id, conversation_id=made.id),
        server.openai.responses.create(model="m", input="x", conversation=made.id),
    ):
        await refused(attempt, 404)
    assert not upstream.requests


async def test_a_conversation_that_never_was_is_unknown(server: Server) -> None:
    conversations = server.openai.conversations
    for attempt in (
        conversations.retrieve("conv_0123456789"),
        conversations.items.list("conv_0123456789"),
        conversations.items.create("conv_0123456789", items=[user("x")]),
        conversations.delete("conv_0123456789"),
    ):
        assert isinstance(await refused(attempt, 404), openai.NotFoundError)


async def test_a_conversation_without_metadata_has_an_empty_one_to_read(server: Server) -> None:
    made = await server.openai.conversations.create()
    assert made.metadata in ({}, None)
    assert (await server.openai.conversations.items.list(made.id)).data == []


# Items


async def test_items_given_at_the_creation_are_what_the_model_sees(server: Server, upstream: Upstream) -> None:
    made = await server.openai.conversations.create(items=[user("My name is Ada."), assistant("Hello Ada.")])
    assert await texts(server, made.id) == ["My name is Ada.", "Hello Ada."]
    assert await ask(server, "Who am I?", made.id) == "3: Who am I?"
    assert upstream.messages[0] == [
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Hello Ada."},
        {"role": "user", "content": "Who am I?"},
    ]
    assert await texts(server, made.id) == ["My name is Ada.", "Hello Ada.", "Who am I?", "3: Who am I?"]


async def test_items_added_and_deleted_between_turns_are_honoured(server: Server, upstream: Upstream) -> None:
    conversation = (await server.openai.conversations.create()).id
    await ask(server, "one", conversation)
    added = await server.openai.conversations.items.create(conversation, items=[user("by the way"), assistant("noted")])
    assert added.object == "list"
    assert [text_of(item) for item in added.data] == ["by the way", "noted"]
    assert (added.first_id, added.last_id) == (added.data[0].id, added.data[-1].id)
    await ask(server, "two", conversation)
    assert [message["content"] for message in upstream.messages[1]] == ["one", "1: one", "by the way", "noted", "two"]
    for item in added.data:
        assert item.id
        left = await server.openai.conversations.items.delete(item.id, conversation_id=conversation)
        assert (left.id, left.object) == (conversation, "conversation")
    await ask(server, "three", conversation)
    assert [message["content"] for message in upstream.messages[2]] == ["one", "1: one", "two", "5: two", "three"]
    assert await texts(server, conversation) == ["one", "1: one", "two", "5: two", "three", "5: three"]


async def test_an_item_is_retrieved_as_it_is_listed_until_it_is_deleted(server: Server) -> None:
    items = server.openai.conversations.items
    conversation = (await server.openai.conversations.create(items=[user("one")])).id
    await ask(server, "two", conversation)
    for item in await collect(items.list(conversation)):
        assert item.id
        assert await items.retrieve(item.id, conversation_id=conversation) == item
        await items.delete(item.id, conversation_id=conversation)
        await refused(items.retrieve(item.id, conversation_id=conversation), 404)
        await refused(items.delete(item.id, conversation_id=conversation), 404)
    assert (await items.list(conversation)).data == []


async def test_more_than_a_hundred_items_page_in_both_orders_and_reach_the_model(
    server: Server, upstream: Upstream
) -> None:
    items = server.openai.conversations.items
    conversation = (await server.openai.conversations.create(items=[user(f"m{n}") for n in range(20)])).id
    for start in range(20, 120, 20):
        await items.create(conversation, items=[user(f"m{n}") for n in range(start, start + 20)])
    wanted = [f"m{n}" for n in range(120)]
    for limit in (7, 100):
        ascending = await collect(items.list(conversation, order="asc", limit=limit))
        descending = await collect(items.list(conversation, limit=limit))
        assert [text_of(item) for item in ascending] == wanted
        assert descending == ascending[::-1]
    page = await items.list(conversation)
    assert [text_of(item) for item in page.data] == wanted[:-21:-1]
    assert page.has_more
    assert page.last_id == page.data[-1].id
    await ask(server, "all of it", conversation)
    assert [message["content"] for message in upstream.messages[0]] == [*wanted, "all of it"]


async def test_calls_outputs_reasoning_and_pictures_come_back_as_they_were_added(server: Server) -> None:
    added: list[Any] = [
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_image", "image_url": PICTURE, "detail": "low"}],
        },
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
        assistant("It is sunny."),
    ]
    made = await server.openai.conversations.create(items=added)
    listed = await collect(server.openai.conversations.items.list(made.id, order="asc"))
    assert [item.type for item in listed] == [item["type"] for item in added]
    dumped = [item.model_dump(exclude_none=True) for item in listed]
    assert dumped[0]["content"] == added[0]["content"]
    assert (dumped[1]["name"], dumped[1]["arguments"], dumped[1]["call_id"]) == ("weather", "{}", "c1")
    assert (dumped[2]["output"], dumped[2]["call_id"]) == ("sunny", "c1")
    assert len({item["id"] for item in dumped}) == 4


async def test_what_a_turn_said_stands_in_the_conversation_as_in_the_response(
    server: Server, upstream: Upstream
) -> None:
    upstream.script = lambda body: says_thought() if body["messages"][-1]["role"] == "tool" else asks_weather()
    tools: Any = [{"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}]
    conversation = (await server.openai.conversations.create()).id
    responses = server.openai.responses
    first = await responses.create(model="m", input="?", conversation=conversation, tools=tools)
    output: Any = [{"type": "function_call_output", "call_id": "call_w", "output": "sunny"}]
    last = await responses.create(model="m", input=output, conversation=conversation, tools=tools)
    listed = await collect(server.openai.conversations.items.list(conversation, order="asc"))
    assert [item.type for item in listed] == [
        *("message", "function_call", "function_call_output", "reasoning", "message")
    ]
    assert [listed[1].id, listed[3].id, listed[4].id] == [item.id for item in (*first.output, *last.output)]


async def test_a_failed_turn_leaves_no_items(server: Server, upstream: Upstream) -> None:
    conversation = (await server.openai.conversations.create()).id
    await ask(server, "one", conversation)
    upstream.script = lambda _: Reply(status=500, body={"error": {"message": "no"}})
    with pytest.raises(openai.InternalServerError):
        await ask(server, "two", conversation)
    upstream.script = echo
    assert "two" not in " ".join(await texts(server, conversation))
    await ask(server, "three", conversation)
    assert [message["content"] for message in upstream.messages[-1]] == ["one", "1: one", "three"]


async def test_a_conversation_outlives_a_restart(data: Any, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        made = await server.openai.conversations.create(items=[user("one")], metadata={"a": "b"})
        await ask(server, "two", made.id)
        before = await collect(server.openai.conversations.items.list(made.id))
        assert before[0].id
        await server.openai.conversations.items.delete(before[0].id, conversation_id=made.id)
    async with serving(data, upstream=upstream.url) as server:
        assert await server.openai.conversations.retrieve(made.id) == made
        assert await collect(server.openai.conversations.items.list(made.id)) == before[1:]


# Refusals


async def test_more_than_twenty_items_at_once_are_refused(server: Server) -> None:
    many = [user(str(number)) for number in range(21)]
    await refused(server.openai.conversations.create(items=many), 400, "items")
    made = await server.openai.conversations.create()
    await refused(server.openai.conversations.items.create(made.id, items=many), 400, "items")
    assert (await server.openai.conversations.items.list(made.id)).data == []


@pytest.mark.parametrize(
    ("query", "param"),
    [({"limit": 0}, "limit"), ({"limit": 101}, "limit"), ({"order": "up"}, "order"), ({"after": "msg_none"}, "after")],
)
async def test_a_page_of_items_that_can_not_be_is_refused(server: Server, query: Any, param: str) -> None:
    made = await server.openai.conversations.create()
    await refused(server.openai.conversations.items.list(made.id, **query), 400, param)


TOO_MANY = {f"k{number}": "v" for number in range(17)}


@pytest.mark.parametrize("metadata", [TOO_MANY, {"k" * 65: "v"}, {"k": "v" * 513}, {"k": 1}, "text", [1]])
async def test_metadata_beyond_its_limits_is_refused(server: Server, metadata: Any) -> None:
    made = await server.openai.conversations.create(metadata={"k": "v"})
    for attempt in (
        server.openai.conversations.create(metadata=metadata),
        server.openai.conversations.update(made.id, metadata=metadata),
    ):
        error = await refused(attempt, 400)
        assert (error.param or "").startswith("metadata")
    assert (await server.openai.conversations.retrieve(made.id)).metadata == {"k": "v"}


@pytest.mark.parametrize(
    "item",
    [
        {"type": "message", "role": "nobody", "content": "x"},
        {"type": "message", "role": "user"},
        {"type": "nothing"},
        {"type": "function_call_output", "output": "x"},
        7,
    ],
)
async def test_an_item_that_is_none_is_refused_and_none_of_its_request_is_kept(server: Server, item: Any) -> None:
    made = await server.openai.conversations.create()
    items: Any = [user("fine"), item]
    error = await refused(server.openai.conversations.items.create(made.id, items=items), 400)
    assert (error.param or "").startswith("items[1]")
    assert (await server.openai.conversations.items.list(made.id)).data == []


async def test_an_id_that_the_conversation_has_is_refused(server: Server) -> None:
    item = user("one") | {"id": "msg_mine"}
    made = await server.openai.conversations.create(items=[item])
    error = await refused(server.openai.conversations.items.create(made.id, items=[item]), 400)
    assert "msg_mine" in error.message


async def test_an_item_of_another_conversation_is_unknown(server: Server) -> None:
    items = server.openai.conversations.items
    mine = (await server.openai.conversations.create(items=[user("one")])).id
    other = (await server.openai.conversations.create()).id
    (item,) = (await items.list(mine)).data
    assert item.id
    await refused(items.retrieve(item.id, conversation_id=other), 404)
    await refused(items.delete(item.id, conversation_id=other), 404)
    assert len((await items.list(mine)).data) == 1


# Slugs, and programs without asyncio


async def test_a_slug_names_a_conversation_for_the_items_api_too(server: Server) -> None:
    await ask(server, "one", "trip-to-rome")
    assert await texts(server, "trip-to-rome") == ["one", "1: one"]
    await server.openai.conversations.items.create("trip-to-rome", items=[user("two")])
    assert await ask(server, "three", "trip-to-rome") == "4: three"


async def test_a_program_with_the_synchronous_client(server: Server) -> None:
    def program(client: OpenAI) -> list[str]:
        conversation = client.conversations.create(items=[user("one")], metadata={"topic": "demo"})
        client.responses.create(model="m", input="two", conversation=conversation.id)
        client.conversations.items.create(conversation.id, items=[user("three")])
        found = [text_of(item) for item in client.conversations.items.list(conversation.id, order="asc", limit=1)]
        client.conversations.delete(conversation.id)
        with pytest.raises(openai.NotFoundError):
            client.conversations.retrieve(conversation.id)
        return found

    assert await in_thread(server, program) == ["one", "two", "2: two", "three"]
