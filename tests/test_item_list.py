"""A turn as Responses items, and pages of them."""

from typing import Any

import msgspec
import pytest

from api.problem import Problem
from api.wire.item_list import Asked, asked_of, input_items, item_list, output_items_of, turn_items
from eventstore.events import TurnCompleted
from projections.turn import Turn
from tests.support.facts import completed, started
from tests.support.sdk import check_item

CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}
CUSTOM_CALL = {"id": "c2", "type": "custom", "custom": {"name": "sh", "input": "ls"}}


def turn_of(
    *items: dict[str, Any], api: str = "responses", said: dict[str, Any] | None = None, removed: tuple[str, ...] = ()
) -> Turn:
    begun = msgspec.structs.replace(started("7", api=api), items=tuple(map(msgspec.json.encode, items)))
    output = (msgspec.json.encode(said or {"role": "assistant", "content": "hi"}),)
    done = TurnCompleted(turn_id="7", output=output, finish_reason="stop")
    return Turn(begun, 0, done, 0, removed=removed)


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (
            {"role": "user", "content": "hello"},
            {
                "id": "msg_7_i0",
                "type": "message",
                "status": "completed",
                "role": "user",
                "content": [{"type": "input_text", "text": "hello"}],
            },
        ),
        (
            {"type": "message", "id": "msg_mine", "role": "assistant", "content": "hello", "status": "incomplete"},
            {
                "id": "msg_mine",
                "type": "message",
                "status": "incomplete",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "hello", "annotations": [], "logprobs": []}],
            },
        ),
        (
            {
                "role": "user",
                "content": [
                    {"type": "input_image", "image_url": "data:x"},
                    {"type": "input_file", "file_data": "eA==", "filename": "a.pdf"},
                ],
            },
            {
                "id": "msg_7_i0",
                "type": "message",
                "status": "completed",
                "role": "user",
                "content": [
                    {"type": "input_image", "image_url": "data:x", "detail": "auto"},
                    {"type": "input_file", "file_data": "eA==", "filename": "a.pdf"},
                ],
            },
        ),
        (
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
            {
                "id": "msg_7_i0",
                "type": "message",
                "status": "completed",
                "role": "assistant",
                "content": [{"type": "refusal", "refusal": "no"}],
            },
        ),
        (
            {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}", "id": None},
            {
                "id": "fc_7_i0",
                "type": "function_call",
                "status": "completed",
                "call_id": "c1",
                "name": "look",
                "arguments": "{}",
            },
        ),
        (
            {"type": "function_call_output", "call_id": "c1", "output": "seen"},
            {
                "id": "fco_7_i0",
                "type": "function_call_output",
                "status": "completed",
                "call_id": "c1",
                "output": "seen",
            },
        ),
        (
            {"type": "custom_tool_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "a"}]},
            {
                "id": "ctco_7_i0",
                "type": "custom_tool_call_output",
                "status": "completed",
                "call_id": "c2",
                "output": [{"type": "input_text", "text": "a"}],
            },
        ),
        (
            {"type": "reasoning", "id": "rs_x", "encrypted_content": "gAAA"},
            {"id": "rs_x", "type": "reasoning", "status": "completed", "summary": [], "encrypted_content": "gAAA"},
        ),
    ],
)
def test_an_item_that_came_in_is_shown_with_all_that_it_must_have(
    item: dict[str, Any], expected: dict[str, Any]
) -> None:
    (shown,) = input_items(turn_of(item))
    assert shown == expected
    check_item(shown)


def test_chat_messages_are_shown_as_the_items_that_they_would_have_been() -> None:
    shown = input_items(
        turn_of(
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]},
            {"role": "assistant", "content": "wait", "reasoning_content": "hm", "tool_calls": [CALL, CUSTOM_CALL]},
            {"role": "tool", "tool_call_id": "c1", "content": "seen"},
            api="chat",
        )
    )
    for item in shown:
        check_item(item)
    assert [(item["id"], item["type"]) for item in shown] == [
        ("msg_7_i0", "message"),
        ("rs_7_i1", "reasoning"),
        ("msg_7_i1", "message"),
        ("fc_7_i1_0", "function_call"),
        ("fc_7_i1_1", "custom_tool_call"),
        ("fco_7_i2", "function_call_output"),
    ]
    assert shown[0]["content"] == [{"type": "input_image", "detail": "auto", "image_url": "data:x"}]
    assert (shown[-1]["call_id"], shown[-1]["output"]) == ("c1", "seen")


