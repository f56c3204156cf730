"""Chat Completions on the wire: a request in, a whole answer out."""

from typing import Annotated, Any, Literal

import msgspec

from api.models.model import NULL
from api.turns.directory import COMPLETION
from api.turns.request import Names, TurnRequest
from api.wire.chat_messages import INSTRUCTION_ROLES, messages_of
from api.wire.chat_parameters import (
    Audio,
    Bias,
    Choices,
    Function,
    Moderation,
    Named,
    Prediction,
    PromptCache,
    ResponseFormat,
    SafetyIdentifier,
    Stops,
    StreamOptions,
    Tool,
    ToolChoice,
    WebSearch,
    check_format,
    check_logprobs,
    check_prediction,
    check_streaming,
    check_tools,
)
from api.wire.checks import Count, Metadata, Penalty, Share, Temperature, TopLogprobs
from api.wire.decode import body_of, digest_of, rest_of
from api.wire.headers import Continuity
from eventstore.events import TurnCompleted
from projections.turn import Turn

ID = COMPLETION


class ChatRequest(msgspec.Struct):
    """The fields that are read or checked here. Whatever else a body holds is stored and passed on as it is."""

    messages: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1)]
    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    store: bool | None = None
    user: str | None = None
    metadata: Metadata | None = None
    n: Choices | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[str, Bias] | None = None
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    stop: str | Stops | None = None
    seed: int | None = None
    logprobs: bool | None = None
    top_logprobs: TopLogprobs | None = None
    tools: list[Tool] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: list[Function] | None = None
    function_call: str | Named | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = None
    verbosity: str | None = None
    modalities: list[str] | None = None
    audio: Audio | None = None
    prediction: Prediction | None = None
    web_search_options: WebSearch | None = None
    moderation: Moderation | None = None
    service_tier: str | None = None
    safety_identifier: SafetyIdentifier | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: PromptCache | None = None
    prompt_cache_retention: str | None = None

    @property
    def wants_usage(self) -> bool:
        """Whether the client asked for a chunk of its own with the usage."""
        return bool(self.stream_options and self.stream_options.include_usage)


_decoder = msgspec.json.Decoder(ChatRequest)
# Kept out of the turn's parameters. That a completion is to be stored is one of them; that nothing is, is not recorded.
_OURS = frozenset({"messages", "model", "stream", "stream_options"})


def decode(body: bytes) -> ChatRequest:
    """The request in `body`; raises `Problem`."""
    chat = body_of(_decoder, body)
    if chat.tools or chat.tool_choice:
        check_tools(chat.tools or (), chat.tool_choice)
    if chat.response_format:
        check_format(chat.response_format)
    if chat.prediction:
        check_prediction(chat.prediction)
    if chat.top_logprobs:
        check_logprobs(chat.logprobs)
    if chat.stream_options:
        check_streaming(chat.stream)
    return chat


def turn_request(chat: ChatRequest, body: bytes, tenant: str, headers: Continuity) -> TurnRequest:
    """The turn that a chat request asks for; raises `Problem`.

    What is new is what stands behind the body's last assistant message. System and developer messages are this turn's
    instructions, wherever they stand.
    """
    raws = [bytes(raw) for raw in chat.messages]
    messages = messages_of(raws)
    spoken = [index for index, message in enumerate(messages) if message.role not in INSTRUCTION_ROLES]
    said_by_model = [index for index in spoken if messages[index].role == "assistant"]
    newest_answer = said_by_model[-1] if said_by_model else -1
    new = [index for index in spoken if index > newest_answer]
    is_resent = bool(said_by_model and new and not headers.session_id)
    return TurnRequest(
        tenant=tenant,
        api="chat",
        names=Names(session_id=headers.session_id),
        model=chat.model or "",
        items=tuple(raws[index] for index in new),
        opening=tuple(raws[index] for index in spoken),
        instructions=tuple(raws[i] for i, message in enumerate(messages) if message.role in INSTRUCTION_ROLES),
        parameters=rest_of(body, _OURS),
        stream=bool(chat.stream),
        session_key=headers.session_key,
        identity=headers.identity,
        uses_memory=headers.uses_memory,
        idempotency_key=headers.idempotency_key,
        body_digest=digest_of(body) if headers.idempotency_key else b"",
        history=len(spoken) - len(new) if is_resent else 0,
    )


class _Other(msgspec.Struct):
    """What came with another choice than the first."""

    finish_reason: str = "stop"
    logprobs: msgspec.Raw = NULL


class _Extra(msgspec.Struct):
    """What a model server's answer held besides its messages and its usage. `choices` are all but the first."""

    logprobs: msgspec.Raw = NULL
    choices: list[_Other] = []
    system_fingerprint: str | None = None
    service_tier: str | None = None
    moderation: msgspec.Raw = NULL


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
    moderation: Any = None


_NO_USAGE = msgspec.Raw(b'{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}')
_PLAIN = _Extra()
_PLAIN_OTHER = _Other()


def completion(turn: Turn) -> Completion:
    """A completed turn as a chat completion."""
    done = turn.ended
    assert isinstance(done, TurnCompleted)  # noqa: S101 (called with completed turns)
    extra = msgspec.json.decode(done.extra, type=_Extra) if done.extra else _PLAIN
    return Completion(
        id=ID + turn.turn_id,
        object="chat.completion",
        created=turn.started_us // 1_000_000,
        model=done.model or turn.started.model,
        choices=_choices(done, extra),
        usage=usage_of(done),
        system_fingerprint=extra.system_fingerprint,
        service_tier=extra.service_tier,
        moderation=None if extra.moderation == NULL else extra.moderation,
    )


def _choices(done: TurnCompleted, extra: _Extra) -> list[Choice]:
    choices = [Choice(0, msgspec.Raw(done.output[0]), extra.logprobs, done.finish_reason)]
    for index, message in enumerate(done.alternatives, 1):
        other = extra.choices[index - 1] if index <= len(extra.choices) else _PLAIN_OTHER
        choices.append(Choice(index, msgspec.Raw(message), other.logprobs, other.finish_reason))
    return choices


def usage_of(done: TurnCompleted) -> msgspec.Raw:
    """The model server's usage object; zeros where it sent none."""
    return msgspec.Raw(done.usage) if done.usage else _NO_USAGE
