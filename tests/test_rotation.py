"""Compression rotation over HTTP: what the model is sent, where clients are led, and what happens when it fails."""

import asyncio
import itertools
import random
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from api.turns.compress import Compression
from api.turns.summary import HEADING
from tests.support.server import Process, Server, serving, turnlog_command
from tests.support.upstream import Reply, Upstream, refuses, says

if TYPE_CHECKING:
    from openai import AsyncOpenAI

SUMMARY = "Ada builds a boat; it is to be blue."
LIMITS = {"context_tokens": 800, "compress_at": 0.5}
LONG = 16  # turns: enough for a rotation


def is_for_summary(body: dict[str, Any]) -> bool:
    return str(body["messages"][0]["content"]).startswith("You compress a conversation")


def answering(summary: Callable[[], Reply] = lambda: says(SUMMARY)) -> Callable[[dict[str, Any]], Reply]:
    """A model that numbers its answers, counts four characters a token, and summarises as it is told."""

    def script(body: dict[str, Any]) -> Reply:
        if is_for_summary(body):
            return summary()
        told = sum(len(str(message["content"])) for message in body["messages"])
        usage = {"prompt_tokens": told // 4, "completion_tokens": 10, "total_tokens": told // 4 + 10}
        return says(f"answer to {body['messages'][-1]['content'][:12]}", usage=usage)

    return script


def limits(**more: Any) -> Compression:
    return Compression(**(LIMITS | more))


def asked(upstream: Upstream) -> list[list[dict[str, Any]]]:
    """The messages of every request but those for summaries."""
    return [request["messages"] for request in upstream.requests if not is_for_summary(request)]


def summaries_asked(upstream: Upstream) -> int:
    return sum(map(is_for_summary, upstream.requests))


def audit_show(data: Path, session_id: str) -> str:
    command = [str(turnlog_command()), "audit", "show", session_id, "--json", "--data", str(data)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def text(number: int) -> str:
    return f"question {number} ".ljust(100, "x")


async def talk(server: Server, turns: range, session_id: str) -> list[str]:
    """Chat turns on one id, which is never renewed; the effective ids in turn."""
    return [(await server.chat(text(number), session_id))[1] for number in turns]


async def test_a_session_that_grows_too_long_goes_on_in_a_child(data: Path, upstream: Upstream) -> None:
    upstream.script = answering()
    async with serving(data, upstream=upstream.url, compression=limits()) as server:
        effective = await talk(server, range(LONG), "boat")
        tip = effective[-1]
        assert effective[0] == "boat"
        assert tip != "boat"
        assert len(set(effective)) == summaries_asked(upstream) + 1
        sent = asked(upstream)[-1]
        assert [message["role"] for message in sent[:4]] == ["user", "assistant", "user", "assistant"]
        assert sent[0]["content"] == text(0)
        assert sent[3]["content"] == f"{HEADING}\n\n{SUMMARY}"
        assert sent[-1]["content"] == text(LONG - 1)
        assert all(one["role"] != other["role"] for one, other in itertools.pairwise(sent))
        assert sum(len(str(message["content"])) for message in sent) // 4 <= 400
        # Whatever is sent as the id, however old, the turn goes to the tip.
        for old in set(effective):
            _, reached = await server.chat("and now", old)
            assert asked(upstream)[-1][: len(sent)] == sent or reached != tip
        said = await server.messages("boat")
        assert [m["content"] for m in said if m["role"] == "user"][:LONG] == [text(number) for number in range(LONG)]


async def test_three_rotations_deep_with_old_ids_at_random_in_a_streamed_conversation(
    data: Path, upstream: Upstream
) -> None:
    upstream.script = answering()
    chance = random.Random(7)  # noqa: S311 (a test that can be repeated)
    known = ["boat"]
    number = 0
    async with serving(data, upstream=upstream.url, compression=limits()) as server:
        while summaries_asked(upstream) < 3:
            headers = {"X-Hermes-Session-Id": chance.choice(known)}
            stream = await server.openai.chat.completions.with_raw_response.create(
                model="m", messages=[{"role": "user", "content": text(number)}], stream=True, extra_headers=headers
            )
            effective = stream.headers["X-Hermes-Session-Id"]
            chunks = [chunk async for chunk in stream.parse()]
            assert chunks[-1].model_extra == {"session_id": effective}
            if effective not in known:
                assert stream.headers["X-Turnlog-Compression"] == "rotated"
                known.append(effective)
            assert asked(upstream)[-1][-1]["content"] == text(number)
            number += 1
        assert len(known) == 4
        said = await server.messages(known[1])
        assert [m["content"] for m in said if m["role"] == "user"] == [text(n) for n in range(number)]
        assert len(said) == 2 * number
        before = asked(upstream)[-1]
    async with serving(data, upstream=upstream.url, compression=limits(context_tokens=0)) as server:
        _, effective = await server.chat("after a restart", known[0])
        assert effective == known[-1]
        assert asked(upstream)[-1][: len(before)] == before
        assert summaries_asked(upstream) == 3


async def test_parallel_turns_rotate_once_and_lose_nothing(data: Path, upstream: Upstream) -> None:
    upstream.script = answering()
    async with serving(data, upstream=upstream.url, compression=limits()) as server:
        await talk(server, range(8), "boat")
        effective = await asyncio.gather(*(server.chat(text(number), "boat") for number in range(8, 20)))
        assert len({reached for _, reached in effective}) <= summaries_asked(upstream) + 1
        said = await server.messages("boat")
        assert sorted(m["content"] for m in said if m["role"] == "user") == sorted(text(n) for n in range(20))
        assert [m["role"] for m in said] == ["user", "assistant"] * 20


async def test_a_tool_call_and_its_output_are_never_parted(data: Path, upstream: Upstream) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at": "boat"}'}}

    def script(body: dict[str, Any]) -> Reply:
        last = body["messages"][-1]
        if is_for_summary(body) or last["role"] == "tool" or "look" not in last["content"]:
            return answering()(body)
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        return Reply(message=message, finish_reason="tool_calls", usage=None)

    upstream.script = script
    async with serving(data, upstream=upstream.url, compression=limits()) as server:
        await talk(server, range(10), "boat")
        await server.chat("look", "boat")
        output = {"role": "tool", "tool_call_id": "call_1", "content": "blue " * 100}
        await server.chat("", "boat", messages=[output])
        assert summaries_asked(upstream) >= 1
        for sent in asked(upstream):
            for place, message in enumerate(sent):
                if message["role"] == "tool":
                    assert sent[place - 1]["tool_calls"] == [call]


@pytest.mark.parametrize("by", ["conversation", "previous_response_id"])
async def test_slugs_and_responses_go_on_behind_a_rotation(data: Path, upstream: Upstream, by: str) -> None:
    upstream.script = answering()
    async with serving(data, upstream=upstream.url, compression=limits()) as server:
        names: dict[str, Any] = {"conversation": "boat"} if by == "conversation" else {}
        ids = []
        for number in range(LONG):
            response = await server.openai.responses.create(model="m", input=text(number), **names)
            ids.append(response.id)
            if by == "previous_response_id":
                names = {by: response.id}
        assert summaries_asked(upstream) >= 1
        assert len((await server.get("/api/sessions"))["data"]) == 1
        # A response from before the rotation can still be read, and continued from: as a fork, uncompressed.
        assert (await server.openai.responses.retrieve(ids[0])).output_text == "answer to question 0 x"
        await server.openai.responses.create(model="m", input="otherwise", previous_response_id=ids[1])
        forked = asked(upstream)[-1]
        assert [m["content"] for m in forked if m["role"] == "user"] == [text(0), text(1), "otherwise"]


async def test_a_request_can_name_its_own_threshold(data: Path, upstream: Upstream) -> None:
    upstream.script = answering()
    async with serving(data, upstream=upstream.url) as server:
        for number in range(6):
            await server.openai.responses.create(model="m", input=text(number), conversation="boat")
        assert summaries_asked(upstream) == 0
        management: Any = [{"type": "compaction", "compact_threshold": 150}]
        raw = await server.openai.responses.with_raw_response.create(
            model="m", input=text(6), conversation="boat", context_management=management
        )
        assert raw.headers["X-Turnlog-Compression"] == "rotated"
        assert summaries_asked(upstream) == 1


async def test_each_model_has_its_own_limits_and_summaries_their_own_model_and_words(
    data: Path, upstream: Upstream
) -> None:
    upstream.script = lambda body: says(SUMMARY) if body["model"] == "small" else answering()(body)
    narrow = limits(summary_model="small", summary_prompt="In verse, please.")
    async with serving(data, upstream=upstream.url, models={"narrow": narrow}) as server:
        for number in range(LONG):
            await server.chat(text(number), "wide")
            await server.chat(text(number), "thin", model="narrow")
        summaries = [request for request in upstream.requests if request["model"] == "small"]
        assert summaries
        assert summaries[0]["messages"][0] == {"role": "system", "content": "In verse, please."}
        assert (await server.chat("hello", "wide"))[1] == "wide"


@pytest.mark.parametrize("status", [400, 404, 422, 500])
async def test_a_summary_that_fails_is_made_without_a_model(data: Path, upstream: Upstream, status: int) -> None:
    upstream.script = answering(lambda: refuses(status))
    async with serving(data, upstream=upstream.url, compression=limits()) as server:
        effective = await talk(server, range(LONG), "boat")
        assert effective[-1] != "boat"
        summary = next(m["content"] for m in asked(upstream)[-1] if m["content"].startswith(HEADING))
        assert "- assistant: answer to question" in summary
        assert "- user: question" in summary


@pytest.mark.parametrize("status", [401, 402, 403, 429, 503])
async def test_a_refusal_that_is_not_about_the_summary_changes_nothing_and_is_told(
    data: Path, upstream: Upstream, status: int
) -> None:
    upstream.script = answering(lambda: refuses(status))
    async with serving(data, upstream=upstream.url, compression=limits()) as server:
        effective = await talk(server, range(13), "boat")
        assert set(effective) == {"boat"}
        body = {"model": "m", "messages": [{"role": "user", "content": text(13)}]}
        headers = {"X-Hermes-Session-Id": "boat"}
        async with server.http.post("/v1/chat/completions", json=body, headers=headers) as response:
            assert response.status == 200
            assert response.headers["X-Turnlog-Compression"].startswith("skipped: ")
        assert [m["content"] for m in asked(upstream)[-1] if m["role"] == "user"] == [text(n) for n in range(14)]
        assert '"uncompressed":"' in await asyncio.to_thread(audit_show, data, "boat")
        upstream.script = answering()
        assert (await server.chat(text(14), "boat"))[1] != "boat"


async def test_a_session_is_compressed_by_hand(data: Path, upstream: Upstream) -> None:
    upstream.script = answering()
    async with serving(data, upstream=upstream.url) as server:
        await talk(server, range(4), "boat")
        async with server.http.post("/api/sessions/boat/compress", json={"focus": "the colour"}) as response:
            assert response.status == 200
            told = await response.json()
            assert response.headers["X-Hermes-Session-Id"] == told["session_id"]
        assert told["parent_session_id"] == "boat"
        assert told["summary"] == SUMMARY
        assert told["summariser"] == "m"
        assert told["trigger"] == "manual"
        assert told["tokens_after"] < told["tokens_before"]
        assert "the colour" in upstream.requests[-1]["messages"][0]["content"]
        shown = await asyncio.to_thread(audit_show, data, told["session_id"])
        assert "CompressionRotated" in shown
        assert "SessionStarted" in shown
        # It is durable at once: a crash before the next turn leaves a lineage whose tip has no turn yet.
    async with serving(data, upstream=upstream.url) as server:
        assert (await server.chat("next", "boat"))[1] == told["session_id"]
        assert asked(upstream)[-1][told["kept_head"]]["content"] == f"{HEADING}\n\n{SUMMARY}"
        assert len(await server.messages("boat")) == 10


async def test_the_newest_response_goes_on_in_the_child_and_does_not_fork(data: Path, upstream: Upstream) -> None:
    upstream.script = answering()
    async with serving(data, upstream=upstream.url) as server:
        names: dict[str, Any] = {}
        for number in range(4):
            answer = await server.openai.responses.with_raw_response.create(model="m", input=text(number), **names)
            names = {"previous_response_id": answer.parse().id}
        session_id = answer.headers["X-Hermes-Session-Id"]
        async with server.http.post(f"/api/sessions/{session_id}/compress") as response:
            tip = (await response.json())["session_id"]
        answer = await server.openai.responses.with_raw_response.create(model="m", input="next", **names)
        assert answer.headers["X-Hermes-Session-Id"] == tip
        assert any(message["content"].startswith(HEADING) for message in asked(upstream)[-1])


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"[]", 400, "invalid_type"),
        (b"{", 400, "invalid_json"),
        (b'{"focus": 1}', 400, "invalid_value"),
        (b'{"focus": "' + b"x" * 2_001 + b'"}', 400, "invalid_value"),
    ],
)
async def test_bad_input_by_hand(data: Path, upstream: Upstream, body: bytes, status: int, code: str) -> None:
    async with serving(data, upstream=upstream.url) as server:
        await server.chat("hello", "boat")
        async with server.http.post("/api/sessions/boat/compress", data=body) as response:
            assert response.status == status
            assert (await response.json())["error"]["code"] == code


