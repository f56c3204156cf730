"""The digest of a transcript, by which a client is known again, and the view that finds it."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given as given_any
from hypothesis import strategies as st

from api.turns import history
from api.turns.history import Scope, beginning, digest_asked, digest_behind, extended
from api.turns.request import Names, TurnRequest
from eventstore.events import Identity, ItemRemoved, SessionDeleted, TurnFailed, lineage_stream
from eventstore.sqlite import SqliteLog
from projections import histories
from projections.rebuild import rebuild
from projections.runner import VIEWS_FILE, Runner
from projections.session import Session
from projections.snapshot import Snapshot
from projections.store import ViewStore
from projections.turn import Turn
from projections.view import Deletion
from projections.views import VIEWS
from tests.support.facts import STREAM, T0_US, assistant, completed, recorded, session_started, started, user
from tests.support.upstream import Message

START = beginning(Scope())
CALL: Message = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a":1,"b":[2]}'}}


def digest(*messages: Message) -> bytes:
    return extended(START, [msgspec.json.encode(message) for message in messages])


def say(content: Any, role: str = "assistant", **more: Any) -> Message:
    return {"role": role, "content": content} | more


def called(arguments: str) -> Message:
    return say(None, tool_calls=[CALL | {"function": {"name": "f", "arguments": arguments}}])


IMAGE = {"type": "image_url", "image_url": {"url": "data:x"}}
SAME = {
    "white space": (say("hi there"), say("  hi there\n")),
    "a text in parts": (say("ab"), say([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])),
    "fields that are dropped": (
        say("hi", refusal=None, annotations=[], audio=None, function_call=None, reasoning="hm", reasoning_content="hm"),
        say("hi"),
    ),
    "no name": (say("hi", "user", name=None), say("hi", "user")),
    "nothing said beside a call": (called("{}"), called("{}") | {"content": ""}),
    "no content beside a call": (called("{}"), {k: v for k, v in called("{}").items() if k != "content"}),
    "arguments spelled otherwise": (called('{"a":1,"b":[2]}'), called('{ "b": [2], "a": 1 }')),
    "no calls": (say("hi", tool_calls=[]), say("hi")),
    "a call's type": (
        called("{}"),
        say(None, tool_calls=[{k: v for k, v in CALL.items() if k != "type"}]) | called("{}"),
    ),
    "a refusal as a part": (say(None), say([{"type": "refusal", "refusal": "no"}])),
    "a tool's name": (say("7", "tool", tool_call_id="c1", name="f"), say("7", "tool", tool_call_id="c1")),
}
DIFFERENT = {
    "text": (say("hi"), say("ho")),
    "role": (say("hi"), say("hi", "user")),
    "white space inside": (say("a b"), say("a  b")),
    "a call's id": (
        called("{}"),
        say(None, tool_calls=[CALL | {"id": "c2", "function": {"name": "f", "arguments": "{}"}}]),
    ),
    "a call's arguments": (called('{"a":1}'), called('{"a":2}')),
    "arguments that are no JSON": (called('{"a":1'), called('{"a":1}')),
    "which call is answered": (say("7", "tool", tool_call_id="c1"), say("7", "tool", tool_call_id="c2")),
    "who speaks": (say("hi", "user", name="ada"), say("hi", "user", name="bob")),
    "an image": (say([IMAGE], "user"), say([IMAGE | {"image_url": {"url": "data:y"}}], "user")),
    "an image's place": (
        say([IMAGE, {"type": "text", "text": "a"}], "user"),
        say([{"type": "text", "text": "a"}, IMAGE], "user"),
    ),
    "something and nothing": (say("x"), say("")),
}


@pytest.mark.parametrize(("one", "other"), SAME.values(), ids=SAME.keys())
def test_what_clients_change_on_the_way_does_not_count(one: Message, other: Message) -> None:
    assert digest(one) == digest(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT.values(), ids=DIFFERENT.keys())
def test_what_was_said_counts(one: Message, other: Message) -> None:
    assert digest(one) != digest(other)


def test_a_text_with_calls_is_the_same_in_one_message_and_in_two() -> None:
    assert digest(say("let me see", tool_calls=[CALL])) == digest(say("let me see"), say(None, tool_calls=[CALL]))


@pytest.mark.parametrize(
    "data", [b"", b"[]", b'"x"', b"{", b'{"role":"\xff"}', b'{"content":[1,null,{}]}', b"[" * 5_000]
)
def test_anything_that_was_ever_stored_has_a_digest(data: bytes) -> None:
    assert len(extended(START, [data])) == history.DIGEST_BYTES
    odd = msgspec.json.encode(say(None, tool_calls=[1, {"function": 2}, {"function": {"arguments": 3}}]))
    assert len(extended(START, [odd])) == history.DIGEST_BYTES


@given_any(st.lists(st.text(max_size=5), min_size=1, max_size=8), st.data())
def test_it_depends_on_the_sequence_of_messages_alone(texts: list[str], data: st.DataObject) -> None:
    messages = [user(text) if number % 2 else assistant(text) for number, text in enumerate(texts)]
    cut = data.draw(st.integers(0, len(messages)))
    assert extended(extended(START, messages[:cut]), messages[cut:]) == extended(START, messages)
    assert extended(START, messages[:-1]) != extended(START, messages)
    assert extended(START, [*messages[1:], messages[0]]) != extended(START, messages) or len(set(messages)) == 1


def test_equal_words_of_two_users_or_keys_have_different_digests() -> None:
    scopes = [Scope(), Scope("ada"), Scope("bob"), Scope("", "ada"), Scope("ada", "k"), Scope("adak")]
    assert len({beginning(scope) for scope in scopes}) == len(scopes)


def test_items_of_the_responses_api_have_the_digest_of_the_messages_they_were_stored_as() -> None:
    spoken = (user("7?"), msgspec.json.encode(say("let me see", tool_calls=[CALL, CALL | {"id": "c2"}])))
    resent = (
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "7?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {
            "type": "message",
            "id": "msg_1",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "let me see"}],
        },
        *(
            {"type": "function_call", "id": f"fc_{c}", "call_id": c, "name": "f", "arguments": '{"b": [2], "a": 1}'}
            for c in ("c1", "c2")
        ),
        {"type": "function_call_output", "call_id": "c1", "output": "new"},
    )
    fields: dict[str, Any] = {"tenant": "acme", "api": "responses", "names": Names(), "model": "m"}
    request = TurnRequest(items=(), opening=tuple(map(msgspec.json.encode, resent)), history=len(resent) - 1, **fields)
    assert digest_asked(request) == extended(START, spoken)


def test_a_transcript_from_before_there_were_digests_is_continued_without_one() -> None:
    old = Turn(started("t1"), T0_US, completed("t1"), T0_US)
    assert digest_behind(old, Scope(), started("t2"), (assistant("hi"),)) == b""
    new = Turn(started("t1"), T0_US, completed("t1", history_digest=START), T0_US)
    assert digest_behind(new, Scope(), started("t2"), (assistant("hi"),)) == extended(
        START, (user("hello"), assistant("hi"))
    )


def test_a_turns_own_user_and_key_come_before_its_sessions() -> None:
    session = Session.fold(STREAM, recorded([session_started(session_key="k", identity=Identity(user_id="ada"))]))
    assert history.scope_of(session, started("t1")) == Scope("ada", "k")
    assert history.scope_of(session, started("t1", session_key="", identity=Identity(user_id="bob"))) == Scope(
        "bob", ""
    )


def test_completed_turns_are_found_by_their_digest_and_no_others(tmp_path: Path) -> None:
    failed = TurnFailed(turn_id="t2", code="x", message="y", status=0)
    events = recorded(
        [
            *(session_started(), started("t1"), completed("t1", history_digest=b"d1"), started("t2"), failed),
            *(started("t3"), completed("t3")),
        ]
    )
    assert rows(tmp_path / "views.db", events) == [(3, b"d1", "acme", "s1", "t1")]


def test_a_turn_that_lost_an_item_and_those_behind_it_are_found_no_more(tmp_path: Path) -> None:
    turns = [event for n in "123" for event in (started(f"t{n}"), completed(f"t{n}", history_digest=f"d{n}".encode()))]
    for turn_id, left in (("t1", []), ("t2", [b"d1"]), ("t3", [b"d1", b"d2"]), ("inherited", [])):
        events = recorded([session_started(), *turns, ItemRemoved(turn_id=turn_id, item_id="x")])
        path = tmp_path / f"{turn_id}.db"
        assert [digest for _, digest, *_ in rows(path, events, [Deletion(events[-1], events[:-1])])] == left


async def test_candidates_are_the_tenants_own_newest_first_and_none_that_was_deleted(data: Path) -> None:
    log = await SqliteLog.open(data)
    for tenant, root_id in (("acme", "s1"), ("acme", "s2"), ("acme", "s3"), ("bravo", "s1")):
        turn = (session_started(root_id), started(f"t-{root_id}"), completed(f"t-{root_id}", history_digest=b"d"))
        await log.append(lineage_stream(tenant, root_id), 0, turn)
    await log.append(lineage_stream("acme", "s2"), 3, (SessionDeleted(),))
    views = await Runner.start(log, data / VIEWS_FILE, VIEWS)
    assert await views.fetch(histories.CANDIDATES, (b"d", "acme", 10)) == [("s3", "t-s3"), ("s1", "t-s1")]
    assert await views.fetch(histories.CANDIDATES, (b"d", "acme", 1)) == [("s3", "t-s3")]
    assert await views.fetch(histories.CANDIDATES, (b"d", "bravo", 10)) == [("s1", "t-s1")]
    assert await views.fetch(histories.CANDIDATES, (b"e", "acme", 10)) == []
    await views.stop()
    (await rebuild(log, data / "rebuilt.db", VIEWS)).close()
    live, rebuilt = (Snapshot(data / name, VIEWS) for name in (VIEWS_FILE, "rebuilt.db"))
    assert list(live.rows()) == list(rebuilt.rows())
    live.close()
    rebuilt.close()
    await log.close()


def rows(path: Path, events: Any, deletions: Any = ()) -> list[tuple[object, ...]]:
    store = ViewStore.create(path, VIEWS)
    store.apply(events, deletions)
    store.close()
    snapshot = Snapshot(path, VIEWS)
    found = [row for name, row in snapshot.rows() if name == "histories"]
    snapshot.close()
    return found
