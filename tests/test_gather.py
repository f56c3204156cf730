"""Streamed answers put together again, and server-sent events cut apart."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.models.gather import Gathered
from api.models.model import Choice, Chunk, ModelBroke
from api.models.sse import EVENT_BYTES_MAX, EventReader, EventTooLong
from api.models.tidy import tidy_message
from projections.pieces import Pieces


def gathered(*deltas: dict[str, object], finish_reason: str | None = "stop") -> Gathered:
    whole = Gathered()
    for delta in deltas:
        whole.add(Chunk([Choice(0, delta)]))
    if finish_reason:
        whole.add(Chunk([Choice(0, {}, finish_reason)]))
    return whole


def test_text_is_joined_and_its_pieces_are_counted() -> None:
    whole = gathered({"role": "assistant", "content": ""}, {"content": "Hel"}, {"content": "lo"})
    answer = whole.answer()
    assert msgspec.json.decode(answer.message) == {"role": "assistant", "content": "Hello"}
    assert (answer.finish_reason, whole.pieces) == ("stop", Pieces((3, 2)))


def test_tool_calls_are_joined_by_their_index_and_lose_it() -> None:
    whole = gathered(
        {"tool_calls": [{"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": '{"x"'}}]},
        {"tool_calls": [{"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": ":1}"}}]},
        finish_reason="tool_calls",
    )
    assert msgspec.json.decode(whole.answer().message)["tool_calls"] == [
        {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}},
        {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
    ]


def test_two_pieces_of_one_call_may_come_in_one_delta() -> None:
    first = {"index": 0, "id": "a", "function": {"name": "f", "arguments": "{"}}
    whole = gathered({"tool_calls": [first, {"index": 0, "function": {"arguments": "}"}}]})
    calls = msgspec.json.decode(whole.answer().message)["tool_calls"]
    assert calls == [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]


def test_a_plain_answer_is_recorded_in_lengths_alone() -> None:
    whole = gathered({"role": "assistant", "content": ""}, {"content": "a"}, {"content": ""}, {"content": "bc"})
    assert whole.pieces == Pieces((1, 2), (), ())


def test_it_is_counted_what_each_piece_was_a_piece_of() -> None:
    whole = gathered(
        {"content": "a"},
        {"reasoning_content": "bc"},
        {"tool_calls": [{"index": 3, "id": "c", "function": {"name": "f"}}]},
        {"tool_calls": [{"index": 3, "function": {"arguments": "{}"}}]},
        {"reasoning_summary": [{"index": 1, "text": "d"}]},
        {"annotations": [{"index": 0}, {"index": 0}], "refusal": "no", "reasoning": "e"},
        {"reasoning_items": [{"index": 0}]},
        {"content": "f"},
    )
    assert whole.pieces.fields == (0, 2, 1000, 1000, 2000, 4, 1, 3, 5, 0)
    assert whole.pieces.lengths == (1, 2, 0, 2, 1, 2, 2, 1, 1, 1)
    assert len(msgspec.json.decode(whole.answer().message)["annotations"]) == 2


def test_log_probabilities_are_counted_with_the_text_they_came_with_or_before() -> None:
    whole = Gathered()
    entry = {"token": "x", "logprob": -1}
    for text, count in (("a", 0), ("b", 2), ("", 1), ("c", 0), ("d", 0)):
        whole.add(Chunk([Choice(0, {"content": text}, None, {"content": [entry] * count} if count else None)]))
    assert whole.pieces == Pieces((1, 1, 1, 1), (), (0, 2, 1, 0))
    assert len(msgspec.json.decode(whole.logprobs)["logprobs"]["content"]) == 3


def test_calls_are_numbered_in_the_order_in_which_they_come() -> None:
    chunk = Chunk([Choice(0, {"tool_calls": [{"index": 7, "id": "a"}, {"id": "b"}, "x", {"index": 7, "id": ""}]})])
    Gathered().add(chunk)
    calls = chunk.choices[0].delta["tool_calls"]
    assert [(call["index"], call.get("id")) for call in calls] == [(0, "a"), (1, "b"), (0, None)]


def test_a_name_said_again_and_an_id_made_anew_do_not_change_a_call() -> None:
    deltas: list[dict[str, object]] = [
        {"tool_calls": [{"index": 0, "id": f"c{n}", "function": {"name": "f", "arguments": text}}]}
        for n, text in enumerate("{}")
    ]
    whole = gathered(*deltas)
    calls = msgspec.json.decode(whole.answer().message)["tool_calls"]
    assert calls == [{"id": "c0", "function": {"name": "f", "arguments": "{}"}}]


def test_calls_that_have_one_number_are_told_apart_by_their_ids() -> None:
    def piece(call_id: str, name: str, arguments: object) -> dict[str, object]:
        return {"tool_calls": [{"index": 0, "id": call_id, "function": {"name": name, "arguments": arguments}}]}

    whole = gathered(piece("c1", "f", "{}"), piece("c2", "g", {"a": 1}), piece("c3", "g", "{}"))
    calls = msgspec.json.decode(whole.answer().message)["tool_calls"]
    said = [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in calls]
    assert said == [("c1", "f", "{}"), ("c2", "g", '{"a":1}'), ("c3", "g", "{}")]


@pytest.mark.parametrize(
    ("said", "recorded"),
    [
        ({"role": None, "content": "hi"}, {"role": "assistant", "content": "hi"}),
        (
            {"role": "assistant", "content": None, "tool_calls": [{"id": "c", "function": {"arguments": {"a": 1}}}]},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c", "type": "function", "function": {"arguments": '{"a":1}'}}],
            },
        ),
    ],
)
def test_a_message_that_came_whole_is_tidied(said: dict[str, object], recorded: dict[str, object]) -> None:
    assert msgspec.json.decode(tidy_message(msgspec.json.encode(said))) == recorded


@pytest.mark.parametrize("said", [{"content": 5}, {"tool_calls": [1]}, {"tool_calls": {}}, {"refusal": []}])
def test_a_message_that_came_whole_is_one(said: dict[str, object]) -> None:
    with pytest.raises(msgspec.DecodeError):
        tidy_message(msgspec.json.encode({"role": "assistant"} | said))


@pytest.mark.parametrize(
    "delta",
    [
        {"content": 7, "refusal": [], "reasoning_content": {"a": 1}},
        {"tool_calls": 7},
        {"tool_calls": ["x", None, [1]]},
        {"tool_calls": [{"index": "0", "function": "f", "id": 7}]},
        {"annotations": "x", "reasoning_summary": [7], "reasoning_items": {"a": 1}},
    ],
)
def test_what_is_malformed_is_left_out(delta: dict[str, object]) -> None:
    whole = gathered({"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}, delta, {"content": "there"})
    message = msgspec.json.decode(whole.answer().message)
    assert message["content"] == "there"
    assert message["tool_calls"][0]["function"] == {"arguments": "{"}
    assert message["tool_calls"][0]["id"].startswith("call_")


def test_text_in_parts_is_text() -> None:
    whole = gathered({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, {"content": "c"})
    assert msgspec.json.decode(whole.answer().message)["content"] == "abc"
    assert whole.pieces.lengths == (2, 1)


def test_fields_nobody_knows_yet_are_kept() -> None:
    message = msgspec.json.decode(gathered({"reasoning_content": "hm"}, {"reasoning_content": "m"}).answer().message)
    assert message["reasoning_content"] == "hmm"


def test_a_chunk_that_was_passed_on_does_not_change_afterwards() -> None:
    first: dict[str, object] = {"tool_calls": [{"index": 0, "function": {"arguments": "a"}}]}
    gathered(first, {"tool_calls": [{"index": 0, "function": {"arguments": "b"}}]})
    assert first == {"tool_calls": [{"index": 0, "function": {"arguments": "a"}}]}


def test_several_choices_are_kept_apart() -> None:
    whole = Gathered()
    for index, text in ((0, "a"), (1, "x"), (0, "b")):
        whole.add(Chunk([Choice(index, {"content": text})]))
    for index in (0, 1):
        whole.add(Chunk([Choice(index, {}, "stop")]))
    answer = whole.answer()
    assert [msgspec.json.decode(m)["content"] for m in (answer.message, *answer.alternatives)] == ["ab", "x"]


@pytest.mark.parametrize("deltas", [[], [{"content": "half"}]])
def test_an_answer_without_a_finish_reason_broke_off(deltas: list[dict[str, object]]) -> None:
    with pytest.raises(ModelBroke):
        gathered(*deltas, finish_reason=None).answer()


def test_what_was_said_before_a_break_is_kept() -> None:
    (partial,) = gathered({"role": "assistant"}, {"content": "half"}, finish_reason=None).partial()
    assert msgspec.json.decode(partial)["content"] == "half"
    assert gathered({"role": "assistant", "content": ""}, finish_reason=None).partial() == ()


@given(st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8")), max_size=8), st.data())
def test_events_are_the_same_however_their_bytes_arrive(texts: list[str], data: st.DataObject) -> None:
    stream = b"".join(f": comment\nevent: x\ndata: {text}\r\n\r\n".encode() for text in texts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    reader = EventReader()
    found: list[bytes] = []
    for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += reader.feed(stream[begin:end])
    assert [event.decode() for event in found] == texts


def test_an_event_that_does_not_end_is_refused() -> None:
    with pytest.raises(EventTooLong):
        list(EventReader().feed(b"data: " + b"x" * (EVENT_BYTES_MAX + 1)))
