"""Programs written for OpenAI's Chat Completions and Models APIs, with the official `openai` SDK as it comes."""

from typing import Any

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from tests.support.programs import asks_weather, collect, in_thread, refused, weather_then
from tests.support.server import Server, serving
from tests.support.upstream import Reply, Upstream, calls, says


class City(BaseModel):
    """What structured output is parsed into."""

    name: str
    inhabitants: int


WEATHER: Any = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


def user(text: str) -> Any:
    return {"role": "user", "content": text}


async def stored(server: Server, text: str, **more: Any) -> str:
    """One stored completion's id."""
    completion = await server.openai.chat.completions.create(model="m", messages=[user(text)], store=True, **more)
    completion_id: str = completion.id
    return completion_id


# Helpers of the SDK


async def test_parse_gives_the_model_the_schema_and_the_program_an_object(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: says('{"name":"Rome","inhabitants":3}')
    parsed = await server.openai.chat.completions.parse(model="m", messages=[user("Which?")], response_format=City)
    assert parsed.choices[0].message.parsed == City(name="Rome", inhabitants=3)
    assert upstream.requests[0]["response_format"]["json_schema"]["name"] == "City"


async def test_parse_reads_the_arguments_of_a_pydantic_tool(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: calls("City", '{"name":"Rome","inhabitants":1}')
    parsed = await server.openai.chat.completions.parse(
        model="m", messages=[user("?")], tools=[openai.pydantic_function_tool(City)]
    )
    (call,) = parsed.choices[0].message.tool_calls or []
    assert call.function.parsed_arguments == City(name="Rome", inhabitants=1)


async def test_the_stream_helper_accumulates_text_usage_and_object(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: says('{"name": "Rome", "inhabitants": 3}')
    async with server.openai.chat.completions.stream(
        model="m",
        messages=[user("Which?")],
        response_format=City,
        stream_options={"include_usage": True},
    ) as stream:
        events = await collect(stream)
        final = await stream.get_final_completion()
    assert final.choices[0].message.parsed == City(name="Rome", inhabitants=3)
    assert final.usage is not None
    assert final.usage.total_tokens == 18
    snapshots = [event.snapshot for event in events if event.type == "content.delta"]
    assert snapshots[-1] == '{"name": "Rome", "inhabitants": 3}'


async def test_the_stream_helper_gathers_a_tool_call(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: asks_weather()
    async with server.openai.chat.completions.stream(model="m", messages=[user("?")], tools=[WEATHER]) as stream:
        events = await collect(stream)
        final = await stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls or []
    assert (call.function.name, call.function.arguments) == ("weather", '{"city":"Rome"}')
    assert final.choices[0].finish_reason == "tool_calls"
    assert [event.arguments for event in events if event.type == "tool_calls.function.arguments.done"] == [
        '{"city":"Rome"}'
    ]


async def test_a_tool_loop_that_resends_everything_is_one_session(server: Server, upstream: Upstream) -> None:
    upstream.script = weather_then("Sunny in Rome.")
    said: list[Any] = [user("Weather?")]
    first = await server.openai.chat.completions.with_raw_response.create(model="m", messages=said, tools=[WEATHER])
    message = first.parse().choices[0].message
    (call,) = message.tool_calls or []
    said += [message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    last = await server.openai.chat.completions.with_raw_response.create(model="m", messages=said, tools=[WEATHER])
    assert last.parse().choices[0].message.content == "Sunny in Rome."
    assert last.headers["x-hermes-session-id"] == first.headers["x-hermes-session-id"]


async def test_usage_comes_in_a_last_chunk_of_its_own(server: Server) -> None:
    stream = await server.openai.chat.completions.create(
        model="m", messages=[user("hi")], stream=True, stream_options={"include_usage": True}
    )
    chunks = await collect(stream)
    assert [chunk for chunk in chunks if chunk.usage] == [chunks[-1]]
    assert chunks[-1].choices == []
    assert all("usage" in chunk.model_fields_set for chunk in chunks)


async def test_several_choices_and_their_logprobs_are_as_the_model_gives_them(
    server: Server, upstream: Upstream
) -> None:
    logprobs = {"content": [{"token": "a", "logprob": -0.1, "bytes": [97], "top_logprobs": []}], "refusal": None}
    choices = [
        {
            "index": n,
            "message": {"role": "assistant", "content": "ab"[n]},
            "finish_reason": "stop",
            "logprobs": logprobs,
        }
        for n in range(2)
    ]
    upstream.script = lambda _: says("a", extra={"choices": choices})
    completion = await server.openai.chat.completions.create(
        model="m", messages=[user("hi")], n=2, logprobs=True, top_logprobs=2
    )
    assert [choice.message.content for choice in completion.choices] == ["a", "b"]
    assert completion.choices[0].logprobs is not None
    assert (completion.choices[0].logprobs.content or [])[0].logprob == -0.1
    sent = upstream.requests[0]
    assert (sent["n"], sent["logprobs"], sent["top_logprobs"]) == (2, True, 2)


# Stored completions


async def test_a_stored_completion_is_read_changed_and_deleted(server: Server) -> None:
    completions = server.openai.chat.completions
    made = await completions.create(model="m", messages=[user("hello")], store=True, metadata={"topic": "demo"})
    found = await completions.retrieve(made.id)
    assert (found.id, found.object, found.model) == (made.id, "chat.completion", made.model)
    assert found.choices[0].message.content == "1: hello"
    assert found.usage == made.usage
    assert found.model_dump()["metadata"] == {"topic": "demo"}
    changed = await completions.update(made.id, metadata={"topic": "else"})
    assert changed.model_dump()["metadata"] == {"topic": "else"}
    gone = await completions.delete(made.id)
    assert gone.model_dump() == {"id": made.id, "object": "chat.completion.deleted", "deleted": True}
    for attempt in (
        completions.retrieve(made.id),
        completions.delete(made.id),
        completions.update(made.id, metadata={}),
        completions.messages.list(made.id),
    ):
        await refused(attempt, 404)


@pytest.mark.parametrize("more", [{}, {"store": False}])
async def test_only_what_was_stored_is_a_stored_completion(server: Server, more: Any) -> None:
    completion = await server.openai.chat.completions.create(model="m", messages=[user("hello")], **more)
    await refused(server.openai.chat.completions.retrieve(completion.id), 404)
    assert (await server.openai.chat.completions.list()).data == []


async def test_a_streamed_completion_is_stored_too(server: Server) -> None:
    stream = await server.openai.chat.completions.create(model="m", messages=[user("one two")], store=True, stream=True)
    chunks = await collect(stream)
    found = await server.openai.chat.completions.retrieve(chunks[0].id)
    assert found.choices[0].message.content == "1: one two"


async def test_stored_completions_page_and_are_filtered(server: Server) -> None:
    completions = server.openai.chat.completions
    ids = [await stored(server, f"q{n}", metadata={"parity": "odd" if n % 2 else "even"}) for n in range(23)]
    other = await completions.create(model="other", messages=[user("x")], store=True)
    assert [item.id for item in await collect(completions.list(limit=5))] == [*ids, other.id]
    assert [item.id for item in await collect(completions.list(order="desc"))] == [other.id, *reversed(ids)]
    assert [item.id for item in await collect(completions.list(model="other"))] == [other.id]
    odd = completions.list(metadata={"parity": "odd"}, limit=4)
    assert [item.id for item in await collect(odd)] == ids[1::2]
    page = await completions.list()
    assert len(page.data) == 20
    behind = await completions.list(after=ids[20])
    assert [item.id for item in behind.data] == [*ids[21:], other.id]


async def test_the_messages_of_a_stored_completion_page(server: Server) -> None:
    messages = [user("one"), {"role": "assistant", "content": "uno"}, user("two")]
    made = await server.openai.chat.completions.create(model="m", messages=messages, store=True)
    listed = await collect(server.openai.chat.completions.messages.list(made.id, limit=2))
    assert [(message.role, message.content) for message in listed] == [
        (message["role"], message["content"]) for message in messages
    ]
    assert len({message.id for message in listed}) == 3
    backwards = await collect(server.openai.chat.completions.messages.list(made.id, order="desc"))
    assert backwards == listed[::-1]


@pytest.mark.parametrize(
    ("query", "param"),
    [({"limit": 0}, "limit"), ({"limit": 101}, "limit"), ({"order": "up"}, "order"), ({"after": "none"}, "after")],
)
async def test_a_page_of_stored_completions_that_can_not_be_is_refused(server: Server, query: Any, param: str) -> None:
    made = await stored(server, "hello")
    await refused(server.openai.chat.completions.list(**query), 400, param)
    await refused(server.openai.chat.completions.messages.list(made, **query), 400, param)


async def test_stored_completions_outlive_a_restart(data: Any, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        kept, gone = await stored(server, "kept", metadata={"a": "b"}), await stored(server, "gone")
        await server.openai.chat.completions.update(kept, metadata={"a": "c"})
        await server.openai.chat.completions.delete(gone)
    async with serving(data, upstream=upstream.url) as server:
        (found,) = (await server.openai.chat.completions.list()).data
        assert (found.id, found.model_dump()["metadata"]) == (kept, {"a": "c"})


# Models


async def test_models_are_listed_and_retrieved(server: Server) -> None:
    listed = await collect(server.openai.models.list())
    assert [model.id for model in listed] == ["m1"]
    model = await server.openai.models.retrieve("m1")
    assert (model.id, model.object, model.created, model.owned_by) == ("m1", "model", 5, "me")
    await refused(server.openai.models.retrieve("none"), 404, "model", "model_not_found")
    await refused(server.openai.models.retrieve("org/none"), 404, "model", "model_not_found")


async def test_a_model_that_the_upstream_does_not_know_is_404(server: Server, upstream: Upstream) -> None:
    error = {"message": "The model `none` does not exist", "type": "x", "param": "model", "code": "model_not_found"}
    upstream.script = lambda _: Reply(status=404, body={"error": error})
    attempt = server.openai.chat.completions.create(model="org/none", messages=[user("x")])
    await refused(attempt, 404, "model", "model_not_found")
    assert upstream.requests[0]["model"] == "org/none"


# What is not here


async def test_resources_that_turnlog_does_not_have_are_404_in_the_envelope(server: Server) -> None:
    client = server.openai
    for attempt in (
        client.files.list(),
        client.files.create(file=b"x", purpose="user_data"),
        client.embeddings.create(model="m", input="x"),
        client.completions.create(model="m", prompt="x"),
        client.images.generate(model="m", prompt="x"),
        client.audio.speech.create(model="m", input="x", voice="alloy"),
        client.moderations.create(input="x"),
        client.vector_stores.list(),
        client.batches.list(),
        client.fine_tuning.jobs.list(),
    ):
        await refused(attempt, 404)


async def test_deleting_a_model_is_refused(server: Server) -> None:
    await refused(server.openai.models.delete("m1"), 405)


async def test_a_program_with_the_synchronous_client(server: Server, upstream: Upstream) -> None:
    upstream.script = weather_then("Sunny in Rome.")

    def program(client: OpenAI) -> tuple[str | None, list[str], list[str]]:
        said: list[Any] = [user("Weather?")]
        with client.chat.completions.stream(model="m", messages=said, tools=[WEATHER]) as stream:
            message = stream.get_final_completion().choices[0].message
        (call,) = message.tool_calls or []
        said += [message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
        last = client.chat.completions.create(model="m", messages=said, tools=[WEATHER], store=True)
        ids = [completion.id for completion in client.chat.completions.list(limit=1)]
        assert ids == [last.id]
        roles = [str(message.role) for message in client.chat.completions.messages.list(last.id, limit=1)]
        return last.choices[0].message.content, roles, [model.id for model in client.models.list()]

    text, roles, models = await in_thread(server, program)
    assert text == "Sunny in Rome."
    assert roles == ["user", "assistant", "tool"]
    assert models == ["m1"]
