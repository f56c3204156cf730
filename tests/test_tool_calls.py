"""Tool calls and their outputs, and ids of items: what does not fit in behind what was said is refused."""

from functools import partial
from typing import Any

import msgspec
import openai
import pytest

from api.models.model import Answer
from api.turns import decide, decide_late
from api.turns.decide import Begin
from api.turns.decide_late import Late
from api.turns.refusals import DuplicateItem, OutputWithoutCall, UnansweredCall
from api.turns.request import Names, TurnRequest
from eventstore.events import CompressionRotated, Event, ItemRemoved, ItemsAdded, TurnCompleted, TurnFailed, TurnStarted
from projections.session import Session
from tests.support.api import call as call_route
from tests.support.dialogue import answering
from tests.support.facts import STREAM, T0_US, assistant, completed, recorded, session_started, started, user
from tests.support.server import Server
from tests.support.spec import Decision
from tests.support.upstream import Upstream, calls, says

Item = dict[str, Any]
HELLO: Item = {"type": "message", "role": "user", "content": "hello"}
STARTED = session_started()


def function_call(call_id: str = "c1", **more: Any) -> Item:
    return {"type": "function_call", "call_id": call_id, "name": "look", "arguments": "{}"} | more


def output(call_id: str = "c1", **more: Any) -> Item:
    return {"type": "function_call_output", "call_id": call_id, "output": "seen"} | more


def custom_call(call_id: str = "c1") -> Item:
    return {"type": "custom_tool_call", "call_id": call_id, "name": "sh", "input": "ls"}


def custom_output(call_id: str = "c1") -> Item:
    return {"type": "custom_tool_call_output", "call_id": call_id, "output": "seen"}


def encoded(*items: Item) -> tuple[bytes, ...]:
    return tuple(map(msgspec.json.encode, items))


def said_with_calls(turn_id: str, *call_ids: str, kind: str = "function") -> TurnCompleted:
    """A turn in which the model asked for tools."""
    made = [{"id": call_id, "type": kind, kind: {"name": "look", "arguments": "{}"}} for call_id in call_ids]
    message = msgspec.json.encode({"role": "assistant", "content": None, "tool_calls": made})
    return TurnCompleted(turn_id=turn_id, output=(message,), finish_reason="tool_calls")


def brought(turn_id: str, *items: Item) -> TurnStarted:
    """A Responses turn with this input."""
    return msgspec.structs.replace(started(turn_id, api="responses"), items=encoded(*items))


def request(*items: Item, opening: tuple[Item, ...] = (), api: Any = "responses") -> TurnRequest:
    new = encoded(*items)
    return TurnRequest(tenant="acme", api=api, names=Names(), model="m", items=new, opening=encoded(*opening) + new)


def command(asked: TurnRequest) -> Begin:
    return Begin(
        request=asked,
        turn_id="t9",
        session_id="s1",
        owner="me",
        lease_ms=60_000,
        now_us=T0_US,
        is_gone=lambda _turn: False,
    )


def begin(*items: Item, **more: Any) -> Decision:
    """The command to open a turn with these new items."""
    return partial(decide.begin, command=command(request(*items, **more)))


CALLED = (STARTED, started("t1"), said_with_calls("t1", "c1"))
ANSWERED = (*CALLED, brought("t2", output()), completed("t2"))
PLAIN = (STARTED, started("t1"), completed("t1"))
ROTATED = CompressionRotated(
    old_session_id="s1",
    session_id="s2",
    summary=user("summary"),
    head=0,
    tail=2,
    trigger="manual",
    tokens_before=9,
    tokens_after=1,
    summariser="m",
)


def refusal_of(past: tuple[Event, ...], decision: Decision) -> str:
    """How the decision is refused, in its words; empty where it is not."""
    try:
        decision(Session.fold(STREAM, recorded(past)))
    except (OutputWithoutCall, UnansweredCall, DuplicateItem) as refusal:
        return f"{type(refusal).__name__}: {refusal}"
    return ""


NO_CALL = "OutputWithoutCall: No tool call found for function call output with call_id c1."
NO_CUSTOM_CALL = "OutputWithoutCall: No tool call found for custom tool call output with call_id c1."
NO_OUTPUT = "UnansweredCall: No tool output found for function call c1."
NO_CUSTOM_OUTPUT = "UnansweredCall: No tool output found for custom tool call c1."


def duplicate(item_id: str) -> str:
    return (
        f"DuplicateItem: Duplicate item found with id {item_id}. Remove duplicate items from your input and try again."
    )


