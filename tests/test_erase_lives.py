"""Around an erasure: forks, ids and names used again, turns at work, other tenants, and what it may not touch."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from api import keys
from api.context import LINEAGES
from eventstore.events import CompressionRotated, Erased, SessionErased
from tests.support.api import call, fork, record, rotate, row
from tests.support.server import Server, serving
from tests.support.upstream import Upstream, says
from tests.test_crash import contents, recorded, verify


async def erase(server: Server, status: int = 200, /, **body: Any) -> dict[str, Any]:
    return await call(server, "POST", "/api/erasures", status, json=body)


def holds(data: Path, text: str) -> bool:
    return any(text.lower().encode() in file.read_bytes().lower() for file in data.rglob("*") if file.is_file())


async def say(server: Server, session_id: str, *texts: str) -> None:
    for text in texts:
        await server.chat(text, session_id)


def rotation(old: str, new: str, head: int, tail: int) -> CompressionRotated:
    return CompressionRotated(
        old_session_id=old,
        session_id=new,
        summary=msgspec.json.encode({"role": "assistant", "content": "a summary"}),
        head=head,
        tail=tail,
        trigger="manual",
        tokens_before=9,
        tokens_after=1,
        summariser="m",
    )


async def test_a_fork_goes_on_with_what_it_said_itself(data: Path, upstream: Upstream) -> None:
    upstream.script = lambda body: says("answer to " + str(body["messages"][-1]["content"]))
    async with serving(data, upstream=upstream.url) as server:
        await say(server, "s1", "Zqneedleparent one", "Zqneedleparent two")
        await fork(server, "s1", id="f1")
        await say(server, "f1", "fork one")
        await fork(server, "f1", id="f2")
        await say(server, "f2", "again one")
        await erase(server, session="s1", why="law")
        assert contents(await server.messages("f1")) == ["fork one", "answer to fork one"]
        said = ["fork one", "answer to fork one", "again one", "answer to again one"]
        assert contents(await server.messages("f2")) == said
        await say(server, "f2", "again two")
        assert contents(upstream.messages[-1]) == [*said, "again two"]
        await row(server, "f1")
        await server.get("/api/sessions/f1/lineage")
        assert not holds(data, "Zqneedleparent")
    await verify(data)
    async with serving(data, upstream=upstream.url) as server:
        assert contents(await server.messages("f1")) == ["fork one", "answer to fork one"]
        await say(server, "f1", "fork two")
        assert contents(upstream.messages[-1]) == ["fork one", "answer to fork one", "fork two"]


@pytest.mark.parametrize("is_rotated_before", [True, False])
async def test_a_forks_compressions_keep_what_they_kept(
    data: Path, upstream: Upstream, is_rotated_before: bool
) -> None:
    upstream.script = lambda body: says("answer to " + str(body["messages"][-1]["content"]))
    async with serving(data, upstream=upstream.url) as server:
        await say(server, "s1", "Zqneedleparent one", "Zqneedleparent two")
        await fork(server, "s1", id="f1")
        await say(server, "f1", "one", "two", "three")
        if is_rotated_before:  # what it keeps at its head was said by its parent
            await record(server, "f1", [rotation("f1", "f1-2", 2, 2)])
            await say(server, "f1", "four")
            before = contents(upstream.messages[-1])
            assert before[2:] == ["a summary", "three", "answer to three", "four"]
            await erase(server, session="s1", why="law")
            await say(server, "f1", "five")
            assert contents(upstream.messages[-1]) == [*before[2:], "answer to four", "five"]
        else:
            await erase(server, session="s1", why="law")
            assert server.app is not None
            session = await server.app[LINEAGES].reader.session("default", "f1")
            head, tail = session.current.counted(1, 2)
            assert (head, tail) == (5, 2)
            await record(server, "f1", [rotation("f1", "f1-2", head, tail)])
            await say(server, "f1", "four")
            assert contents(upstream.messages[-1]) == ["one", "a summary", "three", "answer to three", "four"]
            session = await server.app[LINEAGES].reader.session("default", "f1")
            assert session.current.counted(1, 2) == (5, 2)
        assert not holds(data, "Zqneedleparent")


async def test_a_turn_of_a_fork_that_is_at_work_meanwhile_keeps_nothing_in_memory(
    data: Path, upstream: Upstream
) -> None:
    async with serving(data, upstream=upstream.url) as server:
        await say(server, "s1", "Zqneedleparent")
        await fork(server, "s1", id="f1")
        upstream.gate.clear()
        requests = len(upstream.requests)
        at_work = asyncio.create_task(server.chat("meanwhile", "f1"))
        await upstream.wait_for_requests(requests + 1)
        await erase(server, session="s1", why="law")
        upstream.gate.set()
        await at_work
        assert contents(await server.messages("f1")) == ["meanwhile", "3: meanwhile"]
        await say(server, "f1", "next")
        assert contents(upstream.messages[-1]) == ["meanwhile", "3: meanwhile", "next"]


async def test_a_summary_of_a_fork_that_is_being_written_meanwhile_is_not_recorded(
    data: Path, upstream: Upstream
) -> None:
    async with serving(data, upstream=upstream.url) as server:
        await say(server, "s1", *(f"Zqneedleparent {number} {'word ' * 200}" for number in range(8)))
        await fork(server, "s1", id="f1")
        await say(server, "f1", "own")
        upstream.script = lambda _: says("Zqneedlesummary")
        upstream.gate.clear()
        requests = len(upstream.requests)
        compressing = asyncio.create_task(call(server, "POST", "/api/sessions/f1/compress", 409, json={}))
        await upstream.wait_for_requests(requests + 1)
        await erase(server, session="s1", why="law")
        upstream.gate.set()
        assert (await compressing)["code"] == "conversation_locked"
        assert contents(await server.messages("f1"))[0] == "own"
        assert not holds(data, "Zqneedle")


async def test_a_retry_waits_for_the_erasure_that_is_under_way(server: Server, tmp_path: Path) -> None:
    async def erased(**how: Any) -> int:
        async with server.http.request(**how) as response:
            assert not holds(tmp_path / "data", "Zqneedle"), "neither is answered before nothing is left"
            return response.status

    await say(server, "s1", *(["Zqneedle"] * 3))
    by_id = {"method": "DELETE", "url": "/api/sessions/s1?erase=true"}
    by_body = {"method": "POST", "url": "/api/erasures", "json": {"session": "s1"}}
    assert sorted(await asyncio.gather(*(erased(**how) for how in (by_id, by_body, by_id)))) == [200, 404, 404]


async def test_one_that_was_deleted_before_is_erased_by_any_of_its_ids(server: Server, tmp_path: Path) -> None:
    await say(server, "s1", "Zqneedlefirst")
    await rotate(server, "s1", "s1-2", title="Zqneedletitle")
    await call(server, "DELETE", "/api/sessions/s1", 200)
    assert holds(tmp_path, "Zqneedlefirst")
    answer = await call(server, "DELETE", "/api/sessions/s1-2?erase=true", 200)
    assert answer["erased"]["sessions"][0]["session_ids"] == ["s1", "s1-2"]
    assert not holds(tmp_path, "Zqneedle")
    for name in ("s1", "s1-2", "never"):
        error = await call(server, "DELETE", f"/api/sessions/{name}?erase=true", 404)
        assert (error["code"], error["param"]) == ("session_not_found", "session_id")
        assert (await erase(server, 404, session=name, why="law"))["code"] == "nothing_to_erase"


async def test_all_lives_of_an_id_are_erased_and_a_later_one_is_not(server: Server, tmp_path: Path) -> None:
    for text in ("Zqneedlefirst", "Zqneedlesecond"):
        await say(server, "s1", text)
        await call(server, "DELETE", "/api/sessions/s1", 200)
    await say(server, "s1", "Zqneedlethird")
    answer = await erase(server, session="s1", why="law")
    assert answer["events"] == 9
    assert not holds(tmp_path, "Zqneedle")
    await say(server, "s1", "a new life")
    assert contents(await server.messages("s1")) == ["a new life", "1: a new life"]
    answer = await erase(server, session="s1", why="law")
    assert answer["events"] == 3
    assert not holds(tmp_path, "a new life")


async def test_a_slug_begins_anew_behind_an_erasure(server: Server, tmp_path: Path) -> None:
    async def ask(said: str) -> Any:
        return await server.openai.responses.create(model="m", input=said, conversation="talk")

    first = await ask("Zqneedlefirst")
    await erase(server, conversation="talk", why="law")
    assert not holds(tmp_path, "Zqneedle")
    again = await ask("Zqneedlesecond")
    assert again.output_text == "1: Zqneedlesecond"
    await server.get(f"/v1/responses/{first.id}", 404)
    await erase(server, conversation="talk", why="law")
    assert not holds(tmp_path, "Zqneedle")


async def test_a_conversation_without_a_session_is_erased_with_its_notes(server: Server, tmp_path: Path) -> None:
    conversation = await server.openai.conversations.create(metadata={"k": "Zqneedlenote"})
    assert holds(tmp_path, "Zqneedlenote")
    await erase(server, conversation=conversation.id, why="law")
    assert not holds(tmp_path, "Zqneedlenote")
    await server.get(f"/v1/conversations/{conversation.id}", 404)
    await erase(server, 404, conversation=conversation.id, why="law")


async def test_a_slug_that_has_led_elsewhere_since_takes_both_sessions_with_it_and_one_session_only_its_own(
    server: Server, tmp_path: Path
) -> None:
    for session_id, said in (("s1", "Zqneedlefirst"), ("s2", "Zqneedlesecond")):
        headers = {"X-Hermes-Session-Id": session_id}
        await server.openai.responses.create(model="m", input=said, conversation="talk", extra_headers=headers)
        await server.openai.conversations.update("talk", metadata={"of": said})
        if session_id == "s1":
            await server.openai.conversations.delete("talk")
    await erase(server, session="s1", why="law")
    assert not holds(tmp_path, "Zqneedlefirst")
    assert (await server.openai.conversations.retrieve("talk")).metadata == {"of": "Zqneedlesecond"}
    answer = await erase(server, conversation="talk", why="law")
    assert [session["id"] for session in answer["sessions"]] == ["s2"]
    assert not holds(tmp_path, "Zqneedle")


async def test_a_slug_that_has_led_to_two_of_a_users_sessions_keeps_nothing_of_either(
    server: Server, tmp_path: Path
) -> None:
    for session_id in ("s1", "s2"):
        headers = {"X-Hermes-Session-Id": session_id, "X-Hermes-User-Id": "Zqneedleada"}
        await server.openai.responses.create(model="m", input="hello", conversation="talk", extra_headers=headers)
        await server.openai.conversations.update("talk", metadata={"of": f"Zqneedle{session_id}"})
        if session_id == "s1":
            await server.openai.conversations.delete("talk")
    answer = await erase(server, user="Zqneedleada")
    assert [session["id"] for session in answer["sessions"]] == ["s1", "s2"]
    assert not holds(tmp_path, "Zqneedle")
    await server.get("/v1/conversations/talk", 404)


async def test_what_nothing_was_found_of_is_in_no_log_line(
    data: Path, upstream: Upstream, capfd: pytest.CaptureFixture[str]
) -> None:
    async with serving(data, upstream=upstream.url) as server:
        assert (await erase(server, 404, user="Zqnobody", why="law"))["code"] == "nothing_to_erase"
    assert "Zqnobody" not in "".join(capfd.readouterr())


async def test_nothing_of_another_tenant_is_erased_or_told(data: Path, upstream: Upstream) -> None:
    data.mkdir()
    acme, bravo = ({"authorization": f"Bearer {keys.add(data, name, name)}"} for name in ("acme", "bravo"))
    body = {"model": "m", "messages": [{"role": "user", "content": "Zqneedleacme"}]}
    names = {"X-Hermes-Session-Id": "s1", "X-Hermes-User-Id": "ada", "X-Hermes-Session-Key": "key"}
    wanted = [{"session": "s1"}, {"user": "ada"}, {"session_key": "key"}, {"conversation": "talk"}]
    async with serving(data, upstream=upstream.url, api_key="") as server:
        await call(server, "POST", "/v1/chat/completions", 200, json=body, headers=acme | names)
        for selection in wanted:
            await call(server, "POST", "/api/erasures", 404, json=selection | {"why": "law"}, headers=bravo)
        await call(server, "DELETE", "/api/sessions/s1?erase=1", 404, headers=bravo)
        assert holds(data, "Zqneedleacme")
        await call(server, "POST", "/api/erasures", 200, json={"user": "ada"}, headers=acme)
        assert not holds(data, "Zqneedleacme")
        (*_, last) = await recorded(data)
        assert last.event == SessionErased(ranges=((1, 3),), by="tenant acme, key acme", why="")


async def test_turns_beside_an_erasure_lose_nothing(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        for number in range(5):
            await say(server, f"old{number}", f"Zqneedleold {number}")

        async def talk(session_id: str) -> None:
            for number in range(12):
                await server.chat(f"{session_id} says {number}", session_id)

        talks = [asyncio.create_task(talk(f"new{number}")) for number in range(6)]
        erasures = [erase(server, session=f"old{number}", why="law") for number in range(5)]
        await asyncio.gather(*talks, *erasures)
        for number in range(6):
            said = contents(await server.messages(f"new{number}"))[::2]
            assert said == [f"new{number} says {turn}" for turn in range(12)]
        assert not holds(data, "Zqneedleold")
    await verify(data)
    assert sum(isinstance(entry.event, Erased) for entry in await recorded(data)) == 15


async def test_an_open_turn_is_ended_and_its_client_is_told(server: Server, upstream: Upstream, tmp_path: Path) -> None:
    upstream.gate.clear()
    body = {"model": "m", "messages": [{"role": "user", "content": "Zqneedleopen"}]}
    headers = {"X-Hermes-Session-Id": "s1"}
    at_work = asyncio.create_task(call(server, "POST", "/v1/chat/completions", 409, json=body, headers=headers))
    await upstream.wait_for_requests(1)
    await erase(server, session="s1", why="law")
    assert (await at_work)["code"] == "turn_ended"
    assert not holds(tmp_path, "Zqneedleopen")


async def test_what_is_queued_for_it_never_begins(server: Server, upstream: Upstream, tmp_path: Path) -> None:
    upstream.gate.clear()
    body = {"model": "m", "background": True, "conversation": "talk"}
    await call(server, "POST", "/v1/responses", 200, json=body | {"input": "Zqneedlefirst"})
    await upstream.wait_for_requests(1)
    queued = await call(server, "POST", "/v1/responses", 200, json=body | {"input": "Zqneedlesecond"})
    assert queued["status"] == "queued"
    await erase(server, conversation="talk", why="law")
    upstream.gate.set()
    await server.get(f"/v1/responses/{queued['id']}", 404)
    await server.get(f"/v1/responses/{queued['id']}/input_items", 404)
    assert not holds(tmp_path, "Zqneedle")
    assert len(upstream.requests) == 1


async def test_a_turn_that_was_queued_and_refused_is_erased_by_its_user_alone(
    server: Server, upstream: Upstream, tmp_path: Path
) -> None:
    upstream.gate.clear()
    body = {"model": "m", "background": True, "conversation": "talk"}
    first = await call(server, "POST", "/v1/responses", 200, json=body | {"input": "hello"})
    await upstream.wait_for_requests(1)
    ada = {"X-Hermes-User-Id": "ada"}
    queued = await call(server, "POST", "/v1/responses", 200, json=body | {"input": "Zqneedleada"}, headers=ada)
    await call(server, "POST", f"/v1/responses/{queued['id']}/cancel", 200)
    upstream.gate.set()
    answer = await erase(server, user="ada", why="law")
    assert answer["sessions"] == [{"id": "", "session_ids": [], "events": 2}]
    assert not holds(tmp_path, "Zqneedleada")
    await server.get(f"/v1/responses/{queued['id']}", 404)
    await server.get(f"/v1/responses/{first['id']}")


async def test_a_key_begins_anew_behind_an_erasure(server: Server) -> None:
    keyed = {"X-Hermes-Session-Id": "s1", "Idempotency-Key": "k"}
    body = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
    first = await call(server, "POST", "/v1/chat/completions", 200, json=body, headers=keyed)
    await erase(server, session="s1", why="law")
    again = await call(server, "POST", "/v1/chat/completions", 200, json=body, headers=keyed)
    assert again["id"] != first["id"]


async def test_what_was_recalled_from_an_erased_session_is_recalled_no_more(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        key = {"X-Hermes-Session-Key": "ada"}

        async def chat(said: str, session_id: str) -> None:
            body = {"model": "m", "messages": [{"role": "user", "content": said}]}
            named = key | {"X-Hermes-Session-Id": session_id}
            await call(server, "POST", "/v1/chat/completions", 200, json=body, headers=named)

        upstream.script = lambda _: says("noted")
        await chat("my lighthouse is called Zqneedlelight", "s1")
        await chat("what is my lighthouse called?", "s2")
        assert "Zqneedlelight" in str(upstream.messages[-1])
        await erase(server, session="s1", why="law")
        await chat("and what is my lighthouse called?", "s2")
        assert "Zqneedlelight" not in str(upstream.messages[-1])
        assert contents(await server.messages("s2"))[0] == "what is my lighthouse called?"
        assert not holds(data, "Zqneedlelight")
