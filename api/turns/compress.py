"""When a session is compressed, and what is kept of it: pure functions of the session and of what is new.

Kept are the head of the transcript (how the conversation began), and its tail (what is being talked about), each within
a share of the threshold; one summary stands for all that is between them. A tool call and its output stay on the same
side of every cut. The roles go on alternating where they did: a tail that begins with a user follows a summary in the
words of the assistant, any other tail one in the words of the user.

Tokens are counted by the model server's own figures, as far as it has given any for this transcript; what is new since
then is estimated by its size.
"""

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple

import msgspec

from api.turns.request import TurnRequest
from api.turns.summary import is_summary
from eventstore.events import TurnCompleted, TurnStarted
from projections.messages import input_messages, size_bytes
from projections.session import Session
from projections.turn import Turn
from projections.usage import tokens_of

HEAD_MESSAGES_MAX = 3
KEPT_SHARE = 0.2  # of the threshold: for the tail, and for the head
NEWEST_SHARE = 0.5  # of the prompt: a newest exchange up to this is kept though it is beyond the tail's budget
SAVING_SHARE = 0.1  # of the prompt: a rotation that would save less is not worth a summary
MIDDLE_MESSAGES_MIN = 2
BYTES_PER_TOKEN = 4


class Compression(msgspec.Struct, frozen=True, kw_only=True):
    """When a session is compressed: as its prompt would pass the share `compress_at` of `context_tokens`; 0 is never.

    `summary_model` writes the summary, the turn's own model where it is empty; `summary_prompt` is what it is told.
    """

    context_tokens: int = 128_000
    compress_at: float = 0.5
    summary_model: str = ""
    summary_prompt: str = ""

    @property
    def threshold_tokens(self) -> int:
        """The prompt beyond which a session is compressed; 0 is never."""
        return int(self.context_tokens * self.compress_at)


class Size(NamedTuple):
    """What a prompt is estimated to take, and how many tokens a byte of its transcript is worth."""

    tokens: int
    tokens_per_byte: float


class Cut(NamedTuple):
    """What a rotation keeps of the transcript: so many messages of its beginning, and all from `tail_at` on."""

    head: int
    tail_at: int
    tokens_saved: int


class _Call(msgspec.Struct):
    id: str | None = None


class _Shape(msgspec.Struct):
    """A message as far as a cut must know it."""

    role: str = ""
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None


_decode = msgspec.json.Decoder(_Shape, strict=False).decode
_UNKNOWN = _Shape()


def asked_bytes(session: Session, request: TurnRequest) -> int:
    """How much `request` adds to the session's transcript in the prompt."""
    new = request.items if session.newest else request.opening
    return sum(map(size_bytes, new)) + sum(map(len, request.instructions)) + len(request.parameters)


def size_of(session: Session, asked_bytes: int) -> Size:
    """What the session's next prompt would take, with `asked_bytes` besides its transcript."""
    known = _known(session.newest_here)
    held_bytes = session.transcript_bytes
    if not known or not held_bytes:
        told_bytes = len(session.started.system_prompt) if session.started else 0
        return Size(estimate(held_bytes + asked_bytes + told_bytes), 1 / BYTES_PER_TOKEN)
    return Size(known + estimate(asked_bytes), known / held_bytes)


def size_without_usage(messages: Sequence[bytes]) -> Size:
    """What messages would take of which no model server has counted the tokens."""
    return Size(estimate(sum(map(size_bytes, messages))), 1 / BYTES_PER_TOKEN)


def _known(turn: Turn | None) -> int:
    """The tokens of the transcript up to and with `turn`, by the model server's own count; 0 where it gave none.

    What the turn was sent besides the transcript is taken off: the next turn brings its own.
    """
    if turn is None or not isinstance(turn.ended, TurnCompleted) or not turn.ended.usage:
        return 0
    used = tokens_of(turn.ended.usage)
    return max(0, used.input + used.output - used.reasoning - estimate(_beside_bytes(turn.started)))


def _beside_bytes(started: TurnStarted) -> int:
    return sum(map(len, started.instructions)) + len(started.parameters)


def tokens_per_character(messages: Sequence[bytes], size: Size) -> float:
    """How many tokens a character of the messages is likely to be."""
    characters = sum(len(message.decode(errors="replace")) for message in messages)
    return size.tokens_per_byte * sum(map(len, messages)) / max(characters, 1)


