"""Clients that know nothing of sessions: they name none and resend all they have, and are known by that.

Over HTTP, against a scripted model server: what the model was sent decides.
"""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI

from api import keys
from api.context import LINEAGES
from api.turns import histories
from eventstore.events import CompressionRotated, SessionDeleted, SessionStarted, TurnStarted, lineage_stream
from eventstore.log import Recorded
from eventstore.sqlite import SqliteLog
from tests.support.server import Server, serving
from tests.support.upstream import Message, Reply, Upstream, calls, says, scripted_upstream

TURNS = 100
both_ways = pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])


def answering() -> Any:
    """A model that never says the same thing twice."""
    numbers = itertools.count(1)

    def answer(body: dict[str, Any]) -> Reply:
        return says(f"answer {next(numbers)} to {body['messages'][-1]['content']}")

    return answer


def said(text: str) -> Message:
    return {"role": "user", "content": text}


class Client:
    """A chat UI: keeps the messages, sends all of them each time, and reads no header but for the tests' sake."""

    def __init__(self, server: Server, openai_client: AsyncOpenAI | None = None, **options: Any) -> None:
        self.server = server
        self.messages: list[Message] = []
        self.session_id = ""
        self._openai = openai_client or server.openai
        self._options = options

    async def say(self, text: str, *, stream: bool = False) -> None:
        self.messages.append(said(text))
        await self.send(stream=stream)

    async def send(self, *, stream: bool = False) -> None:
        create: Any = self._openai.chat.completions.with_raw_response.create
        raw = await create(model="m", messages=self.messages, stream=stream, **self._options)
        self.session_id = raw.headers["X-Hermes-Session-Id"]
        if not stream:
            message = raw.parse().choices[0].message.model_dump()
            self.messages.append(message | {"name": None})  # with all the fields that an SDK adds
            return
        text = ""
        async for chunk in raw.parse():
            text += chunk.choices[0].delta.content or "" if chunk.choices else ""
        self.messages.append({"role": "assistant", "content": text})


async def recorded(data: Path) -> list[Recorded]:
    log = await SqliteLog.open_read_only(data)
    try:
        return [event async for batch in log.read_all() for event in batch]
    finally:
        await log.close()


def sent(upstream: Upstream) -> list[Any]:
    return [(message["role"], message.get("content")) for message in upstream.messages[-1]]


def plain(messages: list[Message]) -> list[Any]:
    return [(message["role"], message.get("content")) for message in messages]


@both_ways
async def test_a_hundred_turns_are_a_hundred_turns_in_one_session(data: Path, upstream: Upstream, stream: bool) -> None:
    upstream.script = answering()
    async with serving(data, upstream=upstream.url) as server:
        client = Client(server)
        sessions = set()
        for number in range(TURNS):
            await client.say(f"question {number:03d}", stream=stream)
            assert sent(upstream) == plain(client.messages[:-1])
            sessions.add(client.session_id)
        assert len(sessions) == 1
        assert len(await server.messages(client.session_id)) == 2 * TURNS
        assert len((await server.get("/api/sessions"))["data"]) == 1
        events = [event.event for event in await recorded(data)]
        assert [len(event.items) for event in events if isinstance(event, TurnStarted)] == [1] * TURNS
        sizes = [len(msgspec.msgpack.encode(event)) for event in events[-2 * TURNS :]]
        assert max(sizes[-2:]) < max(sizes[2:4]) + 40, "the log grows by what is new only"


@both_ways
async def test_a_restart_between_turns_is_not_noticed(data: Path, upstream: Upstream, stream: bool) -> None:
    upstream.script = answering()
    messages: list[Message] = []
    sessions = set()
    for number in range(4):
        if number == 2:
            (data / "views.db").unlink()
        async with serving(data, upstream=upstream.url) as server:
            client = Client(server)
            client.messages = messages
            await client.say(f"question {number}", stream=stream)
            assert sent(upstream) == plain(messages[:-1])
            sessions.add(client.session_id)
    assert len(sessions) == 1


