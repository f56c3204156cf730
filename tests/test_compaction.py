"""POST /v1/responses/compact: a shorter input that stands for a conversation, and what becomes of it."""

import base64
import zlib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai import APIStatusError

from api.turns.summary import SUMMARY_CHARACTERS, message_of
from api.wire.item_checks import items_of
from api.wire.unpacked import CHARACTERS_MAX, TEXT_BYTES_MAX, Unpacked
from eventstore.events import TurnStarted
from projections import compaction
from projections.messages import fields, messages_of, text_of
from projections.turn import Turn
from tests.support.api import call
from tests.support.server import Server, serving
from tests.support.upstream import Upstream, echo, refuses, says

SUMMARY = "Ada keeps a lighthouse."


def summarises(body: dict[str, Any]) -> Any:
    """The scripted model: a summary where one is asked for, else an echo."""
    is_asked = "You compress a conversation" in str(body["messages"][0]["content"])
    return says(SUMMARY) if is_asked else echo(body)


def message(role: str, text: str) -> Any:
    return {"type": "message", "role": role, "content": text}


TALK = [message("user", "I am Ada."), message("assistant", "Hello Ada."), message("user", "I keep a lighthouse.")]


async def compacted(server: Server, **body: Any) -> dict[str, Any]:
    return await call(server, "POST", "/v1/responses/compact", 200, json={"model": "m"} | body)


# The SDK reads a user's message as a model's, and complains of itself as it sends that back.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
async def test_the_sdk_compacts_an_input_and_goes_on_from_what_it_is_given(server: Server, upstream: Upstream) -> None:
    upstream.script = summarises
    window = await server.openai.responses.compact(model="m", input=TALK)
    assert window.object == "response.compaction"
    assert [item.type for item in window.output] == ["message", "message", "compaction"]
    assert window.usage.total_tokens == 18

    items: list[Any] = [*window.output, message("user", "Who am I?")]
    answer = await server.openai.responses.create(model="m", input=items)
    sent = upstream.messages[-1]
    assert [said["role"] for said in sent] == ["user", "user", "assistant", "user"]
    assert [said["content"] for said in sent[:2]] == ["I am Ada.", "I keep a lighthouse."]
    assert SUMMARY in sent[2]["content"]
    assert answer.output_text == "4: Who am I?"

    again = await server.openai.responses.create(model="m", input="And now?", previous_response_id=answer.id)
    assert again.output_text == "6: And now?"


async def test_the_summary_is_asked_for_in_the_words_of_every_summary(server: Server, upstream: Upstream) -> None:
    upstream.script = summarises
    await compacted(server, input=TALK, instructions="Speak like a sailor.")
    asked = upstream.messages[0]
    assert "You compress a conversation" in asked[0]["content"]
    for said in ("I am Ada.", "Hello Ada.", "I keep a lighthouse.", "Speak like a sailor."):
        assert said in asked[1]["content"]


async def test_a_stored_conversation_is_compacted_and_stays_as_it_is(server: Server, upstream: Upstream) -> None:
    upstream.script = summarises
    first = await server.openai.responses.create(model="m", input="I am Ada.")
    second = await server.openai.responses.create(model="m", input="I sail.", previous_response_id=first.id)
    before = await server.get("/api/sessions")
    window = await compacted(server, previous_response_id=second.id, input=[message("user", "And I row.")])
    texts = [part["text"] for item in window["output"][:-1] for part in item["content"]]
    assert texts == ["I am Ada.", "I sail.", "And I row."]
    assert await server.get("/api/sessions") == before
    third = await server.openai.responses.create(model="m", input="On.", previous_response_id=second.id)
    assert third.output_text == "5: On."


async def test_a_conversation_is_compacted_by_its_name(server: Server, upstream: Upstream) -> None:
    upstream.script = summarises
    await server.openai.responses.create(model="m", input="I am Ada.", conversation="home")
    window = await compacted(server, conversation="home")
    assert [item["type"] for item in window["output"]] == ["message", "compaction"]


async def test_what_was_compacted_is_compacted_again(server: Server, upstream: Upstream) -> None:
    upstream.script = summarises
    window = await compacted(server, input=TALK)
    again = await compacted(server, input=[*window["output"], message("user", "I like trains.")])
    assert [item["type"] for item in again["output"]] == ["message"] * 3 + ["compaction"]
    assert SUMMARY in upstream.messages[1][1]["content"]


async def test_a_summary_that_a_rotation_has_made_is_nothing_that_a_user_said(data: Path, upstream: Upstream) -> None:
    upstream.script = summarises
    async with serving(data, upstream=upstream.url) as server:
        for number in range(8):
            await server.chat(f"{number} " + "word " * 50, "s-1")
        await call(server, "POST", "/api/sessions/s-1/compress", 200, json={})
        headers = {"X-Hermes-Session-Id": "s-1"}
        body = {"model": "m", "input": "On."}
        window = await call(server, "POST", "/v1/responses/compact", 200, json=body, headers=headers)
    texts = [part["text"] for item in window["output"][:-1] for part in item["content"]]
    assert not any(SUMMARY in text for text in texts)
    assert texts[-1] == "On."


