"""The stored bytes of facts: pinned by golden files, read back whole, and refused clearly where they are unknown."""

from pathlib import Path

import msgspec
import pytest

from eventstore.events import (
    STORED_TYPES,
    CompressionRotated,
    ConversationAdvanced,
    ConversationCreated,
    ConversationDeleted,
    ConversationUpdated,
    Event,
    ForkPoint,
    Identity,
    ItemRemoved,
    ItemsAdded,
    Recalled,
    ResponseAnnotated,
    ResponseEvicted,
    SessionAnnotated,
    SessionDeleted,
    SessionEnded,
    SessionErased,
    SessionRenamed,
    SessionStarted,
    TurnCancelled,
    TurnCompleted,
    TurnDequeued,
    TurnFailed,
    TurnQueued,
    TurnRestarted,
    TurnStarted,
    conversation_stream,
    decode,
    encode,
    lineage_stream,
    parse_stream,
    type_name,
    why_not,
)

GOLDEN = Path(__file__).parent / "golden"

EXAMPLES: list[Event] = [
    SessionStarted(
        session_id="s2",
        forked_from=ForkPoint(session_id="s1", root_id="s1", turn_id="t1"),
        session_key="agent:main",
        identity=Identity(user_id="u", user_name="Ada", chat_id="c", chat_name="C", chat_type="dm", thread_id="t"),
    ),
    TurnStarted(
        turn_id="t1",
        api="responses",
        model="gpt-x",
        items=(b'{"role":"user","content":"hi"}',),
        instructions=(b'{"role":"system","content":"be brief"}',),
        parameters=b'{"temperature":0.5}',
        stream=True,
        owner="o1",
        lease_ms=630_000,
        conversation="slug",
        previous_response_id="resp_t0",
        idempotency_key="key-1",
        body_digest=b"\x01\x02",
        session_key="other",
        identity=Identity(user_id="v"),
    ),
    TurnCompleted(
        turn_id="t1",
        output=(b'{"role":"assistant","content":"hello"}',),
        finish_reason="stop",
        usage=b'{"prompt_tokens":1}',
        model="gpt-x-2026",
        alternatives=(b'{"role":"assistant","content":"hallo"}',),
        extra=b'{"system_fingerprint":"fp"}',
        delta_lengths=(2, 3),
    ),
    TurnFailed(turn_id="t1", code="upstream_timeout", message="too slow", status=0, output=(b"{}",)),
    TurnCancelled(turn_id="t1", reason="disconnect", output=(b"{}",)),
    ConversationAdvanced(conversation="slug", session_id="s1", turn_id="t1"),
    ResponseEvicted(turn_id="t1", reason="deleted"),
    ConversationCreated(name="slug", session_id="s1"),
    TurnRestarted(turn_id="t1", owner="o2", lease_ms=630_000),
    CompressionRotated(
        old_session_id="s1",
        session_id="s2",
        summary=b'{"role":"assistant","content":"so far"}',
        head=3,
        tail=4,
        first_kept_turn_id="t7",
        trigger="threshold",
        tokens_before=64_001,
        tokens_after=9_000,
        summariser="gpt-x",
        usage=b'{"prompt_tokens":1}',
        title="X #2",
    ),
    SessionRenamed(title="X"),
    SessionAnnotated(metadata=b'{"a":"b"}'),
    SessionEnded(reason="user_exit"),
    SessionDeleted(),
    ResponseAnnotated(turn_id="t1", metadata=b'{"a":"b"}'),
    ItemsAdded(turn_id="t2", items=(b'{"type":"message","role":"user","content":"hi"}',)),
    ItemRemoved(turn_id="t2", item_id="msg_t2_i0", base=3, rest=b'{"role":"assistant","content":"so"}'),
    ConversationUpdated(metadata=b'{"a":"b"}'),
    ConversationDeleted(),
    SessionErased(ranges=((1, 4), (9, 9)), by="tenant acme", why="asked for by the user"),
    TurnQueued(
        turn_id="t3",
        api="responses",
        model="gpt-x",
        items=(
            b'{"role":"user","content":"a"}',
            b'{"role":"assistant","content":"b"}',
            b'{"role":"user","content":"c"}',
        ),
        new_items=1,
        history=2,
        instructions=(b'{"role":"system","content":"brief"}',),
        parameters=b'{"temperature":0.5}',
        stream=True,
        session_id="s1",
        conversation="slug",
        previous_response_id="resp_t0",
        session_key="k",
        identity=Identity(user_id="u"),
        idempotency_key="key-1",
        body_digest=b"\x01\x02",
        compact_threshold_tokens=1_000,
        uses_memory=False,
    ),
    TurnDequeued(turn_id="t3", reason="begun"),
]
# Fields that were added later, with a golden file of their own: what was stored without them reads on as it was.
LATER: dict[str, Event] = {
    "SessionStarted-3": SessionStarted(
        session_id="s4", forked_from=ForkPoint(session_id="s1", root_id="s1", turn_id="t1", messages=4)
    ),
    "SessionStarted-2": SessionStarted(
        session_id="s3", source="import", title="X", model="gpt-x", system_prompt="be kind"
    ),
    "TurnStarted-2": TurnStarted(
        turn_id="t1",
        api="runs",
        model="gpt-x",
        items=(b'{"role":"user","content":"hi"}',),
        owner="o1",
        lease_ms=630_000,
        idempotency_key="key-1",
        idempotency_scope="chat session:s1",
        recalled=(Recalled(root_id="s0", turn_id="t0", message=1, first=2, length=30),),
        uncompressed="upstream_unreachable",
        background=True,
    ),
    "TurnStarted-3": TurnStarted(
        turn_id="t1",
        api="chat",
        model="local/gpt-x",
        items=(b'{"role":"user","content":"hi"}',),
        owner="o1",
        lease_ms=630_000,
        upstream_api="responses",
        upstream_model="gpt-x",
        sent_alone=1,
    ),
    "TurnCompleted-4": TurnCompleted(turn_id="t1", output=(b"{}",), finish_reason="stop", resent=True),
    "TurnCompleted-2": TurnCompleted(turn_id="t1", output=(b"{}",), finish_reason="stop", history_digest=b"\x01\x02"),
    "TurnFailed-2": TurnFailed(turn_id="t1", code="c", message="m", status=500, output=(b"{}",), delta_lengths=(1, 2)),
    "ConversationCreated-2": ConversationCreated(name="conv_1", session_id="s1", metadata=b'{"a":"b"}'),
    "TurnCompleted-3": TurnCompleted(
        turn_id="t1",
        output=(b"{}",),
        finish_reason="stop",
        delta_lengths=(0, 4),
        delta_fields=(2, 0),
        delta_tokens=(0, 1),
    ),
    "TurnFailed-3": TurnFailed(
        turn_id="t1", code="c", message="m", status=500, delta_lengths=(3,), delta_fields=(2,), delta_tokens=(1,)
    ),
    "TurnCancelled-3": TurnCancelled(
        turn_id="t1", reason="client", delta_lengths=(3,), delta_fields=(2,), delta_tokens=(1,)
    ),
    "TurnFailed-4": TurnFailed(turn_id="t1", code="c", message="m", status=500, extra=b'{"logprobs":null}'),
    "TurnCancelled-4": TurnCancelled(turn_id="t1", reason="client", extra=b'{"logprobs":null}'),
    "TurnQueued-2": TurnQueued(
        turn_id="t3", api="responses", model="m", items=(b"{}",), new_items=1, conversation="slug", root_id="s1"
    ),
    "TurnCancelled-2": TurnCancelled(turn_id="t1", reason="client", output=(b"{}",), delta_lengths=(1, 2)),
}
NAMED = [*((type_name(event), event) for event in EXAMPLES), *LATER.items()]
NAMES = [name for name, _ in NAMED]


