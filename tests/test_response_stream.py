"""The events of a streamed response, from chunks to bytes: told live, and told again from the record."""

from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from api.models.model import Choice, Chunk
from api.problem import Problem
from api.turns.idempotency import Replayed
from api.turns.replayed import chunks_of
from api.wire.frames import DONE
from api.wire.response import response_object
from api.wire.response_stream import ResponseStream
from projections.turn import Turn
from tests.support.deltas import answers, ends, finished, odd_answers, recorded_turn, tidied
from tests.support.facts import T0_US, completed, started

STARTED = started("t1", api="responses", stream=True)
NEW_ITEM = "response.output_item.added"
SAID = {"text", "refusal", "arguments", "input"}
ITEM_DONE = "response.output_item.done"


def frames_of(turn: Turn, end: Turn, chunks: list[Chunk], *, after: int = -1, queued: bool = False) -> list[bytes]:
    """The frames of a response, one each."""
    stream = ResponseStream(Replayed("s1", turn), store=True, after=after, queued=queued)
    told = stream.opening() + b"".join(map(stream.piece, chunks)) + stream.ending(end)
    return [frame + b"\n\n" for frame in told.split(b"\n\n")[:-1]]


def begun(turn: Turn) -> Turn:
    """The turn as it was when it was told of live."""
    return Turn(turn.started, turn.started_us)


def payload(frame: bytes) -> dict[str, Any]:
    data: dict[str, Any] = msgspec.json.decode(frame.split(b"data: ", 1)[1])
    return data


def told(*deltas: dict[str, Any], finish: str = "stop") -> list[dict[str, Any]]:
    """What is told of an answer, live; and again, the same."""
    chunks, gathered = tidied(finished([Chunk([Choice(0, delta)]) for delta in deltas], finish))
    turn = recorded_turn(STARTED, gathered, "completed")
    live = frames_of(begun(turn), turn, chunks)
    assert live == frames_of(turn, turn, chunks_of(turn))
    return [payload(frame) for frame in live[:-1]]


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def call(index: int, text: str, **head: Any) -> dict[str, Any]:
    """A piece of a function call."""
    name = {"name": head.pop("name")} if "name" in head else {}
    return {"tool_calls": [{"index": index, **head, "function": {**name, "arguments": text}}]}


def opens(index: int) -> dict[str, Any]:
    return call(index, "", id=f"call_{index}", type="function", name=f"f{index}")


# The order of things


def test_a_text_begins_grows_and_is_done() -> None:
    events = told({"role": "assistant", "content": ""}, {"content": "Hel"}, {"content": "lo"})
    assert kinds(events) == [
        *("created", "in_progress"),
        *("output_item.added", "content_part.added", "output_text.delta", "output_text.delta"),
        *("output_text.done", "content_part.done", "output_item.done", "completed"),
    ]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))


def test_a_thought_is_done_as_the_model_speaks_and_a_text_as_it_calls() -> None:
    events = told({"reasoning_content": "hm"}, {"content": "so"}, opens(0), call(0, "{}"), opens(1), call(1, "{}"))
    assert [(event["type"], event["item"]["type"]) for event in events if "item" in event] == [
        *((NEW_ITEM, "reasoning"), (ITEM_DONE, "reasoning")),
        *((NEW_ITEM, "message"), (ITEM_DONE, "message")),
        *((NEW_ITEM, "function_call"), (ITEM_DONE, "function_call")),
        *((NEW_ITEM, "function_call"), (ITEM_DONE, "function_call")),
    ]


def test_calls_that_come_interleaved_are_done_when_they_are_whole() -> None:
    events = told(opens(0), call(0, '{"a"'), opens(1), call(1, "{}"), call(0, ":1}"), {"content": "x"})
    done = [
        event["item"]["arguments"] for event in events if event["type"] == ITEM_DONE and "arguments" in event["item"]
    ]
    assert done == ["{}", '{"a":1}']
    assert [item["type"] for item in events[-1]["response"]["output"]] == ["function_call", "function_call", "message"]


def test_a_model_that_goes_back_begins_another_item() -> None:
    events = told({"content": "so"}, {"reasoning_content": "hm"}, {"content": " be it"})
    output = events[-1]["response"]["output"]
    assert [item["id"] for item in output] == ["msg_t1", "rs_t1", "msg_t1_1"]
    assert [item["content"][0]["text"] for item in output] == ["so", "hm", " be it"]


def test_a_summary_comes_part_by_part() -> None:
    parts = ({"index": 0, "text": ""}, {"index": 0, "text": "one"}, {"index": 1, "text": "two"})
    original = {"type": "reasoning", "id": "rs_up", "summary": [{"text": "no"}], "encrypted_content": "secret"}
    events = told(*({"reasoning_summary": [part]} for part in parts), {"reasoning_items": [original]}, {"content": "x"})
    assert kinds(events)[2:12] == [
        "output_item.added",
        *("reasoning_summary_part.added", "reasoning_summary_text.delta"),
        *("reasoning_summary_text.done", "reasoning_summary_part.done"),
        *("reasoning_summary_part.added", "reasoning_summary_text.delta"),
        *("reasoning_summary_text.done", "reasoning_summary_part.done"),
        "output_item.done",
    ]
    assert [event["summary_index"] for event in events if "summary_index" in event] == [0, 0, 0, 0, 1, 1, 1, 1]
    reasoning = events[-1]["response"]["output"][0]
    assert [part["text"] for part in reasoning["summary"]] == ["one", "two"]
    assert (reasoning["id"], reasoning["encrypted_content"]) == ("rs_t1", "secret")