async def test_pictures_and_files_are_kept_as_they_were_sent(server: Server) -> None:
    content = [
        {"type": "input_text", "text": "look"},
        {"type": "input_image", "image_url": "https://a.example/b.png", "detail": "high"},
        {"type": "input_file", "filename": "a.txt", "file_data": "data:text/plain;base64,aGk="},
    ]
    window = await compacted(server, input=[{"type": "message", "role": "user", "content": content}])
    assert window["output"][0]["content"] == content
    assert set(window["output"][0]) == {"id", "type", "status", "role", "content"}


async def test_what_a_model_server_makes_no_summary_of_gets_a_plain_one(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: refuses(400)
    window = await compacted(server, input=TALK)
    assert "Hello Ada." in compaction.opened(window["output"][-1]["encrypted_content"])
    assert window["usage"]["total_tokens"] == 0


@pytest.mark.parametrize(("refused", "status"), [(401, 502), (429, 429), (503, 502)])
async def test_a_model_server_out_of_reach_is_told(
    server: Server, upstream: Upstream, refused: int, status: int
) -> None:
    upstream.script = lambda _: refuses(refused)
    await call(server, "POST", "/v1/responses/compact", status, json={"model": "m", "input": TALK})


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"input": "hi"}, 400, "model"),
        ({"model": None, "input": "hi"}, 400, "model"),
        ({"model": "", "input": "hi"}, 400, "model"),
        ({"model": "m"}, 400, "input"),
        ({"model": "m", "input": []}, 400, "input"),
        ({"model": "m", "input": ""}, 400, "input"),
        ({"model": "m", "input": 5}, 400, "input"),
        ({"model": "m", "input": [{"type": "message", "role": "user"}]}, 400, "input[0].content"),
        ({"model": "m", "input": "hi", "instructions": 5}, 400, "instructions"),
        ({"model": "m", "input": "hi", "previous_response_id": 5}, 400, "previous_response_id"),
        ({"model": "m", "previous_response_id": "resp_1", "conversation": "home"}, 400, "conversation"),
        ({"model": "m", "previous_response_id": "resp_nowhere"}, 404, "previous_response_id"),
        ({"model": "m", "conversation": "conv_nowhere"}, 404, "conversation"),
        ({"model": "m", "conversation": "nothing-was-said"}, 400, None),
    ],
)
async def test_what_can_not_be_compacted_is_refused_by_name(
    server: Server, body: dict[str, Any], status: int, param: str | None
) -> None:
    error = await call(server, "POST", "/v1/responses/compact", status, json=body)
    assert error["param"] == param


async def test_the_sdk_raises_what_is_refused(server: Server) -> None:
    with pytest.raises(APIStatusError) as refused:
        await server.openai.responses.compact(model="m", previous_response_id="resp_nowhere")
    assert refused.value.code == "previous_response_not_found"


# The item


@pytest.mark.parametrize("content", ["", "gAAAA-of-another-server", "tlc1_", "tlc1_!!!", "tlc1_aGVsbG8=", "tlc1_é"])
async def test_a_compaction_that_is_not_ours_is_refused(server: Server, content: str) -> None:
    item = {"type": "compaction", "encrypted_content": content}
    body = {"model": "m", "input": [message("user", "hi"), item]}
    error = await call(server, "POST", "/v1/responses", 400, json=body)
    assert (error["param"], error["code"]) == ("input[1].encrypted_content", "invalid_encrypted_content")


async def test_a_compaction_without_content_is_refused(server: Server) -> None:
    body = {"model": "m", "input": [{"type": "compaction"}, message("user", "hi")]}
    assert (await call(server, "POST", "/v1/responses", 400, json=body))["param"] == "input[0].encrypted_content"


async def test_a_window_that_is_sent_to_a_session_adds_only_what_is_new(server: Server, upstream: Upstream) -> None:
    upstream.script = summarises
    await server.chat("I am Ada.", "s-1")
    window = await compacted(server, input=TALK)
    headers = {"X-Hermes-Session-Id": "s-1"}
    body = {"model": "m", "input": [*window["output"], message("user", "On.")]}
    await call(server, "POST", "/v1/responses", 200, json=body, headers=headers)
    assert [said["content"] for said in upstream.messages[-1]][2:] == ["On."]


@given(st.text(max_size=200))
def test_what_is_sealed_is_opened_again(text: str) -> None:
    assert compaction.opened(compaction.sealed(text)) == text


@given(st.integers(min_value=0, max_value=60))
def test_what_was_cut_or_garbled_is_not_opened(place: int) -> None:
    whole = compaction.sealed("Ada keeps a lighthouse, and has done so for years.")
    assert compaction.opened(whole[:place]) == ""
    if place >= len(compaction.VERSION) + 4:
        assert compaction.opened(whole[:place] + ("A" if whole[place] != "A" else "B") + whole[place + 1 :]) == ""


