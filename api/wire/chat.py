"""Chat Completions on the wire: a request in, an answer or chunks out."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec

from api.models.model import NULL, Chunk
from api.problem import Problem, error_of
from api.turns.open_turn import LiveTurn
from api.turns.request import Names, TurnRequest
from api.wire.checks import (
    Count,
    Metadata,
    NamedTool,
    Part,
    Penalty,
    Share,
    Temperature,
    Tool,
    TopLogprobs,
    check_content,
)
from api.wire.decode import body_of, digest_of, rest_of
from api.wire.frames import DONE, frame
from api.wire.headers import Continuity
from eventstore.events import TurnCompleted
from projections.turn import Turn

ID = "chatcmpl-"
INSTRUCTION_ROLES = frozenset({"system", "developer"})


class StreamOptions(msgspec.Struct):
    """How the client wants its stream."""

    include_usage: bool | None = False


class ChatRequest(msgspec.Struct):
    """The fields that are read or checked here. Whatever else a body holds is stored and passed on as it is."""

    messages: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1)]
    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    store: bool | None = None
    user: str | None = None
    metadata: Metadata | None = None
    n: Count | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    tools: list[Tool] | None = None
    tool_choice: str | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None

    @property
    def wants_usage(self) -> bool:
        """Whether the client asked for a chunk of its own with the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


class _Message(msgspec.Struct):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    name: str | None = None


_decoder = msgspec.json.Decoder(ChatRequest)
_message_decoder = msgspec.json.Decoder(_Message)
_OURS = frozenset({"messages", "model", "stream", "stream_options", "store"})


def decode(body: bytes) -> ChatRequest:
    """The request in `body`; raises `Problem`."""
    return body_of(_decoder, body)


def turn_request(chat: ChatRequest, body: bytes, tenant: str, headers: Continuity) -> TurnRequest:
    """The turn that a chat request asks for; raises `Problem`.

    What is new is what stands behind the body's last assistant message. System and developer messages are this turn's
    instructions, wherever they stand.
    """
    messages = [bytes(raw) for raw in chat.messages]
    decoded = [body_of(_message_decoder, raw, f"messages[{index}]") for index, raw in enumerate(messages)]
    _check_newest(decoded)
    spoken = [index for index, message in enumerate(decoded) if message.role not in INSTRUCTION_ROLES]
    said_by_model = [index for index in spoken if decoded[index].role == "assistant"]
    newest_answer = said_by_model[-1] if said_by_model else -1
    new = [index for index in spoken if index > newest_answer]
    is_resent = bool(said_by_model and new and not headers.session_id)
    return TurnRequest(
        tenant=tenant,
        api="chat",
        names=Names(session_id=headers.session_id),
        model=chat.model or "",
        items=tuple(messages[index] for index in new),
        opening=tuple(messages[index] for index in spoken),
        instructions=tuple(messages[i] for i, message in enumerate(decoded) if message.role in INSTRUCTION_ROLES),
        parameters=rest_of(body, _OURS),
        stream=bool(chat.stream),
        session_key=headers.session_key,
        identity=headers.identity,
        uses_memory=headers.uses_memory,
        idempotency_key=headers.idempotency_key,
        body_digest=digest_of(body) if headers.idempotency_key else b"",
        history=len(spoken) - len(new) if is_resent else 0,
    )


def _check_newest(messages: Sequence[_Message]) -> None:
    spoken = [(index, message) for index, message in enumerate(messages) if message.role not in INSTRUCTION_ROLES]
    if not spoken:
        raise Problem("No user message found in messages.", param="messages", code="no_user_message")
    newest = spoken[-1][0]
    for index, message in spoken:
        if message.role == "tool" and not message.tool_call_id:
            path = f"messages[{index}].tool_call_id"
            raise Problem(f"Missing required parameter: '{path}'.", param=path, code="missing_required_parameter")
        is_required = message.role == "user" and index == newest
        check_content(message.content, f"messages[{index}].content", is_required=is_required)


class _Extra(msgspec.Struct):
    """What a model server's answer held besides its messages and its usage."""

    logprobs: msgspec.Raw = NULL
    system_fingerprint: str | None = None
    service_tier: str | None = None


class Choice(msgspec.Struct):
    """One choice of an answer."""

    index: int
    message: msgspec.Raw
    logprobs: msgspec.Raw
    finish_reason: str


class Completion(msgspec.Struct, omit_defaults=True):
    """A whole answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[Choice]
    usage: msgspec.Raw
    system_fingerprint: str | None = None
    service_tier: str | None = None


_NO_USAGE = msgspec.Raw(b'{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}')
_PLAIN = _Extra()


def completion(turn: Turn) -> Completion:
    """A completed turn as a chat completion."""
    done = turn.ended
    assert isinstance(done, TurnCompleted)  # noqa: S101 (called with completed turns)
    extra = msgspec.json.decode(done.extra, type=_Extra) if done.extra else _PLAIN
    first, *others = (*done.output, *done.alternatives)
    return Completion(
        id=ID + turn.turn_id,
        object="chat.completion",
        created=turn.started_us // 1_000_000,
        model=done.model or turn.started.model,
        choices=[
            Choice(0, msgspec.Raw(first), extra.logprobs, done.finish_reason),
            *(Choice(index, msgspec.Raw(other), NULL, "stop") for index, other in enumerate(others, 1)),
        ],
        usage=usage_of(done),
        system_fingerprint=extra.system_fingerprint,
        service_tier=extra.service_tier,
    )


def usage_of(done: TurnCompleted) -> msgspec.Raw:
    """The model server's usage object; zeros where it sent none."""
    return msgspec.Raw(done.usage) if done.usage else _NO_USAGE


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
        self._finishing: list[Chunk] = []

    def opening(self) -> bytes:
        """Nothing: a chat begins with its first chunk."""
        return b""

    def failing(self, problem: Problem) -> bytes:
        """The end of a stream that fails after it has begun: clients raise what the `error` says."""
        return frame({"error": error_of(problem)}) + DONE

    def piece(self, chunk: Chunk) -> bytes:
        """The chunk for the client. Empty for one that finishes: that must wait until the turn is durable."""
        self._head["model"] = chunk.model or self._head["model"]
        if any(choice.finish_reason for choice in chunk.choices):
            self._finishing.append(chunk)
            return b""
        if not chunk.choices:
            return b""
        return self._frame(chunk)

    def ending(self, turn: Turn) -> bytes:
        """The last chunks, once the turn is durable.

        Usage is in a chunk of its own where the client asked for it as OpenAI has it, else in the finishing chunk,
        where clients of the older system look for it. The last chunk says where the turn went, for clients that can not
        read headers.
        """
        assert isinstance(turn.ended, TurnCompleted)  # noqa: S101 (the stream has ended well)
        usage: dict[str, Any] = {"usage": usage_of(turn.ended)}
        if self._session_id:
            usage["session_id"] = self._session_id
        if self._wants_usage:
            frames = [self._frame(chunk) for chunk in self._finishing]
            return b"".join((*frames, frame({**self._head, "choices": [], **usage}), DONE))
        frames = [self._frame(chunk, usage) for chunk in self._finishing]
        return b"".join((*frames, DONE))

    def _frame(self, chunk: Chunk, usage: dict[str, Any] | None = None) -> bytes:
        usage = usage or ({"usage": None} if self._wants_usage else {})
        fingerprint = {"system_fingerprint": chunk.system_fingerprint} if chunk.system_fingerprint else {}
        return frame({**self._head, **fingerprint, "choices": chunk.choices, **usage})
