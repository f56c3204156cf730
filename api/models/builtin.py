"""The built-in model: offline, deterministic, and its answers show continuity.

It answers when no `--upstream` is given, so that a newcomer sees within a minute what is remembered across a restart:
how many messages came before, and what was said first.
"""

import re
from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from api.models.model import Answer, Choice, Chunk, ModelInfo, Prompt, Way

NAME = "turnlog-builtin"
_QUOTE_CHARACTERS = 200
_BYTES_PER_TOKEN = 4

_INSTRUCTIONS = frozenset({"system", "developer"})

_encode = msgspec.json.Encoder().encode


class _Message(msgspec.Struct):
    role: str = ""
    content: str | list[dict[str, Any]] | None = None

    def text(self) -> str:
        if isinstance(self.content, list):
            return " ".join(str(part.get("text", f"[{part.get('type')}]")) for part in self.content)
        return self.content or ""


_decode = msgspec.json.Decoder(_Message, strict=False).decode


class BuiltinModel:
    """A model without a model."""

    async def complete(self, prompt: Prompt) -> Answer:
        """See `Model.complete`."""
        text = reply(prompt)
        message = _encode({"role": "assistant", "content": text})
        return Answer(message=message, finish_reason="stop", usage=_usage(prompt, text), model=prompt.model)

    async def stream(self, prompt: Prompt) -> AsyncGenerator[Chunk, None]:
        """See `Model.stream`."""
        text = reply(prompt)
        yield _chunk(prompt, {"role": "assistant", "content": ""})
        for word in re.findall(r"\s*\S+", text):
            yield _chunk(prompt, {"content": word})
        yield _chunk(prompt, {}, finish_reason="stop")
        yield Chunk(usage=msgspec.Raw(_usage(prompt, text)), model=prompt.model)

    def way(self, model: str) -> Way:
        """See `Model.way`: nothing is sent anywhere; a chat's server would be sent this."""
        return Way(model=model)

    async def models(self) -> list[ModelInfo]:
        """See `Model.models`."""
        return [ModelInfo(id=NAME)]


def reply(prompt: Prompt) -> str:
    """What the built-in model says to a prompt: what it was told now, how much came before, and how that began."""
    told = _decode(prompt.messages[-1])
    spoken = (message for data in prompt.messages if (message := _decode(data)).role not in _INSTRUCTIONS)
    first = next(spoken)
    said = f'You said: "{_quote(told.text())}".' if told.role == "user" else f'The tool said: "{_quote(told.text())}".'
    earlier = len(prompt.messages) - prompt.instructions - 1
    if not earlier:
        return f"{said} This is the first message I see."
    count = f"{earlier} earlier message{'s' if earlier > 1 else ''}"
    return f'{said} I see {count}; the first was: "{_quote(first.text())}".'


def _quote(text: str) -> str:
    return text if len(text) <= _QUOTE_CHARACTERS else text[:_QUOTE_CHARACTERS] + "…"


def _chunk(prompt: Prompt, delta: dict[str, Any], finish_reason: str | None = None) -> Chunk:
    return Chunk(choices=[Choice(0, delta, finish_reason)], model=prompt.model)


def _usage(prompt: Prompt, text: str) -> bytes:
    """A rough count, four bytes to a token, so that clients that show usage have something to show."""
    asked = prompt.messages_bytes // _BYTES_PER_TOKEN + 1
    answered = len(text) // _BYTES_PER_TOKEN + 1
    return _encode({"prompt_tokens": asked, "completion_tokens": answered, "total_tokens": asked + answered})
