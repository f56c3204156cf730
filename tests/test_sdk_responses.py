"""Programs written for OpenAI's Responses API, with the official `openai` SDK as it comes."""

from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.responses import FunctionToolParam, Response, ResponseFunctionToolCall, ResponseOutputMessage
from pydantic import BaseModel

from tests.support.programs import asks_weather, collect, in_order, in_thread, refused, thinks, weather_then
from tests.support.server import Server
from tests.support.upstream import Reply, Upstream, calls, says

PICTURE = "data:image/png;base64,iVBORw0KGgo="
DOCUMENT = "data:application/pdf;base64,JVBERi0="
TERMINAL = {"response.completed", "response.incomplete", "response.failed"}
WEATHER: FunctionToolParam = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": True,
}
streamed_or_not = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


class City(BaseModel):
    """What structured output is parsed into."""

    name: str
    inhabitants: int


def text_of(item: Any) -> str:
    text: str = item.content[0].text
    return text


def the_call(response: Response) -> ResponseFunctionToolCall:
    (call,) = [item for item in response.output if item.type == "function_call"]
    return call


def output_of(call: ResponseFunctionToolCall, text: str = "sunny") -> Any:
    return {"type": "function_call_output", "call_id": call.call_id, "output": text}


async def ended(server: Server, response: Response) -> Response:
    """Poll as the guide for background responses does, until the response has ended."""
    while response.status in ("queued", "in_progress"):
        response = await server.openai.responses.retrieve(response.id)
    return response


# Structured output