@pytest.mark.parametrize("content", [None, 5, "", "tlc1_", "tlc2_eJwDAAAAAAE="])
def test_what_is_no_compaction_opens_to_nothing(content: object) -> None:
    assert compaction.opened(content) == ""


def test_a_compaction_does_not_swell_beyond_its_limit() -> None:
    assert compaction.opened(compaction.sealed("x" * compaction.TEXT_BYTES_MAX)) != ""
    assert compaction.opened(compaction.sealed("x" * (compaction.TEXT_BYTES_MAX + 1))) == ""


def test_the_longest_summary_is_within_the_limit_of_one() -> None:
    longest = text_of(fields(message_of("assistant", "𝄞" * 20_000, SUMMARY_CHARACTERS[1])).get("content"))
    Unpacked().check(compaction.sealed(longest), "input", "input[0]")


def packed(text: str) -> Any:
    return {"type": "compaction", "encrypted_content": compaction.sealed(text)}


LONG = packed("x" * TEXT_BYTES_MAX)
TOO_MANY = [message("user", "hi"), *[LONG] * (CHARACTERS_MAX // TEXT_BYTES_MAX + 1)]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"model": "m", "input": TOO_MANY}),
        ("/v1/responses", {"model": "m", "input": TOO_MANY[:10], "conversation_history": TOO_MANY[:10]}),
        ("/v1/responses/compact", {"model": "m", "input": TOO_MANY}),
        ("/v1/responses/input_tokens", {"model": "m", "input": TOO_MANY}),
        ("/v1/conversations", {"items": TOO_MANY}),
        ("/v1/conversations/home/items", {"items": TOO_MANY}),
    ],
)
async def test_compactions_that_hold_too_much_in_all_are_refused(
    server: Server, path: str, body: dict[str, Any]
) -> None:
    await server.openai.responses.create(model="m", input="hi", conversation="home")
    error = await call(server, "POST", path, 400, json=body)
    lists = "conversation_history" if "conversation_history" in body else "items" if "items" in body else "input"
    assert (error["param"], error["code"]) == (lists, "string_above_max_length")
    assert "Send the newest alone" in error["message"]


async def test_compactions_that_hold_too_much_are_refused_over_a_websocket(server: Server) -> None:
    async with server.http.ws_connect("/v1/responses") as socket:
        await socket.send_json({"type": "response.create", "model": "m", "input": TOO_MANY})
        told = await socket.receive_json(timeout=10)
    assert (told["type"], told["status"], told["error"]["param"]) == ("error", 400, "input")


async def test_several_compactions_within_the_limit_are_taken(server: Server, upstream: Upstream) -> None:
    await server.openai.responses.create(model="m", input=[*TOO_MANY[:-1], message("user", "On.")])
    assert len(upstream.messages[-1]) == len(TOO_MANY)


async def test_one_that_is_longer_than_any_that_is_made_here_is_refused(server: Server) -> None:
    body = {"model": "m", "input": [packed("x" * (TEXT_BYTES_MAX + 1)), message("user", "hi")]}
    assert (await call(server, "POST", "/v1/responses", 400, json=body))["code"] == "invalid_encrypted_content"


def test_one_that_was_stored_under_the_earlier_limit_still_reads() -> None:
    (made,) = messages_of("responses", (msgspec.json.encode(packed("x" * 150_000)),))
    assert len(fields(made)["content"]) == 150_000


def test_a_turn_weighs_what_its_compactions_are_unpacked_to() -> None:
    item = msgspec.json.encode(packed("x" * 50_000))
    turn = Turn(TurnStarted(turn_id="t1", api="responses", model="m", items=(item,), owner="", lease_ms=0), 1)
    assert len(item) < 1_000
    assert 50_000 < turn.weight_bytes < 55_000


def test_a_compaction_is_stored_with_its_type_spelled_plainly() -> None:
    raw = msgspec.json.encode(packed("hi")).replace(b'"compaction"', b'"\\u0063ompaction"')
    raw = raw.replace(b"{", b'{"more":%d,' % 10**40, 1)
    ((data, item),) = items_of([msgspec.Raw(raw)], "input")
    assert item.type == "compaction"
    assert b'"compaction"' not in raw
    assert b'"compaction"' in data


def test_what_stands_behind_a_compaction_is_not_taken() -> None:
    packed = zlib.compress(b"hello") + b"more"
    assert compaction.opened(compaction.VERSION + base64.urlsafe_b64encode(packed).decode()) == ""


def test_a_compaction_is_one_message_and_an_unreadable_one_none() -> None:
    item = msgspec.json.encode({"type": "compaction", "encrypted_content": compaction.sealed("the summary")})
    unreadable = msgspec.json.encode({"type": "compaction", "encrypted_content": "?"})
    (made,) = messages_of("responses", (item, unreadable))
    assert msgspec.json.decode(made) == {"role": "assistant", "content": "the summary"}