def test_there_is_an_example_of_every_type() -> None:
    assert {type(event) for event in EXAMPLES} == set(STORED_TYPES)


@pytest.mark.parametrize(("name", "event"), NAMED, ids=NAMES)
def test_the_stored_bytes_of_a_fact_never_change(name: str, event: Event) -> None:
    golden = GOLDEN / f"{name}.msgpack"
    assert encode(event) == golden.read_bytes(), "facts are stored for good: add fields with defaults, change nothing"


@pytest.mark.parametrize(("name", "event"), NAMED, ids=NAMES)
def test_a_golden_file_is_read_back_whole(name: str, event: Event) -> None:
    golden = (GOLDEN / f"{name}.msgpack").read_bytes()
    assert decode(golden) == event


@pytest.mark.parametrize("event", EXAMPLES, ids=type_name)
def test_any_messagepack_reader_can_show_a_fact(event: Event) -> None:
    plain = msgspec.msgpack.decode(encode(event))
    assert plain["type"] == type_name(event)


def test_every_fact_is_longer_than_a_digest_with_its_salt() -> None:
    shortest: list[Event] = [ResponseEvicted(turn_id="", reason="lru"), SessionDeleted()]
    assert min(len(encode(event)) for event in shortest) > 16


def test_fields_that_a_later_version_adds_are_passed_over() -> None:
    later = msgspec.msgpack.encode({"type": "ResponseEvicted", "turn_id": "t", "reason": "lru", "added_later": 1})
    assert decode(later) == ResponseEvicted(turn_id="t", reason="lru")


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("TurnStarted:2", {"type": "TurnStarted:2"}, "TurnStarted in version 2; this turnlog reads version 1"),
        ("SessionDreamt", {"type": "SessionDreamt"}, "unknown event type 'SessionDreamt'"),
        ("TurnStarted", {"type": "TurnStarted"}, "its data is not a TurnStarted"),
    ],
)
def test_what_can_not_be_read_says_what_it_would_take(name: str, data: dict[str, object], said: str) -> None:
    assert said in (why_not(name, msgspec.msgpack.encode(data)) or "")


def test_a_conversations_name_may_hold_slashes() -> None:
    assert parse_stream(conversation_stream("acme", "a/b/c")) == ("conversation", "acme", "a/b/c")
    assert parse_stream(lineage_stream("acme", "s1")) == ("lineage", "acme", "s1")
