"""The summary: what a model is asked, what is made without one, and how it joins the transcript."""

from typing import Any

import msgspec
import pytest

from api.models.model import Answer
from api.turns import summary
from api.turns.summary import Order
from api.turns.titles import next_title
from tests.support.facts import assistant, user

CALL = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at":"sea"}'}}
CALLS = msgspec.json.encode({"role": "assistant", "content": None, "tool_calls": [CALL]})
OUTPUT = msgspec.json.encode({"role": "tool", "tool_call_id": "c1", "content": "blue"})


def order(*messages: bytes, **more: Any) -> Order:
    given: dict[str, Any] = {"messages": messages, "model": "m", "characters_max": 600}
    return Order(**(given | more))


def contents(prompt_messages: object) -> list[str]:
    return [msgspec.json.decode(message)["content"] for message in prompt_messages]  # type: ignore[attr-defined]


def test_a_model_is_shown_who_said_what_and_what_was_called() -> None:
    prompt = summary.prompt_for(order(user("hello"), CALLS, OUTPUT, assistant("It is blue.")))
    system, shown = contents(prompt.messages)
    assert "At most 100 words." in system
    assert "[user]\nhello" in shown
    assert '[assistant]\ncalls look({"at":"sea"})' in shown
    assert "[tool output]\nblue" in shown
    assert prompt.instructions == 1
    assert prompt.messages_bytes == sum(map(len, prompt.messages))


def test_its_words_can_be_others_and_a_focus_is_added() -> None:
    prompt = summary.prompt_for(order(user("hello"), told="In verse.", focus="the colour"))
    assert contents(prompt.messages)[0] == "In verse.\n\nThe user asks to keep above all: the colour"


def test_a_long_message_is_shown_by_its_beginning_and_its_end() -> None:
    prompt = summary.prompt_for(order(user("begin" + "x" * 50_000 + "end")))
    shown = contents(prompt.messages)[1]
    assert len(shown) < 7_000
    assert "begin" in shown
    assert "end" in shown


def test_a_plain_summary_carries_an_earlier_one_on_and_keeps_the_newest() -> None:
    earlier = summary.message_of("assistant", "Ada builds a boat.", 600)
    messages = [earlier, *(user(f"question {number} {'y' * 150}") for number in range(50))]
    text = summary.deterministic(order(*messages, characters_max=1_000))
    assert text.startswith("Ada builds a boat.\n- …\n- user: question")
    assert "question 49" in text
    assert "question 0 " not in text
    assert len(text) <= 1_000 + len("- …\n")


def test_a_plain_summary_of_what_can_not_be_read_is_still_one() -> None:
    assert summary.deterministic(order(b"\xff", b"[]", b'{"role": 7, "content": 8}'))


def test_a_summary_is_bounded_and_found_again() -> None:
    message = summary.message_of("user", "z" * 10_000, 600)
    assert summary.is_summary(message)
    assert len(summary.summary_in(message)) <= 600
    assert not summary.is_summary(user("hello"))
    assert not summary.is_summary(user(f"he said: {summary.HEADING}"))


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b'{"role":"assistant","content":" so far \\n"}', "so far"),
        (b'{"role":"assistant","content":"<think>hm\\nhm</think>so far"}', "so far"),
        (b'{"role":"assistant","content":[{"type":"text","text":"so far"}]}', "so far"),
        (b'{"role":"assistant","content":null,"tool_calls":[]}', ""),
        (b'{"role":"assistant","content":"<think>They spoke of"}', ""),
        (b"[]", ""),
    ],
)
def test_the_text_of_an_answer(answer: bytes, text: str) -> None:
    assert summary.text_in(Answer(answer, "stop")) == text
    assert summary.text_in(Answer(answer, "length")) == ""


@pytest.mark.parametrize(("tokens", "characters"), [(0, 200), (1_000, 800), (64_000, 16_000), (10_000, 8_000)])
def test_a_summary_takes_its_share_of_the_threshold(tokens: int, characters: int) -> None:
    assert summary.characters_max(tokens) == characters


@pytest.mark.parametrize(
    ("title", "following"),
    [
        ("", ""),
        ("X", "X #2"),
        ("X #2", "X #3"),
        ("X #9", "X #10"),
        ("X #2 #4", "X #2 #5"),
        ("#2", "#2 #2"),
        ("X #0", "X #0 #2"),
        ("X#2", "X#2 #2"),
        ("x" * 100, "x" * 97 + " #2"),
        ("x" * 97 + " #9", "x" * 96 + " #10"),
    ],
)
def test_titles_go_on(title: str, following: str) -> None:
    assert next_title(title) == following


def test_a_summary_may_be_as_many_tokens_in_any_script() -> None:
    assert summary.characters_max(64_000, 0.25) == summary.characters_max(64_000) == 16_000
    assert summary.characters_max(64_000, 1.0) == 12_800
    assert summary.characters_max(64_000, 0.01) == 16_000
    assert summary.characters_max(4_000, 1.0) == 800