REFUSED: dict[str, tuple[tuple[Event, ...], Decision, str]] = {
    "an output in a session without calls": (PLAIN, begin(output()), NO_CALL),
    "an output in a new session": ((), begin(output()), NO_CALL),
    "an output before its call": ((), begin(output(), function_call(), output()), NO_CALL),
    "a custom tool's output without a call": (PLAIN, begin(custom_output()), NO_CUSTOM_CALL),
    "an output of another call": (CALLED, begin(output(), output("c2")), NO_CALL.replace("c1", "c2")),
    "an output of a call of a failed turn": (
        (STARTED, started("t1"), TurnFailed(turn_id="t1", code="x", message="x", status=502)),
        begin(output()),
        NO_CALL,
    ),
    "a message where a call waits": (CALLED, begin(HELLO), NO_OUTPUT),
    "one output where two calls wait": (
        (STARTED, started("t1"), said_with_calls("t1", "c2", "c1")),
        begin(output("c2"), HELLO),
        NO_OUTPUT,
    ),
    "a message where a custom call waits": (
        (STARTED, started("t1"), said_with_calls("t1", "c1", kind="custom")),
        begin(HELLO),
        NO_CUSTOM_OUTPUT,
    ),
    "a message behind a rotation, where a call waits": ((*CALLED, ROTATED), begin(HELLO), NO_OUTPUT),
    "a message where an added call waits": (
        (*PLAIN, ItemsAdded(turn_id="t2", items=encoded(function_call()))),
        begin(HELLO),
        NO_OUTPUT,
    ),
    "a call of the input without its output": (PLAIN, begin(function_call(), HELLO), NO_OUTPUT),
    "a custom call of the input without its output": ((), begin(HELLO, custom_call()), NO_CUSTOM_OUTPUT),
    "an id twice in the input": ((), begin(HELLO | {"id": "msg_x"}, HELLO | {"id": "msg_x"}), duplicate("msg_x")),
    "the id of an item of the input of a turn before": (
        (STARTED, brought("t1", HELLO | {"id": "msg_x"}), completed("t1")),
        begin(HELLO | {"id": "msg_x"}),
        duplicate("msg_x"),
    ),
    "the id of what a rotation has kept": (
        (STARTED, brought("t1", HELLO | {"id": "msg_x"}), completed("t1"), ROTATED),
        begin(HELLO | {"id": "msg_x"}),
        duplicate("msg_x"),
    ),
    "the id of what a model said before": (PLAIN, begin(HELLO | {"id": "msg_t1"}), duplicate("msg_t1")),
    "the id of what was said before": (PLAIN, begin(HELLO | {"id": "msg_t1_i0"}), duplicate("msg_t1_i0")),
}