def estimate(size_bytes: int) -> int:
    """The tokens that so many bytes are likely to be."""
    return -(-size_bytes // BYTES_PER_TOKEN)


def cut_of(transcript: Sequence[bytes], new: Iterable[bytes], size: Size, threshold_tokens: int) -> Cut | None:
    """Where to cut; None where too little would be saved. `new` are the messages that will follow the transcript.

    A prompt smaller than the threshold is cut as though it were at it.
    """
    measured = _measured(transcript, new, size)
    budget = KEPT_SHARE * min(threshold_tokens or size.tokens, size.tokens)
    tail_at = _tail_at(measured, budget, size.tokens)
    head = _head(measured, tail_at, budget)
    # An earlier summary is carried on by the new one: a rotation is not worth it for that alone.
    fresh = [place for place in range(head, tail_at) if place not in measured.summaries]
    saved = sum(measured.weights[place] for place in fresh)
    if len(fresh) < MIDDLE_MESSAGES_MIN or saved < SAVING_SHARE * size.tokens:
        return None
    return Cut(head, tail_at, int(sum(measured.weights[head:tail_at])))


class _Measured(NamedTuple):
    """A transcript as far as a cut must know it: its messages and their tokens; before which of them, and behind the
    last, it can be cut; and where summaries stand in it.
    """

    shapes: list[_Shape]
    weights: list[float]
    can_cut: list[bool]
    summaries: list[int]

    def is_user(self, place: int) -> bool:
        return self.shapes[place].role == "user"


def _measured(transcript: Sequence[bytes], new: Iterable[bytes], size: Size) -> _Measured:
    shapes = [_shape(message) for message in transcript]
    return _Measured(
        shapes=shapes,
        weights=[size_bytes(message) * size.tokens_per_byte for message in transcript],
        can_cut=_uncut_before([*shapes, *map(_shape, new)]),
        summaries=[place for place, message in enumerate(transcript) if is_summary(message)],
    )


def _shape(message: bytes) -> _Shape:
    try:
        return _decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _UNKNOWN


def _uncut_before(shapes: Sequence[_Shape]) -> list[bool]:
    """For each place before a message and the one behind the last: whether a cut there parts no call and its output."""
    called: dict[str, int] = {}
    parted = [0] * (len(shapes) + 2)  # +1 where a pair begins to be cut, -1 behind its output
    for number, shape in enumerate(shapes):
        for call in shape.tool_calls or ():
            called[call.id or ""] = number
        if shape.tool_call_id is not None and (at := called.get(shape.tool_call_id)) is not None:
            parted[at + 1] += 1
            parted[number + 1] -= 1
    return [depth == 0 for depth in accumulate(parted)]


def _tail_at(measured: _Measured, budget: float, tokens: int) -> int:
    """The first message that is kept at the end: never an earlier summary, or there would be two."""
    count = len(measured.shapes)
    least = measured.summaries[-1] + 1 if measured.summaries else 0
    behind = list(accumulate(reversed(measured.weights), initial=0.0))[::-1]  # tokens from each place to the end
    places = [place for place in range(least, count) if measured.can_cut[place]]
    users = [place for place in places if measured.is_user(place)]
    fits = [place for place in places if behind[place] <= budget]
    if within := [place for place in fits if measured.is_user(place)] or fits:
        return within[0]
    if users and behind[users[-1]] <= NEWEST_SHARE * tokens:
        return users[-1]
    return next(place for place in range(count, -1, -1) if measured.can_cut[place])


def _head(measured: _Measured, tail_at: int, budget: float) -> int:
    """How many messages are kept at the beginning: as many as end in the role that the summary can answer."""
    ends_with_user = tail_at == len(measured.shapes) or measured.is_user(tail_at)
    for head in range(min([HEAD_MESSAGES_MAX, tail_at - MIDDLE_MESSAGES_MIN, *measured.summaries]), 0, -1):
        is_alternating = measured.is_user(head - 1) is ends_with_user
        if is_alternating and measured.can_cut[head] and sum(measured.weights[:head]) <= budget:
            return head
    return 0


def summary_role(transcript: Sequence[bytes], cut: Cut) -> str:
    """Who says the summary, so that roles alternate."""
    is_before_user = cut.tail_at == len(transcript) or _shape(transcript[cut.tail_at]).role == "user"
    return "assistant" if is_before_user else "user"


def first_kept_turn_id(session: Session, cut: Cut) -> str:
    """The turn that the tail begins in; empty where there is no tail, or where it begins in what an earlier rotation
    has kept.
    """
    place = len(session.transcript)
    if cut.tail_at == place:
        return ""
    for turn in reversed(session.current.transcript_turns):
        place -= len(turn.messages)
        if place <= cut.tail_at:
            return turn.turn_id
    return ""


def new_messages(request: TurnRequest, session: Session) -> tuple[bytes, ...]:
    """What the request adds to the transcript, as chat messages."""
    items = request.items if session.newest else request.opening
    started = TurnStarted(turn_id="", api=request.api, model="", items=items, owner="", lease_ms=0)
    return input_messages(started)