@both_ways
async def test_tool_calls_and_their_outputs_are_part_of_it(server: Server, upstream: Upstream, stream: bool) -> None:
    client = Client(server)
    upstream.script = lambda _: calls("f", '{"city": "Oslo"}')
    client.messages.append(said("weather?"))
    if stream:
        async with server.openai.chat.completions.stream(model="m", messages=client.messages) as chunks:  # type: ignore[arg-type]
            message = (await chunks.get_final_completion()).choices[0].message
        call = message.tool_calls[0] if message.tool_calls else None
        assert call
        again = {"id": call.id, "type": "function", "function": {"name": "f", "arguments": call.function.arguments}}
        client.messages.append({"role": "assistant", "tool_calls": [again]})
    else:
        await client.send()
    first = (await server.get("/api/sessions"))["data"][0]["id"]
    client.messages[-1]["tool_calls"][0]["function"]["arguments"] = '{"city":"Oslo"}'
    client.messages.append({"role": "tool", "tool_call_id": "call_1", "content": "rain"})
    upstream.script = answering()
    await client.send(stream=stream)
    assert client.session_id == first
    assert [message["role"] for message in upstream.messages[-1]] == ["user", "assistant", "tool"]
    await client.say("and tomorrow?", stream=stream)
    assert client.session_id == first
    assert [message["role"] for message in upstream.messages[-1]] == ["user", "assistant", "tool", "assistant", "user"]


@both_ways
async def test_responses_with_all_items_in_the_input_continue_too(
    server: Server, upstream: Upstream, stream: bool
) -> None:
    replies = iter([calls("f", "{}"), says("rain"), says("sun")])
    upstream.script = lambda _: next(replies)
    items: list[Any] = [said("weather?")]
    sessions = set()
    for new in ({"type": "function_call_output", "call_id": "call_1", "output": "7"}, said("and now?"), None):
        raw: Any = await server.openai.responses.with_raw_response.create(model="m", input=items, stream=stream)
        sessions.add(raw.headers["X-Hermes-Session-Id"])
        response = [event async for event in raw.parse()][-1].response if stream else raw.parse()
        items += [item.model_dump(exclude_none=True) for item in response.output]
        items += [new] if new else []
    assert len(sessions) == 1
    roles = [message["role"] for message in upstream.messages[-1]]
    assert roles == ["user", "assistant", "tool", "assistant", "user"]
    assert len(await server.messages(sessions.pop())) == 6


async def test_a_responses_client_that_sends_its_past_as_conversation_history_continues(
    server: Server, upstream: Upstream
) -> None:
    async def ask(**body: Any) -> tuple[str, str]:
        async with server.http.post("/v1/responses", json={"model": "m"} | body) as response:
            answer = await response.json()
            assert response.status == 200, answer
            return response.headers["X-Hermes-Session-Id"], answer["output"][0]["content"][0]["text"]

    first, answer = await ask(input="one")
    history = [said("one"), {"role": "assistant", "content": answer}]
    second, _ = await ask(input="two", conversation_history=history)
    assert first == second
    assert sent(upstream) == [*plain(history), ("user", "two")]


async def test_responses_instructions_may_change_and_system_items_of_the_input_are_part_of_it(
    server: Server, upstream: Upstream
) -> None:
    async def ask(instructions: str, *texts: tuple[str, str]) -> str:
        items = [{"role": role, "content": text} for role, text in texts]
        body = {"model": "m", "instructions": instructions, "input": items}
        async with server.http.post("/v1/responses", json=body) as response:
            assert response.status == 200, await response.text()
            assert sent(upstream) == [("system", instructions), *texts]
            return response.headers["X-Hermes-Session-Id"]

    upstream.script = lambda _: says("hi")
    first = await ask("Monday", ("system", "be brief"), ("user", "one"))
    again = [("user", "one"), ("assistant", "hi"), ("user", "two")]
    assert await ask("Tuesday", ("system", "be brief"), *again) == first
    assert await ask("Tuesday", ("system", "be long"), *again) != first


