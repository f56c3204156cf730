"""A model server that speaks OpenAI's `/v1/responses`.

Thoughts go along: a server is asked for its reasoning items in a form that can be given back (`encrypted_content`), and
given those of the transcript. Some servers and models refuse that, and thoughts can be of another server that spoke
before: a request that is refused for them is sent once more without. A request that was refused has cost nothing.
"""

import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeAlias

import msgspec

from api.models.gather import Gathered
from api.models.model import (
    RESPONSES,
    THOUGHTLESS_RESPONSES,
    Answer,
    Chunk,
    ModelBroke,
    ModelGarbage,
    ModelInfo,
    ModelRefused,
    Prompt,
    Way,
)
from api.models.response_body import body_of
from api.models.response_chunks import Chunks, Event, Response
from api.models.sse import EventReader
from api.models.upstream import UpstreamServer, events_in, whole

PATH = "/responses"
THOUGHTLESS_MAX = 1_000

_decode_response = msgspec.json.Decoder(Response).decode
_decode_event = msgspec.json.Decoder(Event, strict=False).decode

_REASONING_ITEM = b'"type":"reasoning"'
# "reasoning.encrypted_content is not supported", "Encrypted content could not be verified", "item['content'] is …".
_ABOUT_THOUGHTS = re.compile(r"encrypted|reasoning|\binclude\b|\bitem\b|input\[\d", re.IGNORECASE)


# An answer in pieces, and whether it is one to a prompt without thoughts.
_Answering: TypeAlias = tuple[AsyncIterator[bytes], bool]


class ResponsesModel:
    """The models of a server, asked in the Responses dialect."""

    def __init__(self, server: UpstreamServer) -> None:
        self._server = server
        self._thoughtless: set[str] = set()  # models that refuse to be asked for what they think

    async def complete(self, prompt: Prompt) -> Answer:
        """See `Model.complete`."""
        async with self._asked(prompt, stream=False) as (pieces, without_thoughts):
            body = await whole(pieces)
        try:
            response = _decode_response(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ModelGarbage(f"the model server's answer is not a response: {error}") from error
        gathered = Gathered()
        for chunk in Chunks().whole(response):
            gathered.add(chunk)
        answer = gathered.answer()
        return msgspec.structs.replace(answer, without_thoughts=True) if without_thoughts else answer

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Chunk, None]:
        """See `Model.stream`."""
        async with self._asked(prompt, stream=True) as (pieces, without_thoughts):
            events, chunks = EventReader(), Chunks()
            has_begun, is_empty = False, True
            async for piece in pieces:
                is_empty = False
                for data in events_in(events, piece):
                    if data == b"[DONE]":
                        break
                    has_begun = True
                    for chunk in chunks.of(_event(data)):
                        chunk.without_thoughts = without_thoughts
                        yield chunk
                    if chunks.has_ended:
                        return
            if has_begun or is_empty:
                raise ModelBroke("the model server ended its response in the middle")
            raise ModelGarbage("the model server was asked for a stream and sent something else")

    def way(self, model: str) -> Way:
        """See `Model.way`."""
        return Way(THOUGHTLESS_RESPONSES if model in self._thoughtless else RESPONSES, model)

    async def models(self) -> list[ModelInfo]:
        """See `Model.models`."""
        return await self._server.models()

    @contextlib.asynccontextmanager
    async def _asked(self, prompt: Prompt, *, stream: bool) -> AsyncIterator[_Answering]:
        async with contextlib.AsyncExitStack() as asked:
            yield await self._pieces(asked, prompt, stream=stream)

    async def _pieces(self, asked: contextlib.AsyncExitStack, prompt: Prompt, *, stream: bool) -> _Answering:
        is_new = False
        if prompt.model not in self._thoughtless:
            body = body_of(prompt, stream=stream, with_thoughts=True)
            try:
                return await asked.enter_async_context(self._server.ask("POST", PATH, body)), False
            except ModelRefused as error:
                if not _is_about_thoughts(error):
                    raise
            is_new = _REASONING_ITEM not in body  # so that it was refused for what was asked, not for what was given
        body = body_of(prompt, stream=stream, with_thoughts=False)
        pieces = await asked.enter_async_context(self._server.ask("POST", PATH, body))
        if is_new and len(self._thoughtless) < THOUGHTLESS_MAX:
            self._thoughtless.add(prompt.model)
        return pieces, True


def _is_about_thoughts(error: ModelRefused) -> bool:
    told = f"{error} {error.code} {error.param}"
    return error.status in (400, 422) and _ABOUT_THOUGHTS.search(told) is not None


def _event(data: bytes) -> Event:
    try:
        return _decode_event(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ModelGarbage(f"the model server's stream holds what is not an event of a response: {error}") from error
