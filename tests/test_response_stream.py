"""The events of a streamed response, from chunks to bytes."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from api.models.model import Choice, Chunk
from api.turns.idempotency import Replayed
from api.wire.frames import DONE
from api.wire.response_stream import ResponseStream
from projections.turn import Turn
from tests.support.facts import T0_US, completed, started

TURN = Turn(started("t1", api="responses", stream=True), T0_US)
DONE_TURN = Turn(TURN.started, T0_US, completed("t1", "one two"), T0_US)
CHUNKS = [Chunk([Choice(0, {"content": text})]) for text in ("one", " two")]


def streamed(turn: Turn = DONE_TURN, *, after: int = -1, queued: bool = False) -> list[bytes]:
    """The frames of a response, one each."""
    stream = ResponseStream(Replayed("s1", turn), store=True, after=after, queued=queued)
    frames = stream.opening() + b"".join(map(stream.piece, CHUNKS)) + stream.ending(turn)
    return [frame + b"\n\n" for frame in frames.split(b"\n\n")[:-1]]


def payload(frame: bytes) -> dict[str, object]:
    data: dict[str, object] = msgspec.json.decode(frame.split(b"data: ", 1)[1])
    return data


@given(st.integers(-1, 20), st.booleans())
def test_whoever_has_read_a_part_is_given_the_rest(after: int, queued: bool) -> None:
    whole = streamed(queued=queued)
    numbers = [payload(frame)["sequence_number"] for frame in whole[:-1]]
    assert numbers == list(range(len(numbers)))
    assert streamed(after=after, queued=queued) == [*whole[:-1][after + 1 :], DONE]


def test_one_that_waited_in_the_background_says_so() -> None:
    opening = [payload(frame) for frame in streamed(queued=True)[:3]]
    assert [event["type"] for event in opening] == ["response.created", "response.queued", "response.in_progress"]
    statuses = [event["response"]["status"] for event in opening]  # type: ignore[index]
    assert statuses == ["queued", "queued", "in_progress"]