async def test_parse_gives_the_model_the_schema_and_the_program_an_object(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: says('{"name":"Rome","inhabitants":2800000}')
    parsed = await server.openai.responses.parse(model="m", input="Which?", text_format=City)
    assert parsed.output_parsed == City(name="Rome", inhabitants=2_800_000)
    format_ = upstream.requests[0]["response_format"]
    assert format_["type"] == "json_schema"
    assert format_["json_schema"]["name"] == "City"
    assert format_["json_schema"]["strict"] is True
    assert set(format_["json_schema"]["schema"]["properties"]) == {"name", "inhabitants"}
    again = await server.openai.responses.retrieve(parsed.id)
    assert again.text is not None
    assert again.text.format is not None
    assert again.text.format.type == "json_schema"


async def test_the_stream_helper_parses_and_its_snapshots_grow_to_the_answer(
    server: Server, upstream: Upstream
) -> None:
    upstream.script = lambda _: says('{"name": "Rome", "inhabitants": 3}')
    async with server.openai.responses.stream(model="m", input="Which?", text_format=City) as stream:
        snapshots = [event.snapshot async for event in stream if event.type == "response.output_text.delta"]
        final = await stream.get_final_response()
    assert snapshots[-1] == '{"name": "Rome", "inhabitants": 3}'
    assert len(snapshots) > 1
    assert final.output_parsed == City(name="Rome", inhabitants=3)
    assert (await server.openai.responses.retrieve(final.id)).output_text == snapshots[-1]


async def test_json_mode_and_verbosity_reach_the_model(server: Server, upstream: Upstream) -> None:
    await server.openai.responses.create(
        model="m", input="JSON please", text={"format": {"type": "json_object"}, "verbosity": "low"}
    )
    assert upstream.requests[0]["response_format"] == {"type": "json_object"}
    assert upstream.requests[0]["verbosity"] == "low"


# Tools


async def test_a_tool_loop_by_previous_response_sends_only_the_output(server: Server, upstream: Upstream) -> None:
    upstream.script = weather_then("Sunny in Rome.")
    first = await server.openai.responses.create(model="m", input="Weather?", tools=[WEATHER])
    call = the_call(first)
    assert (call.name, call.arguments, call.status) == ("weather", '{"city":"Rome"}', "completed")
    last = await server.openai.responses.create(
        model="m",
        previous_response_id=first.id,
        input=[output_of(call)],
        tools=[WEATHER],
    )
    assert last.output_text == "Sunny in Rome."
    assert [message["role"] for message in upstream.messages[1]] == ["user", "assistant", "tool"]
    assert upstream.messages[1][1]["tool_calls"][0]["id"] == upstream.messages[1][2]["tool_call_id"] == "call_w"
    assert upstream.messages[1][2]["content"] == "sunny"


async def test_a_tool_loop_that_resends_everything_works_without_storing(server: Server, upstream: Upstream) -> None:
    upstream.script = weather_then("Sunny in Rome.")
    said: list[Any] = [{"role": "user", "content": "Weather?"}]
    first = await server.openai.responses.create(model="m", input=said, tools=[WEATHER], store=False)
    said += [item.model_dump(exclude_none=True) for item in first.output]
    said.append(output_of(the_call(first)))
    last = await server.openai.responses.create(model="m", input=said, tools=[WEATHER], store=False)
    assert last.output_text == "Sunny in Rome."
    assert [message["role"] for message in upstream.messages[1]] == ["user", "assistant", "tool"]


async def test_a_tool_loop_that_resends_the_sdks_own_objects_works(server: Server, upstream: Upstream) -> None:
    upstream.script = weather_then("Sunny in Rome.")
    said: list[Any] = [{"role": "user", "content": "Weather?"}]
    first = await server.openai.responses.create(model="m", input=said, tools=[WEATHER])
    said += first.output
    said.append(output_of(the_call(first)))
    last = await server.openai.responses.create(model="m", input=said, tools=[WEATHER])
    assert last.output_text == "Sunny in Rome."
    assert [message["role"] for message in upstream.messages[1]] == ["user", "assistant", "tool"]


async def test_a_tool_loop_in_a_conversation(server: Server, upstream: Upstream) -> None:
    upstream.script = weather_then("Sunny in Rome.")
    conversation = (await server.openai.conversations.create()).id
    first = await server.openai.responses.create(model="m", input="?", conversation=conversation, tools=[WEATHER])
    last = await server.openai.responses.create(
        model="m",
        input=[output_of(the_call(first))],
        conversation={"id": conversation},
        tools=[WEATHER],
    )
    assert last.output_text == "Sunny in Rome."
    assert last.conversation is not None
    assert last.conversation.id == conversation


async def test_parallel_calls_are_all_answered_in_one_turn(server: Server, upstream: Upstream) -> None:
    both = [asks_weather(city, call_id).message["tool_calls"][0] for city, call_id in (("Rome", "c1"), ("Oslo", "c2"))]
    message = {"role": "assistant", "content": None, "tool_calls": both}
    upstream.script = in_order(Reply(message=message, finish_reason="tool_calls"), says("done"))
    first = await server.openai.responses.create(model="m", input="?", tools=[WEATHER], parallel_tool_calls=True)
    outputs: Any = [output_of(item, "fine") for item in first.output if item.type == "function_call"]
    assert [output["call_id"] for output in outputs] == ["c1", "c2"]
    await refused(
        server.openai.responses.create(model="m", previous_response_id=first.id, input=outputs[:1]), 400, "input"
    )
    last = await server.openai.responses.create(model="m", previous_response_id=first.id, input=outputs)
    assert last.output_text == "done"
    assert len(upstream.requests) == 2


async def test_an_output_without_its_call_is_refused_and_so_is_a_call_without_its_output(
    server: Server, upstream: Upstream
) -> None:
    first = await server.openai.responses.create(model="m", input="hello")
    orphan: Any = [{"type": "function_call_output", "call_id": "call_none", "output": "x"}]
    await refused(server.openai.responses.create(model="m", input=orphan, previous_response_id=first.id), 400, "input")
    upstream.script = lambda _: asks_weather()
    called = await server.openai.responses.create(model="m", input="?", tools=[WEATHER])
    error = await refused(
        server.openai.responses.create(model="m", input="never mind", previous_response_id=called.id), 400, "input"
    )
    assert "No tool output found for function call call_w" in error.message


async def test_the_stream_helper_shows_a_calls_arguments_growing(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: asks_weather()
    async with server.openai.responses.stream(model="m", input="?", tools=[WEATHER]) as stream:
        events = await collect(stream)
        final = await stream.get_final_response()
    snapshots = [event.snapshot for event in events if event.type == "response.function_call_arguments.delta"]
    assert len(snapshots) > 1
    assert snapshots[-1] == the_call(final).arguments == '{"city":"Rome"}'


async def test_parse_reads_the_arguments_of_a_pydantic_tool(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: calls("City", '{"name":"Rome","inhabitants":1}')
    tool: Any = openai.pydantic_function_tool(City)
    parsed = await server.openai.responses.parse(model="m", input="?", tools=[tool])
    (call,) = [item for item in parsed.output if item.type == "function_call"]
    assert call.parsed_arguments == City(name="Rome", inhabitants=1)
    assert upstream.requests[0]["tools"][0]["function"]["name"] == "City"


@pytest.mark.parametrize("choice", ["none", "required", {"type": "function", "name": "weather"}])
async def test_tool_choice_reaches_the_model_and_is_echoed(server: Server, upstream: Upstream, choice: Any) -> None:
    response = await server.openai.responses.create(model="m", input="?", tools=[WEATHER], tool_choice=choice)
    sent = upstream.requests[0]["tool_choice"]
    assert sent == (choice if isinstance(choice, str) else {"type": "function", "function": {"name": "weather"}})
    dumped = response.model_dump(exclude_none=True)
    assert dumped["tool_choice"] == choice
    assert dumped["tools"] == [WEATHER]


@pytest.mark.parametrize(
    "type_", ["web_search", "file_search", "code_interpreter", "image_generation", "computer_use_preview", "mcp"]
)
async def test_a_hosted_tool_is_refused_by_its_name(server: Server, upstream: Upstream, type_: str) -> None:
    tools: Any = [WEATHER, {"type": type_}]
    error = await refused(server.openai.responses.create(model="m", input="?", tools=tools), 400)
    assert error.param is not None
    assert error.param.startswith("tools[1]")
    assert type_ in error.message
    assert not upstream.requests


# Parts


@streamed_or_not
async def test_images_and_files_reach_the_model_as_its_own_parts(
    server: Server, upstream: Upstream, stream: bool
) -> None:
    parts: Any = [
        {
            "role": "user",
            "content": [
                {"type": "input_text", "text": "Look."},
                {"type": "input_image", "image_url": PICTURE, "detail": "low"},
                {"type": "input_file", "filename": "a.pdf", "file_data": DOCUMENT},
            ],
        }
    ]
    answer: Any = await server.openai.responses.create(model="m", input=parts, stream=stream)
    if stream:
        await collect(answer)
    assert upstream.messages[0] == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look."},
                {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": DOCUMENT}},
            ],
        }
    ]


async def test_images_come_back_in_input_items_as_they_were_sent(server: Server) -> None:
    parts: Any = [{"role": "user", "content": [{"type": "input_image", "image_url": PICTURE, "detail": "high"}]}]
    response = await server.openai.responses.create(model="m", input=parts)
    page = await server.openai.responses.input_items.list(response.id)
    (item,) = [item.model_dump(exclude_none=True) for item in page.data]
    assert item["content"] == parts[0]["content"]


# Reasoning


@streamed_or_not
async def test_reasoning_is_an_item_and_can_be_sent_back(server: Server, upstream: Upstream, stream: bool) -> None:
    upstream.script = lambda _: thinks("Four.", "two and two")
    if stream:
        async with server.openai.responses.stream(
            model="m", input="2+2?", include=["reasoning.encrypted_content"]
        ) as s:
            events = await collect(s)
            first: Response = await s.get_final_response()
        thought = "".join(event.delta for event in events if event.type == "response.reasoning_text.delta")
        assert thought == "two and two"
    else:
        first = await server.openai.responses.create(model="m", input="2+2?", reasoning={"effort": "low"})
        assert upstream.requests[0]["reasoning_effort"] == "low"
    reasoning, message = first.output
    assert reasoning.type == "reasoning"
    assert reasoning.content is not None
    assert reasoning.content[0].text == "two and two"
    assert isinstance(message, ResponseOutputMessage)
    said: list[Any] = [{"role": "user", "content": "2+2?"}, *first.output, {"role": "user", "content": "And 3+3?"}]
    again = await server.openai.responses.create(model="m", input=said, store=False)
    assert again.output_text == "Four."
    texts = [message["content"] for message in upstream.messages[-1]]
    assert texts == ["2+2?", "Four.", "And 3+3?"]


# Limits and endings


@streamed_or_not
async def test_an_answer_cut_by_its_token_limit_is_incomplete(server: Server, upstream: Upstream, stream: bool) -> None:
    upstream.script = lambda _: says("Once upon", finish_reason="length")
    answer: Any = await server.openai.responses.create(model="m", input="Tell", max_output_tokens=16, stream=stream)
    if stream:
        last = (await collect(answer))[-1]
        assert last.type == "response.incomplete"
        answer = last.response
    assert answer.status == "incomplete"
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.output_text == "Once upon"
    assert answer.max_output_tokens == 16
    sent = upstream.requests[0]
    assert 16 in (sent.get("max_tokens"), sent.get("max_completion_tokens"))


async def test_the_response_object_has_every_key_of_the_sdks_own(server: Server) -> None:
    raw = await server.openai.responses.with_raw_response.create(model="m", input="hello", metadata={"topic": "demo"})
    body = raw.http_response.json()
    for key in (
        *("id", "object", "created_at", "completed_at", "status", "background", "error", "incomplete_details"),
        *("instructions", "max_output_tokens", "max_tool_calls", "model", "output", "parallel_tool_calls"),
        *("previous_response_id", "conversation", "reasoning", "service_tier", "store", "temperature", "text"),
        *("tool_choice", "tools", "top_logprobs", "top_p", "truncation", "usage", "metadata", "prompt_cache_key"),
        *("safety_identifier", "presence_penalty", "frequency_penalty"),
    ):
        assert key in body, key
    assert body["metadata"] == {"topic": "demo"}
    assert body["completed_at"] >= body["created_at"]
    assert isinstance(body["service_tier"], str)
    assert body["text"]["format"] == {"type": "text"}
    assert body["usage"]["input_tokens_details"]["cached_tokens"] == 0
    assert body["usage"]["output_tokens_details"]["reasoning_tokens"] == 0
    assert (await server.openai.responses.retrieve(body["id"])).model_dump(mode="json") == raw.parse().model_dump(
        mode="json"
    )


async def test_every_answer_and_every_error_has_a_request_id(server: Server) -> None:
    raw = await server.openai.responses.with_raw_response.create(model="m", input="hello")
    assert raw.headers["x-request-id"] == raw.parse()._request_id
    async with server.openai.responses.with_streaming_response.create(model="m", input="hello") as streaming:
        assert streaming.headers["x-request-id"]
        assert (await streaming.parse()).output_text
    error = await refused(server.openai.responses.retrieve("resp_none"), 404)
    assert isinstance(error, openai.NotFoundError)


# What is kept


async def test_input_items_page_by_themselves_over_a_chain(server: Server) -> None:
    previous: dict[str, Any] = {}
    texts: list[str] = []
    for number in range(13):
        response: Response = await server.openai.responses.create(model="m", input=f"q{number}", **previous)
        previous = {"previous_response_id": response.id}
        texts += [f"q{number}", response.output_text]
    newest = previous["previous_response_id"]
    pages = server.openai.responses.input_items.list(newest, limit=10, order="asc")
    items = await collect(pages)
    assert [text_of(item) for item in items] == texts[:-1]
    newest_first = await collect(server.openai.responses.input_items.list(newest))
    assert [item.id for item in newest_first] == [item.id for item in reversed(items)]
    assert len({item.id for item in items}) == 25
    page = await server.openai.responses.input_items.list(newest)
    assert len(page.data) == 20
    assert page.has_more
    behind = await server.openai.responses.input_items.list(newest, order="asc", after=items[22].id or "")
    assert [item.id for item in behind.data] == [items[23].id, items[24].id]
    assert not behind.has_more


@pytest.mark.parametrize(
    ("query", "param"),
    [({"limit": 0}, "limit"), ({"limit": 101}, "limit"), ({"order": "up"}, "order"), ({"after": "msg_none"}, "after")],
)
async def test_a_page_of_input_items_that_can_not_be_is_refused(server: Server, query: Any, param: str) -> None:
    response = await server.openai.responses.create(model="m", input="hello")
    await refused(server.openai.responses.input_items.list(response.id, **query), 400, param)


async def test_a_deleted_response_is_gone_for_every_method(server: Server) -> None:
    responses = server.openai.responses
    first = await responses.create(model="m", input="one")
    await responses.delete(first.id)
    for attempt in (
        responses.retrieve(first.id),
        responses.delete(first.id),
        responses.cancel(first.id),
        responses.input_items.list(first.id),
    ):
        await refused(attempt, 404)
    await refused(
        responses.create(model="m", input="x", previous_response_id=first.id),
        404,
        "previous_response_id",
        "previous_response_not_found",
    )


async def test_instructions_count_for_their_own_turn_only(server: Server, upstream: Upstream) -> None:
    first = await server.openai.responses.create(model="m", input="one", instructions="Be brief.")
    second = await server.openai.responses.create(model="m", input="two", previous_response_id=first.id)
    assert first.instructions == "Be brief."
    assert second.instructions is None
    assert [message["role"] for message in upstream.messages[1]] == ["user", "assistant", "user"]


async def test_tokens_are_counted_without_asking_the_model(server: Server, upstream: Upstream) -> None:
    few = await server.openai.responses.input_tokens.count(model="m", input="hello")
    many = await server.openai.responses.input_tokens.count(model="m", input="hello " * 400, instructions="Be brief.")
    assert few.object == "response.input_tokens"
    assert 0 < few.input_tokens < many.input_tokens
    assert not upstream.requests


async def test_a_compacted_history_stands_for_what_was_said(server: Server, upstream: Upstream) -> None:
    said: list[Any] = [{"role": "user", "content": "My name is Ada."}, {"role": "assistant", "content": "Hello Ada."}]
    upstream.script = lambda _: says("The user is Ada.")
    compacted = await server.openai.responses.compact(model="m", input=said)
    assert compacted.object == "response.compaction"
    assert "compaction" in [item.type for item in compacted.output]
    asked = len(upstream.requests)
    # As openai-agents does it: the SDK has no type for a user's message in an output, and warns.
    carried: list[Any] = [item.model_dump(exclude_unset=True, warnings=False) for item in compacted.output]
    carried.append({"role": "user", "content": "Who am I?"})
    answer = await server.openai.responses.create(model="m", input=carried, store=False)
    assert answer.status == "completed"
    assert "Ada" in str(upstream.messages[asked])
    assert upstream.messages[asked][-1] == {"role": "user", "content": "Who am I?"}


# In the background


async def test_a_background_response_is_polled_to_its_end(server: Server, upstream: Upstream) -> None:
    upstream.gate.clear()
    response = await server.openai.responses.create(model="m", input="hello", background=True)
    assert response.status in ("queued", "in_progress")
    assert response.background is True
    assert response.completed_at is None
    await upstream.wait_for_requests(1)
    upstream.gate.set()
    done = await ended(server, response)
    assert (done.status, done.output_text) == ("completed", "1: hello")
    assert done.background is True
    assert await server.openai.responses.cancel(done.id) == done


async def test_a_background_response_is_cancelled_once_and_stays_so(server: Server, upstream: Upstream) -> None:
    upstream.gate.clear()
    response = await server.openai.responses.create(model="m", input="hello", background=True)
    await refused(server.openai.responses.delete(response.id), 400)
    cancelled = await server.openai.responses.cancel(response.id)
    assert (cancelled.status, cancelled.completed_at) == ("cancelled", None)
    assert (await server.openai.responses.cancel(response.id)).status == "cancelled"
    upstream.gate.set()
    assert (await server.openai.responses.retrieve(response.id)).status == "cancelled"
    await server.openai.responses.delete(response.id)
    await refused(server.openai.responses.retrieve(response.id), 404)


async def test_a_synchronous_response_can_not_be_cancelled(server: Server) -> None:
    response = await server.openai.responses.create(model="m", input="hello")
    error = await refused(server.openai.responses.cancel(response.id), 400)
    assert "Cannot cancel a synchronous response" in error.message


async def test_a_background_response_must_be_stored(server: Server, upstream: Upstream) -> None:
    await refused(
        server.openai.responses.create(model="m", input="hello", background=True, store=False), 400, "background"
    )
    assert not upstream.requests


async def test_a_background_stream_that_broke_is_taken_up_where_it_broke(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: says("one two three four")
    upstream.stream_gate_after = 3
    upstream.gate.clear()
    stream = await server.openai.responses.create(model="m", input="count", background=True, stream=True)
    seen = []
    async for event in stream:
        seen.append(event)
        if event.type == "response.output_text.delta":
            break
    await stream.close()
    created = seen[0]
    assert created.type == "response.created"
    upstream.gate.set()
    rest = await collect(
        await server.openai.responses.retrieve(
            created.response.id, stream=True, starting_after=seen[-1].sequence_number
        )
    )
    numbers = [event.sequence_number for event in (*seen, *rest)]
    assert numbers == list(range(len(numbers)))
    text = "".join(event.delta for event in (*seen, *rest) if event.type == "response.output_text.delta")
    assert text == "one two three four"
    assert rest[-1].type == "response.completed"
    assert rest[-1].response.output_text == text
    whole = await collect(await server.openai.responses.retrieve(created.response.id, stream=True))
    assert whole == [*seen, *rest]


async def test_the_stream_helper_follows_a_background_response_by_its_id(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: says("one two three four")
    async with server.openai.responses.stream(model="m", input="count", background=True) as stream:
        live = await collect(stream)
    (created,) = [event for event in live if event.type == "response.created"]
    async with server.openai.responses.stream(response_id=created.response.id, starting_after=4) as stream:
        replayed = await collect(stream)
        final = await stream.get_final_response()
    assert [event.sequence_number for event in replayed] == list(range(5, len(live)))
    assert [event.type for event in replayed] == [event.type for event in live[5:]]
    assert final.output_text == "one two three four"


async def test_a_stream_is_refused_of_a_response_that_was_none(server: Server) -> None:
    response = await server.openai.responses.create(model="m", input="hello")
    await refused(server.openai.responses.retrieve(response.id, stream=True), 400, "stream")


async def test_a_background_response_that_fails_says_why(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: Reply(status=400, body={"error": {"message": "no such thing", "type": "x"}})
    response = await server.openai.responses.create(model="m", input="hello", background=True)
    failed = await ended(server, response)
    assert failed.status == "failed"
    assert failed.error is not None
    assert failed.error.message


# Errors of the model server, as programs tell them apart


@streamed_or_not
@pytest.mark.parametrize(
    ("status", "expected"),
    [(429, openai.RateLimitError), (500, openai.InternalServerError), (400, openai.BadRequestError)],
)
async def test_a_model_servers_refusal_is_the_sdks_own_error(
    server: Server, upstream: Upstream, status: int, expected: type[Exception], stream: bool
) -> None:
    upstream.script = lambda _: Reply(
        status=status,
        body={"error": {"message": "because", "type": "x", "param": None, "code": "some_code"}},
        headers={"retry-after": "7"},
    )
    with pytest.raises(expected) as caught:
        await server.openai.responses.create(model="m", input="hello", stream=stream)
    assert isinstance(caught.value, openai.APIStatusError)
    assert caught.value.status_code == (502 if status == 500 else status)
    assert "because" in caught.value.message
    if status == 429:
        assert caught.value.response.headers["retry-after"] == "7"


async def test_a_model_that_the_upstream_does_not_know_is_404(server: Server, upstream: Upstream) -> None:
    error = {"message": "The model `none` does not exist", "type": "x", "param": "model", "code": "model_not_found"}
    upstream.script = lambda _: Reply(status=404, body={"error": error})
    await refused(server.openai.responses.create(model="none", input="hello"), 404, "model", "model_not_found")


async def test_a_wrong_key_is_an_authentication_error(server: Server) -> None:
    wrong = server.openai.with_options(api_key="wrong")
    assert isinstance(await refused(wrong.responses.create(model="m", input="x"), 401), openai.AuthenticationError)


# The WebSocket


async def test_turns_over_a_websocket_continue_one_another(server: Server, upstream: Upstream) -> None:
    async with server.openai.responses.connect() as connection:
        finals: list[Response] = []
        for text in ("one", "two"):
            more: Any = {"previous_response_id": finals[-1].id} if finals else {}
            await connection.response.create(model="m", input=text, **more)
            async for event in connection:
                if event.type in TERMINAL:
                    finals.append(event.response)  # type: ignore[union-attr]
                    break
    assert [final.output_text for final in finals] == ["1: one", "3: two"]
    assert (await server.openai.responses.retrieve(finals[-1].id)).output_text == "3: two"
    assert [message["content"] for message in upstream.messages[1]] == ["one", "1: one", "two"]


# Without asyncio


async def test_a_program_with_the_synchronous_client(server: Server, upstream: Upstream) -> None:
    upstream.script = weather_then("Sunny in Rome.")

    def program(client: OpenAI) -> tuple[str, list[str], int]:
        with client.responses.stream(model="m", input="Weather?", tools=[WEATHER]) as stream:
            first = stream.get_final_response()
        answer = client.responses.create(
            model="m",
            previous_response_id=first.id,
            input=[output_of(the_call(first))],
        )
        types = [str(item.type) for item in client.responses.input_items.list(answer.id, order="asc", limit=1)]
        client.responses.delete(answer.id)
        with pytest.raises(openai.NotFoundError) as gone:
            client.responses.retrieve(answer.id)
        return answer.output_text, types, gone.value.status_code

    text, types, status = await in_thread(server, program)
    assert text == "Sunny in Rome."
    assert types == ["message", "function_call", "function_call_output"]
    assert status == 404
