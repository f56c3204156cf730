"""Long chains: what is stored and what is sent grows with what is new, and with nothing else.

The system that turnlog replaces stored the whole history with each response: 2,056 items where 20 were right.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from eventstore.events import TurnCompleted, TurnStarted, encode
from eventstore.log import Recorded
from eventstore.sqlite import SqliteLog
from tests.support.server import Server, serving
from tests.support.upstream import Message, Reply, Upstream, says

TURNS = 200
RESTART_AFTER = 100


def question(turn: int) -> str:
    """What the user says in a turn: as long in each."""
    return f"question {turn:03d}"


def answer(body: dict[str, Any]) -> Reply:
    """Answers the newest question, as long to each."""
    return says(body["messages"][-1]["content"].replace("question", "answer"))


def transcript(turns: int) -> list[Message]:
    """The messages of so many whole turns."""
    return [
        message
        for turn in range(turns)
        for message in (
            {"role": "user", "content": question(turn)},
            {"role": "assistant", "content": question(turn).replace("question", "answer")},
        )
    ]


async def chain(server: Server, turns: range, previous: str | None) -> tuple[str, str]:
    """Take turns, each behind the response before it: the newest response's id, and its session's."""
    session_id = ""
    for turn in turns:
        body = {"model": "m", "input": question(turn)} | ({"previous_response_id": previous} if previous else {})
        async with server.http.post("/v1/responses", json=body) as response:
            assert response.status == 200, await response.text()
            previous = (await response.json())["id"]
            session_id = response.headers["X-Hermes-Session-Id"]
    assert previous is not None
    return previous, session_id


async def recorded(data: Path) -> list[Recorded]:
    """Everything in the log."""
    log = await SqliteLog.open_read_only(data)
    try:
        return [event async for batch in log.read_all() for event in batch]
    finally:
        await log.close()


def check_prompts(upstream: Upstream) -> None:
    """Each request held exactly the turns before it and its own question."""
    assert len(upstream.messages) == TURNS
    for turn, messages in enumerate(upstream.messages):
        assert messages == [*transcript(turn), {"role": "user", "content": question(turn)}]


def check_stored(log: Sequence[Recorded]) -> None:
    """Each turn stored its one new question and its one new answer, in as many bytes as any other."""
    started = [entry.event for entry in log if isinstance(entry.event, TurnStarted)]
    completed = [entry.event for entry in log if isinstance(entry.event, TurnCompleted)]
    assert len(started) == len(completed) == TURNS
    assert sum(len(event.items) for event in started) == TURNS
    assert sum(len(event.output) for event in completed) == TURNS
    questions = [msgspec.json.decode(item)["content"] for event in started for item in event.items]
    answers = [msgspec.json.decode(item)["content"] for event in completed for item in event.output]
    assert questions == [message["content"] for message in transcript(TURNS)[::2]]
    assert answers == [message["content"] for message in transcript(TURNS)[1::2]]
    # The first turn names no previous response; from the second on, they differ in nothing.
    assert len({len(encode(event)) for event in started[1:]}) == 1
    assert len({len(encode(event)) for event in completed}) == 1
    assert len({entry.stream for entry in log if entry.stream.startswith("lineage/")}) == 1
    half = [sum(len(encode(entry.event)) for entry in part) for part in (log[: len(log) // 2], log[len(log) // 2 :])]
    assert abs(half[0] - half[1]) < 1_000


async def test_two_hundred_chained_responses_store_two_hundred_turns(
    server: Server, upstream: Upstream, data: Path
) -> None:
    upstream.script = answer
    newest, session_id = await chain(server, range(TURNS), None)
    check_prompts(upstream)
    check_stored(await recorded(data))
    messages = await server.messages(session_id)
    assert [{"role": entry["role"], "content": entry["content"]} for entry in messages] == transcript(TURNS)
    assert (await server.openai.responses.retrieve(newest)).output_text == f"answer {TURNS - 1:03d}"


async def test_two_hundred_chained_responses_survive_a_restart_in_the_middle(data: Path, upstream: Upstream) -> None:
    upstream.script = answer
    async with serving(data, upstream=upstream.url) as server:
        middle, before = await chain(server, range(RESTART_AFTER), None)
    async with serving(data, upstream=upstream.url) as server:
        _, after = await chain(server, range(RESTART_AFTER, TURNS), middle)
        messages = await server.messages(after)
    assert before == after
    assert [{"role": entry["role"], "content": entry["content"]} for entry in messages] == transcript(TURNS)
    check_prompts(upstream)
    check_stored(await recorded(data))


async def test_the_files_on_disk_grow_by_as_much_in_every_part_of_a_chain(data: Path, upstream: Upstream) -> None:
    upstream.script = answer
    previous: str | None = None
    sizes = []
    quarter = TURNS // 4
    for part in range(4):
        async with serving(data, upstream=upstream.url) as server:
            previous, _ = await chain(server, range(part * quarter, (part + 1) * quarter), previous)
        sizes.append(sum(path.stat().st_size for path in data.iterdir()))
    grown = [after - before for before, after in itertools.pairwise(sizes)]
    # SQLite grows by pages: some of them either way.
    assert max(grown) - min(grown) <= 16 * 4096
    assert max(grown) <= quarter * 4096


async def test_a_chain_by_session_header_with_the_whole_history_in_each_body_stores_only_what_is_new(
    server: Server, upstream: Upstream, data: Path
) -> None:
    upstream.script = answer
    for turn in range(TURNS):
        messages = [*transcript(turn), {"role": "user", "content": question(turn)}]
        await server.chat("-", "s1", messages=messages)
    check_prompts(upstream)
    check_stored(await recorded(data))