async def test_a_regenerated_answer_is_a_fork_and_both_branches_go_on(server: Server, upstream: Upstream) -> None:
    upstream.script = answering()
    client = Client(server)
    await client.say("one")
    await client.say("two")
    main, left = client.session_id, list(client.messages)
    client.messages = client.messages[:-1]
    await client.send()
    fork = client.session_id
    assert fork != main
    assert sent(upstream) == plain(client.messages[:-1])
    await client.say("three")
    assert client.session_id == fork
    client.messages = left
    await client.say("three")
    assert client.session_id == main
    assert sent(upstream) == plain(client.messages[:-1])
    for session_id in (main, fork):
        contents = [message["content"] for message in await server.messages(session_id)]
        assert len(contents) == len(set(contents)) == 6


async def test_an_edited_question_is_a_fork_and_an_edited_answer_a_session_of_its_own(
    data: Path, upstream: Upstream
) -> None:
    upstream.script = answering()
    async with serving(data, upstream=upstream.url) as server:
        client = Client(server)
        await client.say("one")
        await client.say("two")
        main = client.session_id
        client.messages = client.messages[:2]
        await client.say("two, said better")
        fork = client.session_id
        assert sent(upstream) == plain(client.messages[:-1])
        client.messages[1] = {"role": "assistant", "content": "what it should have said"}
        await client.say("three")
        other = client.session_id
        assert sent(upstream) == plain(client.messages[:-1])
        await client.say("four")
        assert client.session_id == other
        assert len({main, fork, other}) == 3
        starts = {e.event.session_id: e.event for e in await recorded(data) if isinstance(e.event, SessionStarted)}
        assert starts[fork].forked_from is not None
        assert starts[other].forked_from is None


