"""The events of a response in the background, for any number of readers, from any number on.

They are those of every streamed response, with `response.queued` among the first, and the same byte for byte whenever
they are read. One number never stands for two events: what a response that was started again says the second time is
numbered from the next million on, and so is the end of one that was lost, since nobody knows how far it had come.
"""

import re
from collections.abc import Mapping

import msgspec

from api.models.model import Chunk
from api.problem import Problem
from api.wire.query import Flag, Parameter
from api.wire.response import is_lost
from api.wire.response_stream import ResponseStream, Told
from eventstore.events import TurnCancelled
from projections.turn import Turn

ATTEMPT = 1_000_000
STREAM = Flag("stream", "The events instead of the object, of a response made with background=true and stream=true.")
STARTING_AFTER = Parameter(
    "starting_after",
    "The sequence_number of the last event that was seen: the stream begins behind it.",
    {"type": "integer", "minimum": 0},
)

_NUMBER = re.compile(r"[0-9]{1,18}")


class BackgroundStream:
    """Writes the events behind number `after` of one response. Each method gives whole frames."""

    def __init__(self, told: Told, after: int = -1) -> None:
        self._told = told
        self._stream = ResponseStream(told, store=True, after=after, queued=True)

    def waiting(self) -> bytes:
        """What is said before its turn has begun."""
        return self._stream.waiting()

    def opening(self) -> bytes:
        """What comes before any output, without what was said before; and that what came earlier no longer holds."""
        begun = self._stream.opening()
        if self._told.turn.restarted is None:
            return begun
        self._stream.jump(ATTEMPT)
        return begun + self._stream.opening()

    def piece(self, chunk: Chunk) -> bytes:
        """What a chunk of the model's answer brings."""
        return self._stream.piece(chunk)

    def ending(self, turn: Turn) -> bytes:
        """The end of a turn; nothing where it has none, since it goes on after the next start."""
        if turn.ended is None:
            return b""
        if is_lost(turn) and isinstance(turn.ended, TurnCancelled) and turn.ended.reason == "crash":
            number = self._stream.next_number
            self._stream.jump(number + ATTEMPT - number % ATTEMPT)
        return self._stream.ending(turn)


class Wanted(msgspec.Struct, frozen=True):
    """How a response is to be given: streamed or not, behind which event."""

    stream: bool = False
    after: int = -1


def wanted(query: Mapping[str, str]) -> Wanted:
    """What a query asks for; raises `Problem`."""
    is_streamed, after = STREAM.of(query), query.get(STARTING_AFTER.name)
    if after is None:
        return Wanted(is_streamed)
    if not _NUMBER.fullmatch(after):
        raise Problem(
            "starting_after must be the sequence_number of an event of this response: a whole number.",
            param=STARTING_AFTER.name,
            code="invalid_value",
        )
    return Wanted(is_streamed, int(after))


def check_streamable(turn: Turn) -> None:
    """Raise `Problem` where the response can not be streamed to whoever asks."""
    if not (turn.started.background and turn.started.stream):
        raise Problem(
            "Only a response that was made with background=true and stream=true can be streamed again.",
            param=STREAM.name,
            code="unsupported_parameter",
        )
