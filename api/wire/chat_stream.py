"""Chat completions, streamed."""

from typing import Any

from api.models.model import Chunk
from api.problem import Problem, error_of
from api.turns.open_turn import LiveTurn
from api.wire.chat import ID, usage_of
from api.wire.frames import DONE, frame
from eventstore.events import TurnCompleted
from projections.turn import Turn


class StreamedCompletion:
    """The chunks that a client is sent for the chunks that a model sends: the same, under this turn's id."""

    def __init__(self, opened: LiveTurn, *, wants_usage: bool) -> None:
        turn = opened.turn
        self._session_id = opened.session_id
        self._head: dict[str, Any] = {
            "id": ID + turn.turn_id,
            "object": "chat.completion.chunk",
            "created": turn.started_us // 1_000_000,
            "model": turn.started.model,
        }
        self._wants_usage = wants_usage
        self._held: list[Chunk] = []

    def opening(self) -> bytes:
        """Nothing: a chat begins with its first chunk."""
        return b""

    def failing(self, problem: Problem) -> bytes:
        """The end of a stream that fails after it has begun: clients raise what the `error` says."""
        return frame({"error": error_of(problem)}) + DONE

    def piece(self, chunk: Chunk) -> bytes:
        """The chunk for the client. Empty for one that finishes, or moderates what was said: that must wait until the
        turn is durable.
        """
        self._head["model"] = chunk.model or self._head["model"]
        if chunk.moderation or any(choice.finish_reason for choice in chunk.choices):
            self._held.append(chunk)
            return b""
        if not chunk.choices:
            return b""
        return self._frame(chunk)

    def ending(self, turn: Turn) -> bytes:
        """The last chunks, once the turn is durable.

        Usage is in a chunk of its own where the client asked for it as OpenAI has it, else in the last finishing chunk,
        where clients of the older system look for it. The same chunk says where the turn went, for clients that can not
        read headers.
        """
        assert isinstance(turn.ended, TurnCompleted)  # noqa: S101 (the stream has ended well)
        usage: dict[str, Any] = {"usage": usage_of(turn.ended)}
        if self._session_id:
            usage["session_id"] = self._session_id
        if self._wants_usage:
            frames = [self._frame(chunk) for chunk in self._held]
            return b"".join((*frames, frame({**self._head, "choices": [], **usage}), DONE))
        newest = max((place for place, chunk in enumerate(self._held) if chunk.choices), default=-1)
        frames = [self._frame(chunk, usage if place == newest else None) for place, chunk in enumerate(self._held)]
        return b"".join((*frames, DONE))

    def _frame(self, chunk: Chunk, usage: dict[str, Any] | None = None) -> bytes:
        said: dict[str, Any] = {"choices": chunk.choices}
        if chunk.system_fingerprint:
            said["system_fingerprint"] = chunk.system_fingerprint
        if chunk.service_tier:
            said["service_tier"] = chunk.service_tier
        if chunk.moderation:
            said["moderation"] = chunk.moderation
        if usage or self._wants_usage:
            said |= usage or _NO_USAGE_YET
        return frame(self._head | said)


_NO_USAGE_YET: dict[str, Any] = {"usage": None}