def test_what_the_model_said_is_shown_as_in_its_response() -> None:
    shown = output_items_of(turn_of(said={"role": "assistant", "content": "hi", "tool_calls": [CALL]}))
    for item in shown:
        check_item(item)
    assert [item["id"] for item in shown] == ["msg_7", "fc_7_0"]


def test_what_was_removed_is_not_shown() -> None:
    turn = turn_of(
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b", "id": "mine"},
        said={"role": "assistant", "content": "hi", "tool_calls": [CALL]},
        removed=("mine", "msg_7"),
    )
    assert [item["id"] for item in turn_items(turn)] == ["msg_7_i0", "fc_7_0"]


@pytest.mark.parametrize("api", ["chat", "responses"])
@pytest.mark.parametrize(
    "odd",
    [
        b"[]",
        b"{}",
        b'{"type": [1], "role": {}, "status": []}',
        b'{"role": "user", "content": 5}',
        b'{"role": "user", "content": [7, {"type": []}, {"type": "image_url", "image_url": 3}, {"type": "file"}]}',
        b'{"role": "tool", "content": [7]}',
        b'{"type": "function_call_output", "output": 7}',
        b'{"type": "something_new", "id": 5}',
    ],
)
def test_whatever_is_in_the_log_is_shown(api: str, odd: bytes) -> None:
    turn = turn_of(api=api)
    turn.started = msgspec.structs.replace(turn.started, items=(odd,))
    msgspec.json.encode(turn_items(turn))


# Pages


def turns(count: int) -> list[Turn]:
    return [Turn(started(f"{n}", f"question {n}"), 0, completed(f"{n}"), 0) for n in range(count)]


def ids(**query: str) -> tuple[list[str], bool]:
    page = item_list(turns(3), asked_of(query))
    assert (page.first_id, page.last_id) == (page.data[0]["id"], page.data[-1]["id"])
    return [item["id"] for item in page.data], page.has_more


def test_a_page_begins_with_the_newest_item() -> None:
    assert ids() == (["msg_2", "msg_2_i0", "msg_1", "msg_1_i0", "msg_0", "msg_0_i0"], False)
    assert ids(order="asc", limit="2") == (["msg_0_i0", "msg_0"], True)


def test_a_page_goes_on_behind_an_item() -> None:
    assert ids(after="msg_2_i0", limit="2") == (["msg_1", "msg_1_i0"], True)
    assert ids(after="msg_1", order="asc") == (["msg_2_i0", "msg_2"], False)
    assert ids(after="msg_1", limit="3") == (["msg_1_i0", "msg_0", "msg_0_i0"], False)


def test_an_id_of_the_clients_own_leads_to_its_place_whatever_it_looks_like() -> None:
    item = {"role": "user", "content": "a", "id": "msg_1"}
    begun = msgspec.structs.replace(started("0", api="responses"), items=(msgspec.json.encode(item),))
    both = [Turn(begun, 0, completed("0"), 0), Turn(started("1"), 0)]
    page = item_list(both, Asked(order="asc", after="msg_1"))
    assert [shown["id"] for shown in page.data] == ["msg_0", "msg_1_i0"]


def test_a_list_of_nothing_has_no_ids() -> None:
    page = item_list([], Asked())
    assert (page.data, page.first_id, page.last_id, page.has_more) == ([], "", "", False)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "000000001" + 20 * "0"}, "limit"),
        ({"limit": "00000000150"}, "limit"),
        ({"limit": "1" + 5_000 * "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "ten"}, "limit"),
        ({"limit": ""}, "limit"),
        ({"order": "up"}, "order"),
        ({"after": "msg_9"}, "after"),
    ],
)
def test_a_page_that_can_not_be_is_refused_by_name(query: dict[str, str], param: str) -> None:
    with pytest.raises(Problem) as refused:
        item_list(turns(1), asked_of(query))
    assert (refused.value.status, refused.value.param) == (400, param)
