"""Turns for tests, by every door there is, and a model that gives one answer to one question.

`take` takes one turn through a door, and reads its answer to the end. `dialogue` is what a model must then be sent.
"""

import asyncio
import itertools
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, NamedTuple

import aiohttp

from api.turns.summary import HEADING
from tests.support.server import Server, turnlog_command
from tests.support.upstream import Message, Reply, Upstream, says

CHAT = ("chat", "chat stream")
RESPONSES = ("responses", "responses stream")
SESSION_CHAT = ("session chat", "session chat stream")
DOORS = (*CHAT, *RESPONSES, *SESSION_CHAT, "run")
CHARACTERS_MAX = 4 * 400  # of a compressed prompt, at four characters a token
SUMMARY = "Ada builds a boat; it is to be blue."

Script = Callable[[dict[str, Any]], Reply]


class Turn(NamedTuple):
    """What a client is told: the effective session id, and the id of its completion, response or run."""

    text: str
    session_id: str
    id: str
    headers: Mapping[str, str]
    frames: Sequence[dict[str, Any]]


# The model


def answer(question: str) -> str:
    """What the model says to a question: its first words are enough to know which it was."""
    return f"answer to {question[:16].strip()}"


def is_for_summary(body: dict[str, Any]) -> bool:
    """Whether a request asks for the summary of a conversation."""
    return str(body["messages"][0]["content"]).startswith("You compress a conversation")


def answering(body: dict[str, Any]) -> Reply:
    """Answers the newest message, counts four characters a token, and summarises in one sentence."""
    if is_for_summary(body):
        return says(SUMMARY)
    told = characters(body["messages"]) // 4
    usage = {"prompt_tokens": told, "completion_tokens": 10, "total_tokens": told + 10}
    return says(answer(str(body["messages"][-1]["content"])), usage=usage)


def characters(messages: Sequence[Message]) -> int:
    """How long the messages are together."""
    return sum(len(str(message["content"])) for message in messages)


def asked(upstream: Upstream) -> list[list[Message]]:
    """The messages of each request but those for summaries."""
    return [request["messages"] for request in upstream.requests if not is_for_summary(request)]


def summaries_asked(upstream: Upstream) -> int:
    """How many summaries the model was asked for."""
    return sum(map(is_for_summary, upstream.requests))


async def reached(upstream: Upstream, count: int, *turns: "asyncio.Task[Any]") -> None:
    """Return once the model has been asked so often; a turn that ended before raises what it ended with."""
    waiting = asyncio.ensure_future(upstream.wait_for_requests(count))
    await asyncio.wait([waiting, *turns], return_when=asyncio.FIRST_COMPLETED)
    if not waiting.done():
        waiting.cancel()
        for turn in turns:
            if turn.done():
                raise AssertionError(f"ended without the model: {await turn}")


# What is expected


def question(number: int) -> str:
    """A user's message of 100 characters."""
    return f"question {number} ".ljust(100, "x")


def questions(numbers: range) -> list[str]:
    """Users' messages of 100 characters each."""
    return list(map(question, numbers))


def user(text: str) -> Message:
    """A user's message."""
    return {"role": "user", "content": text}


def dialogue(*texts: str) -> list[Message]:
    """These questions with their answers."""
    return [message for text in texts for message in (user(text), {"role": "assistant", "content": answer(text)})]


def plain(messages: Sequence[Message]) -> list[Message]:
    """Role and content of messages."""
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def users(messages: Sequence[Message]) -> list[str]:
    """What users said in these messages."""
    return [message["content"] for message in messages if message["role"] == "user"]


def check_prompt(sent: Sequence[Message], before: Sequence[str], text: str, *, summaries_max: int = 1) -> None:
    """A prompt is the turns before, in order and none twice, but for those of one summary, and then what is new.

    What a summary stands for is one run of turns: those before it and those behind it are whole.
    """
    assert sent[-1] == user(text)
    summaries = [message["content"] for message in sent if str(message["content"]).startswith(HEADING)]
    if not summaries:
        assert list(sent) == [*dialogue(*before), user(text)]
        return
    assert len(summaries) <= summaries_max
    assert all(SUMMARY in summary for summary in summaries)
    kept = [content for content in users(sent) if content not in summaries]
    places = [-1, *map([*before, text].index, kept)]
    gaps = [behind - place for place, behind in itertools.pairwise(places)]
    assert min(gaps) >= 1, "doubled, or out of order"
    assert sum(gap > 1 for gap in gaps) <= len(summaries), "left out, and no summary stands for it"
    assert characters(sent) <= CHARACTERS_MAX


async def said(server: Server, session_id: str) -> list[Message]:
    """Everything that was said in a session's lineage, page by page: role and content."""
    messages: list[Message] = []
    while True:
        page = await server.get(f"/api/sessions/{session_id}/messages?limit=50&offset={len(messages)}")
        messages += page["data"]
        if not page["has_more"]:
            return plain(messages)


async def tip(server: Server, session_id: str) -> str:
    """The newest session of a session's lineage."""
    newest: str = (await server.get(f"/api/sessions/{session_id}/messages?limit=1"))["session_id"]
    return newest


