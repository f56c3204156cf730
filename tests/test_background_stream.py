"""The events of a response in the background, from facts to bytes: no number stands for two events."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.ids import made_s, new_id
from api.models.model import Choice, Chunk
from api.turns.replayed import chunks_of
from api.turns.run import Found
from api.wire.background_stream import ATTEMPT, BackgroundStream
from eventstore.events import CancelReason, TurnCancelled, TurnFailed, TurnRestarted
from projections.turn import Ended, Turn
from tests.support.background import DONE, behind, kinds, numbers, parsed
from tests.support.facts import T0_US, assistant, completed, started

ASKED = started("t1", api="responses", background=True, stream=True)
RESTARTED = TurnRestarted(turn_id="t1", owner="me2", lease_ms=5)
SAID = [Chunk([Choice(0, {"content": text})]) for text in ("one", " two")]


def cancelled(reason: CancelReason, *texts: str) -> TurnCancelled:
    output = (assistant("".join(texts)),) if texts else ()
    return TurnCancelled(turn_id="t1", reason=reason, output=output, delta_lengths=tuple(map(len, texts)))


ENDS: list[Ended | None] = [
    completed("t1", "one two", delta_lengths=(3, 4)),
    TurnFailed(turn_id="t1", code="c", message="m", status=500, output=(assistant("one two"),), delta_lengths=(3, 4)),
    *(cancelled(reason, "one", " two") for reason in ("client", "shutdown")),
    cancelled("crash"),
    None,
]


def turn(ended: Ended | None, restarts: int = 0) -> Turn:
    return Turn(ASKED, T0_US, ended, T0_US + 1, restarted=RESTARTED if restarts else None)


def told(turn: Turn, chunks: list[Chunk], after: int = -1) -> bytes:
    stream = BackgroundStream(Found("s1", turn, None), after)
    return stream.opening() + b"".join(map(stream.piece, chunks)) + stream.ending(turn)


@given(st.sampled_from(ENDS), st.integers(0, 1), st.sampled_from([*range(-1, 14), *range(ATTEMPT - 1, ATTEMPT + 12)]))
def test_whoever_has_read_a_part_is_given_the_rest(ended: Ended | None, restarts: int, after: int) -> None:
    now = turn(ended, restarts)
    whole = told(now, SAID)
    assert told(now, SAID, after) == behind(whole, after)
    happened = numbers(parsed(whole))
    assert happened == sorted(set(happened))
    assert happened[:3] == [0, 1, 2]
    assert whole.endswith(DONE) == (ended is not None)


@pytest.mark.parametrize("ended", ENDS[:4])
@pytest.mark.parametrize("restarts", [0, 1])
def test_what_was_told_live_is_told_again(ended: Ended, restarts: int) -> None:
    now = turn(ended, restarts)
    assert told(now, chunks_of(now)) == told(now, SAID)


def test_what_is_said_the_second_time_has_other_numbers() -> None:
    first, second = told(turn(None), SAID), told(turn(ENDS[0], 1), SAID)
    assert second.startswith(first.partition(b"event: response.output_item.added")[0])
    assert min(number for number in numbers(parsed(second)) if number > 2) == ATTEMPT > max(numbers(parsed(first)))


@pytest.mark.parametrize(("restarts", "last"), [(0, ATTEMPT), (1, 2 * ATTEMPT)])
def test_a_crash_ends_one_behind_whatever_a_reader_has_seen(restarts: int, last: int) -> None:
    now = turn(cancelled("crash"), restarts)
    for seen in (-1, 2, 9, last - 1):
        [*_, end] = parsed(told(now, [], seen))
        assert (end["sequence_number"], end["type"]) == (last, "response.failed")
    assert told(now, [], last) == DONE


@pytest.mark.parametrize(
    ("ended", "kind", "status"),
    [
        (ENDS[0], "completed", "completed"),
        (ENDS[1], "failed", "failed"),
        (ENDS[2], "incomplete", "cancelled"),
        (ENDS[3], "failed", "failed"),
        (msgspec.structs.replace(completed("t1", "one two"), finish_reason="length"), "incomplete", "incomplete"),
    ],
)
def test_each_end_is_told_once(ended: Ended, kind: str, status: str) -> None:
    happened = parsed(told(turn(ended), SAID))
    assert kinds(happened)[-1] == kind
    assert happened[-1]["response"]["status"] == status
    assert sum("response" in event for event in happened) == 4


def test_a_response_is_as_old_as_its_id() -> None:
    assert abs((made_s(new_id()) or 0) - T0_US // 1_000_000) < 10**9
    asked = started("0" * 8 + "ffff" + "0" * 16, api="responses", background=True, stream=True)
    [created, *_] = parsed(told(Turn(asked, T0_US), []))
    assert created["response"]["created_at"] == 65
    for odd in ("t1", "z" * 28, ""):
        assert made_s(odd) is None
