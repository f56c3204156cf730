"""A run's events, from facts to bytes: what was told live is told again, whatever was said and however it ended."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.models.gather import Gathered
from api.models.model import Choice, Chunk, ModelBroke
from api.turns import decide
from api.turns.decide import Failure, Said
from api.turns.replayed import chunks_of
from api.wire.run_stream import ATTEMPT, CLOSED, RunStream
from eventstore.events import TurnCancelled, TurnRestarted
from projections.session import Session
from projections.turn import Turn
from tests.support.facts import STREAM, T0_US, recorded, session_started, started
from tests.support.runs import parsed, said

RUN = started("t1", api="runs", background=True, stream=True)
RESTARTED = TurnRestarted(turn_id="t1", owner="me2", lease_ms=5)

texts = st.text(max_size=5)
deltas: st.SearchStrategy[dict[str, Any]] = st.one_of(
    texts.map(lambda text: {"content": text}),
    texts.map(lambda text: {"reasoning_content": text}),
    texts.map(lambda text: {"refusal": text}),
    st.just({"content": None}),
    st.just({"role": "assistant", "content": ""}),
    st.builds(
        lambda index, text: {"tool_calls": [{"index": index, "id": f"c{index}", "function": {"arguments": text}}]},
        st.integers(0, 2),
        texts,
    ),
    st.builds(lambda text, more: {"content": text, "reasoning_content": more}, texts, texts),
)
choices = st.builds(Choice, index=st.sampled_from([0, 0, 0, 1]), delta=deltas)
answers = st.lists(st.builds(Chunk, choices=st.lists(choices, max_size=2)), max_size=12)


def told(turn: Turn, chunks: list[Chunk], after: int = 0) -> bytes:
    stream = RunStream(turn, after)
    return stream.opening() + b"".join(map(stream.piece, chunks)) + stream.ending(turn)


def ended(chunks: list[Chunk], how: str, *, restarted: bool) -> Turn:
    """A run that said `chunks`, as a session that ended it in that way has it."""
    gathered = Gathered()
    for chunk in chunks:
        gathered.add(chunk)
    session = Session.fold(STREAM, recorded([session_started(), RUN, *([RESTARTED] if restarted else [])]))
    so_far = Said(gathered.partial(), gathered.pieces, gathered.logprobs)
    if how == "completed":
        events = decide.complete(session, "t1", gathered.answer(), so_far.pieces)
    elif how == "failed":
        events = decide.fail(session, "t1", Failure("x", "y", 0), so_far)
    else:
        events = decide.cancel(session, "t1", "client", so_far)
    turn = session.open
    assert turn
    for event in recorded([*[RUN] * session.version, *events])[session.version :]:
        session.apply(event)
    return turn


@given(answers, st.sampled_from(["completed", "failed", "cancelled"]), st.booleans())
def test_what_was_told_live_is_told_again(chunks: list[Chunk], how: str, restarted: bool) -> None:
    if how == "completed":
        indexes = {choice.index for chunk in chunks for choice in chunk.choices} | {0}
        chunks = [*chunks, Chunk([Choice(index, {}, "stop") for index in indexes])]
    turn = ended(chunks, how, restarted=restarted)
    live = told(turn, chunks)
    assert live == told(turn, chunks_of(turn))
    happened = parsed(live)
    assert [event.id for event in happened] == list(range(happened[0].id, happened[0].id + len(happened)))
    for number, event in enumerate(happened):
        assert parsed(told(turn, chunks_of(turn), event.id)) == happened[number + 1 :]


@pytest.mark.parametrize(("restarted", "last"), [(False, ATTEMPT), (True, 2 * ATTEMPT)])
def test_a_crash_ends_a_run_behind_whatever_a_reader_has_seen(restarted: bool, last: int) -> None:
    turn = Turn(RUN, T0_US, TurnCancelled(turn_id="t1", reason="crash"), T0_US + 1)
    if restarted:
        turn.restarted, turn.restarted_us = RESTARTED, T0_US
    for seen in (0, 1, last - 1):
        assert parsed(told(turn, [], seen))[-1].id == last
    assert told(turn, [], last) == CLOSED


def test_a_run_that_goes_on_after_the_next_start_has_no_end_yet() -> None:
    turn = Turn(RUN, T0_US)
    chunks = [Chunk([Choice(0, {"content": "a"})])]
    assert said(parsed(told(turn, chunks))) == ["a"]
    assert CLOSED not in told(turn, chunks)


def test_an_answer_without_a_finish_is_not_one() -> None:
    with pytest.raises(ModelBroke):
        ended([Chunk([Choice(0, {"content": "a"})])], "completed", restarted=False)