async def listed(server: Server, query: str = "") -> list[dict[str, Any]]:
    """The first page of sessions."""
    rows: list[dict[str, Any]] = (await server.get(f"/api/sessions?limit=200{query}"))["data"]
    return rows


# Turns


async def take(
    server: Server, text: str, door: str = "chat", session: str | None = None, key: str | None = None, **body: Any
) -> Turn:
    """Take a turn by that door, read its answer to the end, and expect it to have gone well."""
    async with opened(server, text, door, session, key, **body) as response:
        assert response.status in (200, 202), await response.text()
        return await finished(server, door, response)


def opened(
    server: Server, text: str, door: str = "chat", session: str | None = None, key: str | None = None, **body: Any
) -> "aiohttp.client._RequestContextManager":
    """The request for a turn by that door, with an idempotency key or without."""
    path, defaults = _request(door, text, session)
    headers = {"Idempotency-Key": key} if key else {}
    if session and door not in SESSION_CHAT:
        headers["X-Hermes-Session-Id"] = session
    return server.http.post(path, json=defaults | body, headers=headers)


def _request(door: str, text: str, session: str | None) -> tuple[str, dict[str, Any]]:
    stream = {"stream": True} if door.endswith(" stream") else {}
    if door in CHAT:
        return "/v1/chat/completions", {"model": "m", "messages": [user(text)]} | stream
    if door in RESPONSES:
        return "/v1/responses", {"model": "m", "input": text} | stream
    if door == "run":
        return "/v1/runs", {"model": "m", "input": text}
    return f"/api/sessions/{session}/{door.removeprefix('session ').replace(' ', '/')}", {"message": text}


async def finished(server: Server, door: str, response: aiohttp.ClientResponse) -> Turn:
    """Read a turn's answer to its end."""
    session_id = response.headers.get("X-Hermes-Session-Id", "")
    if door == "run":
        run_id = (await response.json())["run_id"]
        frames = await run_frames(server, run_id)
        assert frames[-1]["event"] == "run.completed", frames
        return Turn(frames[-1]["output"], session_id, run_id, response.headers, frames)
    if door.endswith(" stream"):
        frames = [frame async for frame in sse(response)]
        return Turn(*_streamed(door, frames, session_id), response.headers, frames)
    body = await response.json()
    if door in CHAT:
        return Turn(body["choices"][0]["message"]["content"], session_id, body["id"], response.headers, ())
    if door in RESPONSES:
        return Turn(body["output"][-1]["content"][0]["text"], session_id, body["id"], response.headers, ())
    return Turn(body["message"]["content"], body["session_id"], "", response.headers, ())


def _streamed(door: str, frames: Sequence[dict[str, Any]], session_id: str) -> tuple[str, str, str]:
    """Text, session id and id of a streamed turn."""
    if door in CHAT:
        deltas = [choice["delta"].get("content") or "" for frame in frames for choice in frame["choices"]]
        return "".join(deltas), session_id, frames[0]["id"]
    if door in RESPONSES:
        assert frames[-1]["type"] == "response.completed", frames[-1]
        response = frames[-1]["response"]
        return response["output"][-1]["content"][0]["text"], session_id, response["id"]
    completed = next(frame for frame in frames if frame["event"] == "assistant.completed")
    return completed["content"], completed["session_id"], ""


async def run_frames(server: Server, run_id: str, last_event_id: str | None = None) -> list[dict[str, Any]]:
    """A run's events to its end, from the beginning or after one; each has its `id`."""
    headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
    async with server.http.get(f"/v1/runs/{run_id}/events", headers=headers) as response:
        assert response.status == 200, await response.text()
        return [frame async for frame in sse(response)]


async def sse(response: aiohttp.ClientResponse) -> AsyncIterator[dict[str, Any]]:
    """The JSON frames of a stream, each with its `event` name and `id`, if the stream itself gives it these."""
    about: dict[str, Any] = {}
    async for raw in response.content:
        name, _, value = raw.decode().rstrip("\n").partition(": ")
        if name == "data" and value != "[DONE]":
            yield about | json.loads(value)
            about = {}
        elif name in ("event", "id"):
            about[name] = value


async def fork(server: Server, session_id: str, status: int = 201, **body: Any) -> dict[str, Any]:
    """Fork a session; the fork's row, or the error."""
    async with server.http.post(f"/api/sessions/{session_id}/fork", json=body) as response:
        answered: dict[str, Any] = await response.json()
        assert response.status == status, answered
        row: dict[str, Any] = answered["session"] if status == 201 else answered["error"]
        return row


async def delete(server: Server, path: str, status: int = 200) -> None:
    """DELETE a path, expecting that status."""
    async with server.http.delete(path) as response:
        assert response.status == status, await response.text()


async def found(server: Server, words: str, **page: int) -> list[dict[str, Any]]:
    """What a search for the words finds."""
    async with server.http.get("/api/sessions/search", params={"q": words, **page}) as response:
        assert response.status == 200, await response.text()
        hits: list[dict[str, Any]] = (await response.json())["data"]
        return hits


async def turnlog(*arguments: str) -> None:
    """Run `turnlog` to its good end."""
    command = [str(turnlog_command()), *arguments]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