def test_what_a_server_thought_without_a_word_is_in_the_item() -> None:
    original = {
        "type": "reasoning",
        "summary": [{"text": "why"}],
        "content": [{"text": "hm"}],
        "encrypted_content": "s",
    }
    events = told({"reasoning_items": [original]}, {"reasoning_items": [{"type": "reasoning"}]}, {"content": "x"})
    first, second, _ = events[-1]["response"]["output"]
    assert (first["summary"][0]["text"], first["content"][0]["text"], first["encrypted_content"]) == ("why", "hm", "s")
    assert (second["id"], second["summary"], "encrypted_content" in second) == ("rs_t1_1", [], False)


def test_one_thought_in_two_fields_is_told_once() -> None:
    events = told({"reasoning": "a", "reasoning_content": "a"}, {"reasoning": "b", "reasoning_content": "b"})
    assert events[-1]["response"]["output"][0]["content"] == [{"type": "reasoning_text", "text": "ab"}]


def test_a_refusal_is_a_part_of_its_message() -> None:
    events = told({"content": "well"}, {"refusal": "no"})
    assert kinds(events)[5:9] == ["output_text.done", "content_part.done", "content_part.added", "refusal.delta"]
    (message,) = events[-1]["response"]["output"]
    assert [part["type"] for part in message["content"]] == ["output_text", "refusal"]


@pytest.mark.parametrize("nested", [False, True])
def test_annotations_are_told_as_they_come_and_stay(nested: bool) -> None:
    inner = {"start_index": 0, "end_index": 1, "title": "t", "url": "u"}
    given_ = {"type": "url_citation", **({"url_citation": inner} if nested else inner)}
    events = told({"annotations": [given_]}, {"content": "a"}, {"annotations": [given_]}, {"content": "b"})
    added = [event for event in events if event["type"] == "response.output_text.annotation.added"]
    flat = {"type": "url_citation", **inner}
    assert [(event["annotation_index"], event["annotation"]) for event in added] == [(0, flat), (1, flat)]
    assert events[-1]["response"]["output"][0]["content"][0]["annotations"] == [flat, flat]


def test_log_probabilities_are_told_with_their_text() -> None:
    entries: list[dict[str, Any]] = [{"token": token, "logprob": -0.5, "top_logprobs": []} for token in ("a", "b", "c")]
    pieces = [
        Choice(0, {"content": "a"}, None, {"content": entries[:1], "refusal": None}),
        Choice(0, {"content": ""}, None, {"content": entries[1:2], "refusal": None}),
        Choice(0, {"content": "bc"}, None, {"content": entries[2:], "refusal": None}),
        Choice(0, {"content": "d"}),
    ]
    chunks, gathered = tidied(finished([Chunk([piece]) for piece in pieces]))
    turn = recorded_turn(STARTED, gathered, "completed")
    live = frames_of(begun(turn), turn, chunks)
    assert live == frames_of(turn, turn, chunks_of(turn))
    events = [payload(frame) for frame in live[:-1]]
    deltas = [event["logprobs"] for event in events if event["type"] == "response.output_text.delta"]
    assert deltas == [entries[:1], entries[1:], []]
    assert next(event for event in events if event["type"] == "response.output_text.done")["logprobs"] == entries
    assert events[-1]["response"]["output"][0]["content"][0]["logprobs"] == entries


def test_a_custom_tools_input_is_done_with_the_answer() -> None:
    piece = {"index": 0, "id": "c", "type": "custom", "custom": {"name": "sql", "input": ""}}
    events = told(
        {"tool_calls": [piece]}, {"tool_calls": [{"index": 0, "custom": {"input": "SELECT"}}]}, {"content": "x"}
    )
    assert "custom_tool_call_input.delta" in kinds(events)
    assert kinds(events)[-6] == "custom_tool_call_input.done"
    assert events[-1]["response"]["output"][0]["input"] == "SELECT"


def test_what_was_cut_short_is_what_was_being_said() -> None:
    events = told({"reasoning_content": "hm"}, {"content": "so"}, finish="length")
    assert events[-1]["type"] == "response.incomplete"
    assert [item["status"] for item in events[-1]["response"]["output"]] == ["completed", "incomplete"]
    cut = told(opens(0), call(0, "{"), opens(1), call(1, "{}"), finish="length")
    assert [item["status"] for item in cut[-1]["response"]["output"]] == ["incomplete", "incomplete"]


# Told again