TAKEN: dict[str, tuple[tuple[Event, ...], Decision]] = {
    "a message": (PLAIN, begin(HELLO)),
    "an output of the newest call": (CALLED, begin(output())),
    "outputs and a message": (
        (STARTED, started("t1"), said_with_calls("t1", "c1", "c2")),
        begin(output("c2"), output(), HELLO),
    ),
    "an output of the newest call, behind a rotation": ((*CALLED, ROTATED), begin(output())),
    "an output of an older call": (ANSWERED, begin(output(), HELLO)),
    "an output of an older call that a rotation has kept": (
        (*CALLED, started("t2"), completed("t2"), msgspec.structs.replace(ROTATED, tail=3)),
        begin(output(), HELLO),
    ),
    "a call and its output": ((), begin(HELLO, function_call(), output(), custom_call("c2"), custom_output("c2"))),
    "an output of an added call": (
        (*PLAIN, ItemsAdded(turn_id="t2", items=encoded(function_call()))),
        begin(output()),
    ),
    "a message where the waiting call was answered by an added item": (
        (*CALLED, ItemsAdded(turn_id="t2", items=encoded(output()))),
        begin(HELLO),
    ),
    "a message where the waiting call was removed": (
        (*CALLED, ItemRemoved(turn_id="t1", item_id="fc_t1_0")),
        begin(HELLO),
    ),
    "an output whose call is only in the history that the client resends": (
        PLAIN,
        begin(output(), opening=(HELLO, function_call())),
    ),
    "an id of its own": (PLAIN, begin(HELLO | {"id": "msg_x"})),
    "the id of an item that was removed": (
        (*PLAIN, ItemRemoved(turn_id="t1", item_id="msg_t1")),
        begin(HELLO | {"id": "msg_t1"}),
    ),
    "the id of an item of a failed turn": (
        (
            STARTED,
            brought("t1", HELLO | {"id": "msg_x"}),
            TurnFailed(turn_id="t1", code="x", message="x", status=502),
        ),
        begin(HELLO | {"id": "msg_x"}),
    ),
    "words that look like a call": (PLAIN, begin(HELLO | {"content": '"function_call_output" "id"'})),
    "a chat message where a call waits": (CALLED, begin({"role": "user", "content": "x"}, api="chat")),
    "a run where a call waits": (CALLED, begin(HELLO, api="runs")),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused(case: str) -> None:
    past, decision, refusal = REFUSED[case]
    assert refusal_of(past, decision) == refusal


@pytest.mark.parametrize("case", TAKEN)
def test_what_fits_is_taken(case: str) -> None:
    past, decision = TAKEN[case]
    assert refusal_of(past, decision) == ""


@pytest.mark.parametrize(
    "odd",
    [
        b'{"role":"assistant","tool_calls":{"id":"c1"}}',
        b'{"role":"assistant","tool_calls":[7,{"id":[]},{"custom":3}]}',
        b'"tool_calls"',
    ],
)
def test_whatever_a_model_server_said_can_be_gone_on_from(odd: bytes) -> None:
    past = (STARTED, started("t1"), TurnCompleted(turn_id="t1", output=(odd,), finish_reason="stop"))
    assert refusal_of(past, begin(HELLO, output("c9"))).startswith("OutputWithoutCall")


def test_what_was_answered_while_the_log_was_out_of_reach_is_recorded_all_the_same() -> None:
    asked = request(output())
    late = Late(asked, "t9", Answer(message=assistant("hi"), finish_reason="stop"), ())
    session = Session.fold(STREAM, recorded(PLAIN))
    assert len(decide_late.record(session, command(asked), late)) == 2


# Over HTTP


async def refused(server: Server, items: Any, **names: Any) -> str:
    """The message of a refusal, which names the input."""
    error = await call_route(server, "POST", "/v1/responses", 400, json={"model": "m", "input": items} | names)
    assert (error["param"], error["type"]) == ("input", "invalid_request_error")
    message: str = error["message"]
    return message


@pytest.mark.parametrize("more", [{}, {"store": False}, {"stream": True}])
async def test_a_call_must_be_answered_in_the_next_turn(
    server: Server, upstream: Upstream, more: dict[str, Any]
) -> None:
    upstream.script = lambda body: says("done") if body["messages"][-1]["role"] == "tool" else calls("look", "{}", "c7")
    first = await server.openai.responses.create(model="m", input="look!")
    names = {"previous_response_id": first.id} | more
    assert await refused(server, "never mind", **names) == "No tool output found for function call c7."
    assert (
        await refused(server, [output("c8")], **names) == "No tool call found for function call output with call_id c8."
    )
    assert len(upstream.requests) == 1
    answered = await server.openai.responses.create(model="m", input=[output("c7")], previous_response_id=first.id)  # type: ignore[list-item]
    assert answered.output_text == "done"


async def test_an_item_can_not_come_twice(server: Server) -> None:
    item = {"type": "message", "role": "user", "id": "msg_mine", "content": "a"}
    first = await server.openai.responses.create(model="m", input=[item], conversation="c")  # type: ignore[list-item]
    assert "Duplicate item found with id msg_mine" in await refused(server, [item], conversation="c")
    said = first.output[0].to_dict()
    assert f"id {said['id']}" in await refused(server, [said, HELLO], previous_response_id=first.id)


async def test_a_request_that_comes_again_is_replayed_and_not_refused(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda body: says("done") if body["messages"][-1]["role"] == "tool" else calls("look", "{}", "c7")
    headers = {"Idempotency-Key": "k1"}
    item = {"type": "message", "role": "user", "id": "msg_mine", "content": "a"}
    both = [
        await server.openai.responses.create(model="m", input=[item], conversation="c", extra_headers=headers)  # type: ignore[list-item]
        for _ in range(2)
    ]
    assert both[0].id == both[1].id


async def test_a_client_that_resends_everything_in_its_session_goes_on(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda body: says("done") if body["messages"][-1]["role"] == "tool" else calls("look", "{}", "c7")
    headers = {"X-Hermes-Session-Id": "s1"}
    history: list[Any] = [HELLO]
    first = await server.openai.responses.create(model="m", input=history, extra_headers=headers)
    history += [*(item.to_dict() for item in first.output), output("c7")]
    second = await server.openai.responses.create(model="m", input=history, extra_headers=headers)
    assert second.output_text == "done"
    assert [message["role"] for message in upstream.messages[-1]] == ["user", "assistant", "tool"]
    history += [*(item.to_dict() for item in second.output), output("c7")]
    assert (await server.openai.responses.create(model="m", input=history, extra_headers=headers)).output_text == "done"


async def test_what_is_refused_leaves_no_summary_behind(server: Server, upstream: Upstream) -> None:
    upstream.script = answering
    for number in range(12):
        await server.chat(f"{number} ".ljust(200, "x"), "s1")
    asked = len(upstream.requests)
    soon: dict[str, Any] = {"model": "m", "context_management": [{"type": "compaction", "compact_threshold": 400}]}
    headers = {"X-Hermes-Session-Id": "s1"}
    await call_route(server, "POST", "/v1/responses", 400, json=soon | {"input": [output()]}, headers=headers)
    assert (len(upstream.requests), (await server.get("/api/sessions/s1/messages"))["session_id"]) == (asked, "s1")
    async with server.http.post("/v1/responses", json=soon | {"input": "go on"}, headers=headers) as taken:
        assert taken.headers["X-Turnlog-Compression"] == "rotated"


async def test_the_sdk_raises_what_it_knows(server: Server) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        await server.openai.responses.create(model="m", input=[output()])  # type: ignore[list-item]
    assert (raised.value.param, raised.value.code) == ("input", "tool_call_not_found")