async def test_what_is_compressed_already_is_not_compressed_again(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        await server.chat("hello", "boat")
        for status in (200, 400):
            async with server.http.post("/api/sessions/boat/compress") as response:
                told = await response.json()
                assert response.status == status
        assert told["error"]["code"] == "nothing_to_compress"


async def test_by_hand_an_unreachable_model_changes_nothing(data: Path, upstream: Upstream) -> None:
    upstream.script = answering(lambda: refuses(401))
    async with serving(data, upstream=upstream.url) as server:
        await talk(server, range(4), "boat")
        async with server.http.post("/api/sessions/boat/compress") as response:
            assert response.status == 502
        async with server.http.post("/api/sessions/nobody/compress") as response:
            assert response.status == 404
        assert (await server.chat("next", "boat"))[1] == "boat"


async def test_a_crash_while_the_summary_is_written_leaves_the_session_as_it_was(
    data: Path, upstream: Upstream
) -> None:
    upstream.script = answering()
    env = {"TURNLOG_CONTEXT_TOKENS": "800", "TURNLOG_COMPRESS_AT": "0.5"}
    process = await Process.start(data, "--upstream", upstream.url, env=env)
    number = 0
    while summaries_asked(upstream) == 0:
        if number == 5:
            upstream.gate.clear()
        turn = asyncio.ensure_future(process.server.chat(text(number), "boat"))
        await upstream.wait_for_requests(len(upstream.requests) + 1)
        if not upstream.gate.is_set() and summaries_asked(upstream):
            break
        upstream.gate.set()
        await turn
        upstream.gate.clear()
        number += 1
    await process.kill9(turn)
    upstream.gate.set()
    process = await Process.start(data, "--upstream", upstream.url, env=env)
    try:
        said = await process.server.messages("boat")
        assert [m["content"] for m in said if m["role"] == "user"] == [text(n) for n in range(number)]
        _, effective = await process.server.chat(text(number), "boat")
        assert effective != "boat"
        said = await process.server.messages("boat")
        assert [m["content"] for m in said if m["role"] == "user"] == [text(n) for n in range(number + 1)]
    finally:
        await process.terminate()


async def test_without_a_model_server_summaries_are_made_from_what_was_said(data: Path) -> None:
    async with serving(data, compression=limits()) as server:
        effective = await talk(server, range(LONG), "boat")
        assert effective[-1] != "boat"


async def test_the_sdk_shows_no_difference(data: Path, upstream: Upstream) -> None:
    upstream.script = answering()
    async with serving(data, upstream=upstream.url, compression=limits()) as server:
        client: AsyncOpenAI = server.openai
        for number in range(LONG):
            answer = await client.chat.completions.create(
                model="m",
                messages=[{"role": "user", "content": text(number)}],
                extra_headers={"X-Hermes-Session-Id": "boat"},
            )
            assert answer.choices[0].message.content == f"answer to {text(number)[:12]}"