async def test_what_was_said_elsewhere_is_taken_in_once_and_known_from_then_on(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        client = Client(server)
        client.messages = [said("one"), {"role": "assistant", "content": "elsewhere"}]
        await client.say("two")
        first = client.session_id
        await client.say("three")
        assert client.session_id == first
        assert sent(upstream) == plain(client.messages[:-1])
        started = [event.event for event in await recorded(data) if isinstance(event.event, TurnStarted)]
        assert [len(event.items) for event in started] == [3, 1]


async def test_a_turn_that_failed_is_not_part_of_it(server: Server, upstream: Upstream) -> None:
    client = Client(server)
    await client.say("one")
    first = client.session_id
    upstream.script = lambda _: Reply(status=500, body={})
    with pytest.raises(openai.APIStatusError):
        await client.say("two")
    upstream.script = answering()
    await client.send()
    assert client.session_id == first
    assert sent(upstream) == plain(client.messages[:-1])


async def test_instructions_may_change_from_turn_to_turn(server: Server, upstream: Upstream) -> None:
    client = Client(server)
    await client.say("one")
    first = client.session_id
    client.messages.insert(0, {"role": "system", "content": "It is Monday."})
    await client.say("two")
    assert client.session_id == first
    assert sent(upstream) == plain(client.messages[:-1])


async def test_a_body_that_ends_with_an_answer_is_passed_on_as_it_is(server: Server, upstream: Upstream) -> None:
    client = Client(server)
    await client.say("one")
    first = client.session_id
    await client.send()
    assert client.session_id != first
    assert sent(upstream) == plain(client.messages[:-1])


async def test_an_input_that_ends_with_an_answer_is_passed_on_as_it_is(server: Server, upstream: Upstream) -> None:
    first = await server.openai.responses.create(model="m", input="one")
    items: Any = [said("one"), {"role": "assistant", "content": first.output_text}]
    await server.openai.responses.create(model="m", input=items)
    assert sent(upstream) == plain(items)
    assert len((await server.get("/api/sessions"))["data"]) == 2


async def test_it_works_where_no_key_is_asked_for(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url, auth=False, api_key="") as server:
        client = Client(server)
        await client.say("one")
        first = client.session_id
        await client.say("two")
        assert client.session_id == first


async def test_it_can_be_turned_off(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url, match_history=False) as server:
        client = Client(server)
        await client.say("one")
        first = client.session_id
        await client.say("two")
        assert client.session_id != first
        assert sent(upstream) == plain(client.messages[:-1])
    async with serving(data, upstream=upstream.url) as server:
        again = Client(server)
        again.messages = client.messages
        await again.say("three")
        assert again.session_id == client.session_id, "what was recorded meanwhile is known"


async def test_equal_texts_of_two_tenants_users_or_keys_never_meet(data: Path, upstream: Upstream) -> None:
    data.mkdir()
    secrets = [keys.add(data, name, name) for name in ("acme", "bravo")]
    who: list[dict[str, Any]] = [
        {},
        {"user": "ada"},
        {"user": "bob"},
        {"extra_headers": {"X-Hermes-Session-Key": "k"}},
        {"user": "ada", "extra_headers": {"X-Hermes-Session-Key": "k"}},
        {"extra_headers": {"X-Hermes-Session-Key": "ada"}},
    ]
    async with serving(data, upstream=upstream.url) as server, contextlib.AsyncExitStack() as clients:
        openais = [
            await clients.enter_async_context(AsyncOpenAI(base_url=f"{server.url}/v1", api_key=secret, max_retries=0))
            for secret in secrets
        ]
        everyone = [Client(server, openai_client, **options) for openai_client in openais for options in who]
        first: list[str] = []
        for text in ("hello", "how are you?", "thanks"):
            for client in everyone:
                await client.say(text)
            first = first or [client.session_id for client in everyone]
            assert [client.session_id for client in everyone] == first
        assert len(set(first)) == len(everyone)


async def test_equal_transcripts_of_one_user_lead_to_the_newest_that_ends_there(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        one, two = Client(server), Client(server)
        await one.say("hello")
        await two.say("hello")
        older, newest = one.session_id, two.session_id
        assert older != newest
        await one.say("a")
        assert one.session_id == newest
    async with serving(data, upstream=upstream.url) as server:
        client = Client(server)
        client.messages = list(two.messages)
        await client.say("b")
        assert client.session_id == older, "the one that still ends there"
        assert len((await server.get("/api/sessions"))["data"]) == 2


async def test_two_requests_at_once_with_one_history_are_a_continuation_and_a_fork(
    server: Server, upstream: Upstream
) -> None:
    upstream.script = answering()
    client = Client(server)
    await client.say("one")
    upstream.gate.clear()
    pair = [Client(server), Client(server)]
    for number, other in enumerate(pair):
        other.messages = [*client.messages, said(f"two, {number}")]
    first = asyncio.create_task(pair[0].send())
    await upstream.wait_for_requests(2)
    second = asyncio.create_task(pair[1].send())
    upstream.gate.set()
    await asyncio.gather(first, second)
    assert pair[0].session_id == client.session_id != pair[1].session_id
    assert sent(upstream) == plain(pair[1].messages[:-1])
    for other in pair:
        own = other.session_id
        await other.say("three")
        assert other.session_id == own
        assert sent(upstream) == plain(other.messages[:-1])


async def test_of_two_at_once_the_second_continues_where_the_first_fails(server: Server, upstream: Upstream) -> None:
    client = Client(server)
    await client.say("one")
    upstream.gate.clear()
    upstream.script = lambda _: Reply(status=500, body={})
    pair = [Client(server), Client(server)]
    for other in pair:
        other.messages = [*client.messages, said("two")]
    first = asyncio.create_task(pair[0].send())
    await upstream.wait_for_requests(2)
    second = asyncio.create_task(pair[1].send())
    failing = upstream.script
    upstream.script = lambda body: failing(body) if len(upstream.requests) == 2 else says("well")
    upstream.gate.set()
    with pytest.raises(openai.APIStatusError):
        await first
    await second
    assert pair[1].session_id == client.session_id


async def _record(data: Path, stream: str, *events: Any) -> None:
    log = await SqliteLog.open(data)
    await log.append(stream, len(await log.read(stream)), events)
    await log.close()


async def test_a_deleted_session_is_not_known(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        client = Client(server)
        await client.say("one")
        deleted = client.session_id
    await _record(data, lineage_stream("default", deleted), SessionDeleted())
    async with serving(data, upstream=upstream.url) as server:
        again = Client(server)
        again.messages = client.messages
        await again.say("two")
        assert again.session_id != deleted
        assert sent(upstream) == plain(again.messages[:-1])
        assert len(await server.messages(again.session_id)) == 4


async def test_one_that_is_deleted_while_a_turn_waits_for_it_is_not_continued(
    data: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(data, upstream=upstream.url) as server:
        client = Client(server)
        await client.say("one")
        deleted = client.session_id
        assert server.app is not None
        lineages, waits = server.app[LINEAGES], asyncio.Event()
        enter = lineages.line.enter

        async def entering(lineage: str, **how: Any) -> None:
            waits.set()
            await enter(lineage, **how)

        stream = lineage_stream("default", deleted)
        async with lineages.held(stream) as session:
            monkeypatch.setattr(lineages.line, "enter", entering)
            waiting = asyncio.create_task(client.say("two"))
            await waits.wait()
            await lineages.commit(session, lambda _: [SessionDeleted()])
        await waiting
        assert client.session_id != deleted
        assert sent(upstream) == plain(client.messages[:-1])
        assert len(await server.messages(client.session_id)) == 4


async def test_a_rotation_in_between_does_not_hide_the_session(data: Path, upstream: Upstream) -> None:
    upstream.script = answering()
    async with serving(data, upstream=upstream.url) as server:
        client = Client(server)
        for text in ("one", "two"):
            await client.say(text)
        root, early = client.session_id, client.messages[:2]
    summary = msgspec.json.encode({"role": "user", "content": "summary"})
    counts: dict[str, Any] = {"head": 0, "tail": 2, "tokens_before": 9, "tokens_after": 5}
    counts |= {"old_session_id": root, "session_id": "child"}
    rotated = CompressionRotated(**counts, summary=summary, trigger="manual", summariser="deterministic")
    await _record(data, lineage_stream("default", root), rotated)
    async with serving(data, upstream=upstream.url) as server:
        again = Client(server)
        again.messages = list(client.messages)
        for text in ("three", "four"):
            await again.say(text)
            assert again.session_id == "child"
            assert sent(upstream) == [("user", "summary"), *plain(again.messages[2:-1])]
        late = Client(server)
        late.messages = list(early)
        await late.say("two again")
        assert late.session_id not in (root, "child")
        assert sent(upstream) == plain(late.messages[:-1]), "a fork from before the rotation has its whole past"


async def test_a_turn_that_is_not_stored_is_neither_matched_nor_known(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        stored, passing = Client(server), Client(server, store=False)
        await stored.say("one")
        passing.messages = list(stored.messages)
        create = server.openai.chat.completions.with_raw_response.create
        raw = await create(model="m", messages=[*passing.messages, said("two")], store=False)  # type: ignore[list-item]
        assert "X-Hermes-Session-Id" not in raw.headers
        assert sent(upstream) == [*plain(stored.messages), ("user", "two")]
        await stored.say("three")
        assert sent(upstream) == plain(stored.messages[:-1])
        assert len(await server.messages(stored.session_id)) == 4


async def test_what_is_remembered_is_bounded(
    server: Server, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(histories, "KNOWN_MAX", 2)
    upstream.script = answering()
    clients = [Client(server) for _ in range(4)]
    for text in ("one", "two"):
        for client in clients:
            await client.say(text)
            assert sent(upstream) == plain(client.messages[:-1])
    assert len({client.session_id for client in clients}) == 4
    assert len((await server.get("/api/sessions"))["data"]) == 4


async def test_a_client_that_begins_to_name_its_session_goes_on_in_it(server: Server, upstream: Upstream) -> None:
    client = Client(server)
    await client.say("one")
    _, session_id = await server.chat("two", client.session_id)
    assert session_id == client.session_id
    client.messages += [said("two"), {"role": "assistant", "content": "3: two"}]
    await client.say("three")
    assert client.session_id == session_id
    assert sent(upstream) == plain(client.messages[:-1])


# Any tree of conversations

STEPS = st.lists(
    st.tuples(
        st.sampled_from(["continue", "continue", "regenerate", "edit", "edit answer", "new", "restart"]),
        st.integers(0, 20),
        st.booleans(),
        st.booleans(),
    ),
    max_size=14,
)


class Tree:
    """The transcripts that clients hold, each grown by one exchange from a part of another."""

    def __init__(self) -> None:
        self.transcripts: list[list[Message]] = []
        self.numbers = itertools.count(1)
        self.new: list[int] = []  # how many messages of each request are news

    def sends(self, messages: list[Message]) -> None:
        """A client sends them: news is what stands behind the last answer of a transcript that was ever completed."""
        is_known = plain(messages[:-1]) in map(plain, self.transcripts)
        self.new.append(1 if is_known else len(messages))

    def next(self, kind: str, which: int) -> list[Message]:
        """The messages that a client sends next."""
        question = said(f"question {next(self.numbers)}")
        if kind == "new" or not self.transcripts:
            return [question]
        base = self.transcripts[which % len(self.transcripts)]
        if kind == "regenerate":
            return base[:-1]
        if kind == "edit":
            return [*base[: 2 * (which % (len(base) // 2))], question]
        if kind == "edit answer":
            return [*base[:-1], {"role": "assistant", "content": f"edited {next(self.numbers)}"}, question]
        return [*base, question]


async def _send(server: Server, messages: list[Message], *, streams: bool, responses: bool) -> tuple[str, str]:
    """The session's id and the text of the answer."""
    path = "/v1/responses" if responses else "/v1/chat/completions"
    body = {"model": "m", "input" if responses else "messages": messages, "stream": streams}
    async with server.http.post(path, json=body) as response:
        assert response.status == 200, await response.text()
        session_id = response.headers["X-Hermes-Session-Id"]
        if not streams:
            answer = await response.json()
            item = (
                answer["output"][0]["content"][0]["text"] if responses else answer["choices"][0]["message"]["content"]
            )
            return session_id, item
        await response.read()
    shown = await server.messages(session_id)
    return session_id, shown[-1]["content"]


@contextlib.asynccontextmanager
async def _restartable(data: Path, url: str) -> AsyncIterator[Any]:
    async with contextlib.AsyncExitStack() as running:

        async def start() -> Server:
            await running.aclose()
            return await running.enter_async_context(serving(data, upstream=url))

        yield start


@given(STEPS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_tree_of_conversations_is_sent_as_it_is_and_stored_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int, bool, bool]]
) -> None:
    async def run() -> None:
        data = tmp_path_factory.mktemp("histories")
        async with scripted_upstream() as upstream, _restartable(data, upstream.url) as start:
            upstream.script = answering()
            server, tree, known = await start(), Tree(), set()
            for kind, which, streams, responses in steps:
                if kind == "restart":
                    server = await start()
                    continue
                messages = tree.next(kind, which)
                tree.sends(messages)
                session_id, text = await _send(server, messages, streams=streams, responses=responses)
                known.add(session_id)
                assert sent(upstream) == plain(messages)
                tree.transcripts.append([*messages, {"role": "assistant", "content": text}])
                shown = [(message["role"], message["content"]) for message in await server.messages(session_id)]
                assert shown == plain(tree.transcripts[-1])
            for session_id in known:
                contents = [message["content"] for message in await server.messages(session_id)]
                assert len(contents) == len(set(contents))
            stored = [len(e.event.items) for e in await recorded(data) if isinstance(e.event, TurnStarted)]
            assert stored == tree.new, "only what is new is stored"

    asyncio.run(run())
