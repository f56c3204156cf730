"""Programs written with `openai-agents`: turnlog as the model server, and as the keeper of sessions."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import agents
import openai
import pytest
from agents import Agent, Model, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, SQLiteSession, function_tool
from agents.memory import OpenAIConversationsSession, OpenAIResponsesCompactionSession
from agents.models.openai_responses import OpenAIResponsesWSModel
from pydantic import BaseModel

from tests.support.programs import asks_weather, in_order, refused, thinks, weather_then
from tests.support.server import Server, serving
from tests.support.upstream import Reply, Upstream, calls, refuses, says

MODELS: dict[str, type[Any]] = {"responses": OpenAIResponsesModel, "chat": OpenAIChatCompletionsModel}
both_models = pytest.mark.parametrize("api", MODELS)


@pytest.fixture(autouse=True)
def _nothing_leaves_the_machine() -> Iterator[None]:
    agents.set_tracing_disabled(True)
    yield
    agents.set_tracing_disabled(False)


@function_tool
def weather(city: str) -> str:
    """Tells the weather of a city."""
    return f"sunny in {city}"


class City(BaseModel):
    """What structured output is parsed into."""

    name: str


def model_of(server: Server, api: str = "responses", name: str = "m") -> Model:
    model: Model = MODELS[api](model=name, openai_client=server.openai)
    return model


def agent_of(server: Server, api: str = "responses", **more: Any) -> Agent[Any]:
    return Agent(name="helper", instructions="Be brief.", model=model_of(server, api), **more)


def user(text: str) -> Any:
    return {"role": "user", "content": text}


def roles(messages: Sequence[dict[str, Any]]) -> list[str]:
    """Who spoke, but for the instructions."""
    return [message["role"] for message in messages if message["role"] not in ("system", "developer")]


def heard(messages: Sequence[dict[str, Any]]) -> list[Any]:
    """What was said, but for the instructions."""
    return [message["content"] for message in messages if message["role"] not in ("system", "developer")]


# A run


@both_models
async def test_a_run_calls_its_tools_and_ends_with_the_answer(server: Server, upstream: Upstream, api: str) -> None:
    upstream.script = weather_then("It is sunny.")
    result = await Runner.run(agent_of(server, api, tools=[weather]), "Weather in Rome?")
    assert result.final_output == "It is sunny."
    assert roles(upstream.messages[1]) == ["user", "assistant", "tool"]
    assert upstream.messages[1][-1]["content"] == "sunny in Rome"
    assert upstream.messages[1][0] == {"role": "system", "content": "Be brief."}
    assert upstream.requests[0]["tools"][0]["function"]["name"] == "weather"
    assert result.context_wrapper.usage.requests == 2
    assert result.context_wrapper.usage.total_tokens == 36


@both_models
async def test_a_streamed_run_tells_the_text_as_it_comes(server: Server, upstream: Upstream, api: str) -> None:
    upstream.script = weather_then("It is sunny in Rome.")
    result = Runner.run_streamed(agent_of(server, api, tools=[weather]), "Weather in Rome?")
    pieces, items = [], []
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            pieces.append(event.data.delta)
        if event.type == "run_item_stream_event":
            items.append(event.name)
    assert "".join(pieces) == result.final_output == "It is sunny in Rome."
    assert len(pieces) > 1
    assert items == ["tool_called", "tool_output", "message_output_created"]


@both_models
async def test_a_handoff_goes_on_with_the_other_agent(server: Server, upstream: Upstream, api: str) -> None:
    upstream.script = in_order(calls("transfer_to_spanish", "{}"), says("Hola."))
    spanish = Agent(name="spanish", instructions="Speak Spanish.", model=model_of(server, api))
    result = await Runner.run(agent_of(server, api, handoffs=[spanish]), "Hello in Spanish?")
    assert (result.last_agent.name, result.final_output) == ("spanish", "Hola.")
    assert upstream.messages[1][0]["content"] == "Speak Spanish."


@both_models
async def test_an_agents_output_type_is_the_models_schema(server: Server, upstream: Upstream, api: str) -> None:
    upstream.script = lambda _: says('{"name":"Rome"}')
    result = await Runner.run(agent_of(server, api, output_type=City), "Which?")
    assert result.final_output == City(name="Rome")
    assert upstream.requests[0]["response_format"]["type"] == "json_schema"


@both_models
async def test_the_next_turn_takes_the_result_as_its_input(server: Server, upstream: Upstream, api: str) -> None:
    upstream.script = weather_then("It is sunny.")
    agent = agent_of(server, api, tools=[weather])
    first = await Runner.run(agent, "Weather in Rome?")
    upstream.script = lambda _: says("You are welcome.")
    last = await Runner.run(agent, [*first.to_input_list(), user("Thanks.")])
    assert last.final_output == "You are welcome."
    assert roles(upstream.messages[-1]) == ["user", "assistant", "tool", "assistant", "user"]


async def test_reasoning_goes_round_with_the_tool_calls(server: Server, upstream: Upstream) -> None:
    asking = asks_weather()
    asking.message["reasoning_content"] = "I must ask"
    upstream.script = in_order(asking, thinks("It is sunny.", "the tool says so"))
    result = await Runner.run(agent_of(server, tools=[weather]), "Weather in Rome?")
    assert result.final_output == "It is sunny."
    kinds = [item.type for item in result.new_items]
    assert kinds == [
        *("reasoning_item", "tool_call_item", "tool_call_output_item", "reasoning_item", "message_output_item")
    ]


@both_models
async def test_a_refusal_of_the_model_server_ends_the_run_with_the_sdks_error(
    server: Server, upstream: Upstream, api: str
) -> None:
    upstream.script = lambda _: refuses(429, "slow down")
    with pytest.raises(openai.RateLimitError):
        await Runner.run(agent_of(server, api), "Hello")


async def test_a_run_over_the_websocket(server: Server, upstream: Upstream) -> None:
    upstream.script = weather_then("It is sunny.")
    model = OpenAIResponsesWSModel(model="m", openai_client=server.openai)
    agent = Agent[Any](name="helper", instructions="Be brief.", model=model, tools=[weather])
    try:
        result = Runner.run_streamed(agent, "Weather in Rome?")
        async for _ in result.stream_events():
            pass
        assert result.final_output == "It is sunny."
        assert roles(upstream.messages[1]) == ["user", "assistant", "tool"]
    finally:
        await model.close()


# The server keeps the conversation


async def test_a_run_continues_from_a_response(server: Server, upstream: Upstream) -> None:
    upstream.script = weather_then("It is sunny.")
    agent = agent_of(server, tools=[weather])
    first = await Runner.run(agent, "Weather in Rome?", auto_previous_response_id=True)
    assert roles(upstream.messages[1]) == ["user", "assistant", "tool"]
    upstream.script = lambda _: says("You are welcome.")
    last = await Runner.run(agent, "Thanks.", previous_response_id=first.last_response_id)
    assert last.final_output == "You are welcome."
    assert roles(upstream.messages[-1]) == ["user", "assistant", "tool", "assistant", "user"]


async def test_a_run_continues_a_conversation(server: Server, upstream: Upstream) -> None:
    upstream.script = weather_then("It is sunny.")
    agent = agent_of(server, tools=[weather])
    conversation = (await server.openai.conversations.create()).id
    await Runner.run(agent, "Weather in Rome?", conversation_id=conversation)
    upstream.script = lambda _: says("You are welcome.")
    last = await Runner.run(agent, "Thanks.", conversation_id=conversation)
    assert last.final_output == "You are welcome."
    assert roles(upstream.messages[-1]) == ["user", "assistant", "tool", "assistant", "user"]


# Sessions


async def test_a_conversations_session_adds_gets_pops_and_clears(server: Server) -> None:
    session = OpenAIConversationsSession(openai_client=server.openai)
    assert await session.get_items() == []
    assert session.session_id.startswith("conv_")
    assert await session.pop_item() is None
    await session.add_items([user(f"m{number}") for number in range(45)])
    said = [item["content"][0]["text"] for item in await session.get_items()]  # type: ignore[index, typeddict-item]
    assert said == [f"m{number}" for number in range(45)]
    newest: Any = await session.get_items(limit=3)
    assert [item["content"][0]["text"] for item in newest] == ["m42", "m43", "m44"]
    popped: Any = await session.pop_item()
    assert popped["content"][0]["text"] == "m44"
    assert len(await session.get_items()) == 44
    conversation = session.session_id
    await session.clear_session()
    await refused(server.openai.conversations.retrieve(conversation), 404)
    assert await session.get_items() == []
    assert session.session_id != conversation


async def test_a_conversations_session_carries_an_agent_over_a_restart(data: Path, upstream: Upstream) -> None:
    upstream.script = weather_then("It is sunny.")
    async with serving(data, upstream=upstream.url) as server:
        session = OpenAIConversationsSession(openai_client=server.openai)
        await Runner.run(agent_of(server, tools=[weather]), "Weather in Rome?", session=session)
        conversation = session.session_id
    async with serving(data, upstream=upstream.url) as server:
        session = OpenAIConversationsSession(conversation_id=conversation, openai_client=server.openai)
        kinds = [item.get("type") for item in await session.get_items()]
        assert kinds == ["message", "function_call", "function_call_output", "message"]
        upstream.script = lambda _: says("You are welcome.")
        result = await Runner.run(agent_of(server, tools=[weather]), "Thanks.", session=session)
        assert result.final_output == "You are welcome."
        assert roles(upstream.messages[-1]) == ["user", "assistant", "tool", "assistant", "user"]
        assert upstream.messages[-1][-1]["content"] == "Thanks."
        assert len(await session.get_items()) == 6


async def test_a_conversations_session_keeps_reasoning_that_can_be_sent_again(
    server: Server, upstream: Upstream
) -> None:
    upstream.script = lambda _: thinks("Four.", "two and two")
    session = OpenAIConversationsSession(openai_client=server.openai)
    for question in ("2+2?", "And again?"):
        result = await Runner.run(agent_of(server), question, session=session)
        assert result.final_output == "Four."
    assert heard(upstream.messages[-1]) == ["2+2?", "Four.", "And again?"]
    kinds = [item.get("type") for item in await session.get_items()]
    assert kinds == ["message", "reasoning", "message"] * 2


@both_models
async def test_a_session_of_the_clients_own_uses_turnlog_as_the_model_only(
    server: Server, upstream: Upstream, api: str
) -> None:
    session = SQLiteSession("s1")
    upstream.script = weather_then("It is sunny.")
    await Runner.run(agent_of(server, api, tools=[weather]), "Weather in Rome?", session=session)
    upstream.script = lambda _: says("You are welcome.")
    result = await Runner.run(agent_of(server, api, tools=[weather]), "Thanks.", session=session)
    assert result.final_output == "You are welcome."
    assert roles(upstream.messages[-1]) == ["user", "assistant", "tool", "assistant", "user"]
    session.close()


@pytest.mark.parametrize("mode", ["previous_response_id", "input"])
async def test_a_compaction_session_is_compacted_and_goes_on(server: Server, upstream: Upstream, mode: Any) -> None:
    def script(body: dict[str, Any]) -> Reply:
        last = body["messages"][-1]["content"]
        return says("You are Ada." if last == "Who am I?" else "The user is called Ada.")

    upstream.script = script
    underlying = SQLiteSession("s1")
    session = OpenAIResponsesCompactionSession(
        "s1",
        underlying,
        client=server.openai,
        model="gpt-4.1",
        compaction_mode=mode,
        should_trigger_compaction=lambda context: len(context["session_items"]) >= 4,
    )
    agent = agent_of(server)
    await Runner.run(agent, "My name is Ada.", session=session)
    assert len(await session.get_items()) == 2
    await Runner.run(agent, "I like boats.", session=session)
    kept = await session.get_items()
    assert "compaction" in [item.get("type") for item in kept]
    result = await Runner.run(agent, "Who am I?", session=session)
    assert result.final_output == "You are Ada."
    (last,) = [heard(messages) for messages in upstream.messages if messages[-1]["content"] == "Who am I?"]
    assert "The user is called Ada." in str(last[:-1])
    underlying.close()
