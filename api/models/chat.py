"""A model server that speaks OpenAI's `/v1/chat/completions`."""

from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from api.models.model import NULL, RESPONSES_ONLY, Answer, Chunk, ModelGarbage, ModelInfo, Prompt, Way
from api.models.refused import refusal
from api.models.sse import EventReader
from api.models.tidy import tidy_message
from api.models.upstream import UpstreamServer, events_in, whole

PATH = "/chat/completions"

# Fields of an assistant message that are turnlog's own, made of what another upstream said in the Responses dialect.
_OURS = frozenset({"reasoning_items", "reasoning_summary"})
_OURS_QUOTED = tuple(f'"{name}"'.encode() for name in sorted(_OURS))
_OURS_MAYBE = b'"reasoning_'  # one look at the whole body is enough for most


class _Choice(msgspec.Struct):
    message: msgspec.Raw
    index: int = 0
    finish_reason: str | None = None
    logprobs: msgspec.Raw = NULL


class _Completion(msgspec.Struct):
    choices: list[_Choice] = []
    error: Any = None
    usage: msgspec.Raw = NULL
    model: str = ""
    system_fingerprint: str | None = None
    service_tier: str | None = None
    moderation: msgspec.Raw = NULL


class _StreamedChunk(Chunk):
    error: Any = None


_decode_completion = msgspec.json.Decoder(_Completion, strict=False).decode
_decode_chunk = msgspec.json.Decoder(_StreamedChunk, strict=False).decode
_decode_message = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


class ChatModel:
    """The models of a server, asked in the chat dialect."""

    def __init__(self, server: UpstreamServer) -> None:
        self._server = server

    async def complete(self, prompt: Prompt) -> Answer:
        """See `Model.complete`."""
        async with self._server.ask("POST", PATH, body_of(prompt, stream=False)) as pieces:
            body = await whole(pieces)
        try:
            body.decode()  # the message is kept as it is, and must be text
            return _answer(_decode_completion(body))
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise ModelGarbage(f"the model server's answer is not a chat completion: {error}") from error

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Chunk, None]:
        """See `Model.stream`."""
        body = body_of(prompt, stream=True)
        async with self._server.ask("POST", PATH, body) as pieces:
            events = EventReader()
            has_begun, is_empty = False, True
            async for piece in pieces:
                is_empty = False
                for data in events_in(events, piece):
                    if data == b"[DONE]":
                        return
                    yield _chunk(data)
                    has_begun = True
            if not (has_begun or is_empty):
                raise ModelGarbage("the model server was asked for a stream and sent something else")

    def way(self, model: str) -> Way:
        """See `Model.way`."""
        return Way(model=model)

    async def models(self) -> list[ModelInfo]:
        """See `Model.models`."""
        return await self._server.models()


def body_of(prompt: Prompt, *, stream: bool) -> bytes:
    """A prompt as the body of POST /v1/chat/completions. What was sent once is shown again by this: it must not change
    for what is in logs.
    """
    fields: dict[str, object] = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    parameters = prompt.parameters
    if not RESPONSES_ONLY.isdisjoint(parameters):
        parameters = {name: value for name, value in parameters.items() if name not in RESPONSES_ONLY}
    messages = [msgspec.Raw(message) for message in prompt.messages]
    body = _encode({"model": prompt.model, "messages": messages, **parameters, **fields})
    if _OURS_MAYBE not in body or not _has_ours(body):
        return body
    messages = [msgspec.Raw(_without_ours(message)) for message in prompt.messages]
    return _encode({"model": prompt.model, "messages": messages, **parameters, **fields})


def _has_ours(data: bytes) -> bool:
    return any(name in data for name in _OURS_QUOTED)


def _without_ours(message: bytes) -> bytes:
    if not _has_ours(message):
        return message
    return _encode({name: value for name, value in _decode_message(message).items() if name not in _OURS})


def _answer(completion: _Completion) -> Answer:
    if completion.error:
        raise refusal(502, completion.error)
    if not completion.choices:
        raise ValueError("it has no choices")
    if not all(bytes(choice.message).lstrip().startswith(b"{") for choice in completion.choices):
        raise ValueError("a choice's message is not an object")
    first, *others = sorted(completion.choices, key=lambda choice: choice.index)
    extra = {
        "logprobs": first.logprobs,
        "system_fingerprint": completion.system_fingerprint,
        "service_tier": completion.service_tier,
        "moderation": completion.moderation,
        "choices": [{"finish_reason": o.finish_reason or "stop", "logprobs": o.logprobs} for o in others] or None,
    }
    said = {name: value for name, value in extra.items() if value not in (None, NULL)}
    return Answer(
        message=tidy_message(bytes(first.message)),
        finish_reason=first.finish_reason or "stop",
        usage=b"" if completion.usage == NULL else bytes(completion.usage),
        model=completion.model,
        alternatives=tuple(tidy_message(bytes(choice.message)) for choice in others),
        extra=_encode(said) if said else b"",
    )


def _chunk(data: bytes) -> Chunk:
    try:
        chunk = _decode_chunk(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelGarbage(f"the model server's stream holds what is not a chat chunk: {error}") from error
    if chunk.error:
        raise refusal(502, chunk.error)
    if not all(_is_delta(choice.delta) for choice in chunk.choices):
        raise ModelGarbage("the model server's stream holds a delta that can not be added to a message")
    return chunk


def _is_delta(delta: dict[str, Any]) -> bool:
    """Whether what we add up is of a kind that can be; what we only keep may be anything."""
    calls = delta.get("tool_calls") or []
    return (
        isinstance(delta.get("content") or "", str | list)
        and isinstance(calls, list)
        and all(isinstance(call, dict) and isinstance(call.get("function") or {}, dict) for call in calls)
    )