@given(answers, ends)
@example([Chunk([Choice(0, {"content": "a"})]), Chunk([Choice(0, {"reasoning": "b", "content": "c"})])], "completed")
def test_what_was_told_live_is_told_again(chunks: list[Chunk], how: str) -> None:
    chunks, gathered = tidied(finished(chunks, "length" if how == "length" else "stop") if how in WHOLE else chunks)
    turn = recorded_turn(STARTED, gathered, how)
    live = frames_of(begun(turn), turn, chunks)
    assert live == frames_of(turn, turn, chunks_of(turn))
    check([payload(frame) for frame in live[:-1]], turn)


@given(odd_answers, ends)
def test_whatever_a_model_server_sends_can_be_told(chunks: list[Chunk], how: str) -> None:
    chunks, gathered = tidied(finished(chunks) if how in WHOLE else chunks)
    turn = recorded_turn(STARTED, gathered, how)
    for told_chunks in (chunks, chunks_of(turn)):
        events = [payload(frame) for frame in frames_of(begun(turn), turn, told_chunks)[:-1]]
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert events[-1]["response"] == msgspec.to_builtins(response_object(turn))


WHOLE = ("completed", "length")


def check(events: list[dict[str, Any]], turn: Turn) -> None:
    """What holds of every stream."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    final = events[-1]["response"]
    assert final == msgspec.to_builtins(response_object(turn))
    added = [event for event in events if event["type"] == NEW_ITEM]
    done = {event["output_index"]: event["item"] for event in events if event["type"] == ITEM_DONE}
    assert [event["output_index"] for event in added] == list(range(len(added)))
    assert [event["item"]["id"] for event in added] == [item["id"] for item in final["output"]]
    if final["status"] != "failed":
        assert sorted(done) == list(range(len(added)))
        assert [_bare(done[index]) for index in sorted(done)] == [_bare(item) for item in final["output"]]
    said: dict[tuple[Any, ...], str] = {}
    for event in events:
        kind, _, step = event["type"].rpartition(".")
        place = (kind, event.get("item_id"), event.get("content_index"), event.get("summary_index"))
        if step == "delta":
            said[place] = said.get(place, "") + event["delta"]
        elif step == "done" and (
            key := next((key for key in ("text", "refusal", "arguments", "input") if key in event), "")
        ):
            assert said.pop(place, "") == event[key]
    assert not said or final["status"] == "failed"


def _bare(item: dict[str, Any]) -> dict[str, Any]:
    """Without annotations, which may come when their text is done."""
    parts = [{**part, "annotations": []} if "annotations" in part else part for part in item.get("content", ())]
    return {**item, "content": parts}


def test_a_turn_told_before_all_pieces_were_recorded_is_told_in_its_order() -> None:
    message = b'{"role":"assistant","reasoning":"hm","tool_calls":[{"id":"c","function":{"name":"f"}}],"content":"ab"}'
    old = msgspec.structs.replace(completed("t1", delta_lengths=(1, 1)), output=(message,))
    turn = Turn(STARTED, T0_US, old, T0_US)
    events = [payload(frame) for frame in frames_of(turn, turn, chunks_of(turn))[:-1]]
    assert [event["item"]["id"] for event in events if event["type"] == NEW_ITEM] == ["rs_t1", "fc_t1_0", "msg_t1"]
    assert [event["delta"] for event in events if event["type"] == "response.output_text.delta"] == ["a", "b"]
    assert [item["id"] for item in events[-1]["response"]["output"]] == ["rs_t1", "fc_t1_0", "msg_t1"]


# Parts of it


@given(answers, st.integers(-1, 20), st.booleans())
def test_whoever_has_read_a_part_is_given_the_rest(chunks: list[Chunk], after: int, queued: bool) -> None:
    chunks, gathered = tidied(finished(chunks))
    turn = recorded_turn(STARTED, gathered, "completed")
    whole = frames_of(turn, turn, chunks, queued=queued)
    assert [payload(frame)["sequence_number"] for frame in whole[:-1]] == list(range(len(whole) - 1))
    assert frames_of(turn, turn, chunks, after=after, queued=queued) == [*whole[:-1][after + 1 :], DONE]


def test_one_that_waited_in_the_background_says_so() -> None:
    turn = Turn(STARTED, T0_US, completed("t1"), T0_US)
    opening = [payload(frame) for frame in frames_of(turn, turn, [], queued=True)[:3]]
    assert kinds(opening) == ["created", "queued", "in_progress"]
    assert [event["response"]["status"] for event in opening] == ["queued", "queued", "in_progress"]


def test_a_failure_ends_the_stream_with_its_error() -> None:
    stream = ResponseStream(Replayed("s1", Turn(STARTED, T0_US)), store=True)
    frames = stream.failing(Problem("it broke", status=502, code="upstream_broke_off"))
    *events, done = [frame + b"\n\n" for frame in frames.split(b"\n\n")[:-1]]
    assert done == DONE
    assert kinds([payload(frame) for frame in events]) == ["created", "in_progress", "failed"]
    assert payload(events[-1])["response"]["error"] == {
        "code": "server_error",
        "message": "it broke (upstream_broke_off)",
    }
