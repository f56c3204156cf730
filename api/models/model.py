"""What turnlog asks of a model, and how a model fails.

ModelError
├── ModelUnreachable   no connection, or it broke before an answer began
├── ModelTimeout       connect, first byte or whole answer took longer than allowed
├── ModelRefused       the model server answered with an error: its status, message and code are passed on
├── ModelBroke         the answer broke off in the middle
└── ModelGarbage       the answer is not what the protocol says
"""

from collections.abc import AsyncGenerator, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

NULL = msgspec.Raw(b"null")  # what a `Raw` field holds where there is nothing
# Parameters of the Responses API that the chat API has none for: only a server that speaks the former is sent them.
REASONING_SUMMARY = "reasoning.summary"
RESPONSES_ONLY = frozenset({REASONING_SUMMARY})


# What a model's server is spoken to in, as it is recorded: names are stored, and never change. The empty one is chat.
CHAT, RESPONSES, THOUGHTLESS_RESPONSES, NOWHERE = "", "responses", "responses_without_thoughts", "none"


class Way(NamedTuple):
    """How a prompt goes to a model: in which dialect, and under which name of it. `NOWHERE` where no server has it."""

    api: str = CHAT
    model: str = ""


class Prompt(msgspec.Struct, frozen=True):
    """All that a model is sent: chat messages (JSON objects), their size, and parameters by their chat names.

    The first `instructions` of the messages are this turn's system messages, the rest is the transcript and what is
    new.
    """

    model: str
    messages: Sequence[bytes]
    instructions: int
    messages_bytes: int
    parameters: dict[str, msgspec.Raw]


class Answer(msgspec.Struct, frozen=True):
    """A whole answer: assistant messages as the server gave them (JSON), its usage object, and the rest (JSON).

    `extra` may hold `logprobs`, `system_fingerprint`, `service_tier` and `moderation`; and where there are
    `alternatives`, `choices`: the `finish_reason` and the `logprobs` of each. A prompt in the Responses
    dialect went `without_thoughts` where the server had refused them.
    """

    message: bytes
    finish_reason: str
    usage: bytes = b""
    model: str = ""
    alternatives: tuple[bytes, ...] = ()
    extra: bytes = b""
    without_thoughts: bool = False


class Choice(msgspec.Struct):
    """One choice of a streamed chunk. `delta` keeps whatever fields the server sends."""

    index: int = 0
    delta: dict[str, Any] = {}
    finish_reason: str | None = None
    logprobs: Any = None


class Chunk(msgspec.Struct):
    """One chunk of a streamed answer; the first says whether the prompt went `without_thoughts`, as in `Answer`."""

    choices: list[Choice] = []
    usage: msgspec.Raw = NULL
    model: str = ""
    system_fingerprint: str | None = None
    service_tier: str | None = None
    moderation: Any = None
    without_thoughts: bool = False


class ModelInfo(msgspec.Struct):
    """One entry of the models list."""

    id: str
    created: int = 0
    owned_by: str = "turnlog"
    object: str = "model"


class ModelError(Exception):
    """The model did not answer. `code` is what the client is told and the log records."""

    code = "upstream_error"


class ModelUnreachable(ModelError):
    """The model server can not be reached, or hung up before its answer."""

    code = "upstream_unreachable"


class ModelTimeout(ModelError):
    """The model server was too slow."""

    code = "upstream_timeout"


class ModelRefused(ModelError):
    """The model server refused, and said why.

    What is the client's to mend (4xx) keeps the server's code and words; what is between the servers (its key, its
    failures) is said to be.
    """

    def __init__(
        self, status: int, message: str, *, code: str | None = None, param: str | None = None, retry_after: str = ""
    ) -> None:
        if status in (401, 403):
            message, code = f"the model server refused turnlog's own key: {message}", "upstream_auth"
        elif not 400 <= status < 500:
            message, code = f"the model server failed ({status}): {message}", "upstream_error"
        super().__init__(message)
        self.status = status
        self.code = code or ("rate_limit_exceeded" if status == 429 else "upstream_refused")
        self.param = param
        self.retry_after = retry_after


class ModelBroke(ModelError):
    """The model server broke off in the middle of its answer."""

    code = "upstream_broke_off"


class ModelGarbage(ModelError):
    """The model server's answer is not an answer."""

    code = "upstream_garbage"


class Model(Protocol):
    """Something that continues a conversation."""

    async def complete(self, prompt: Prompt) -> Answer:
        """The whole answer. Raises `ModelError`."""
        ...

    def stream(self, prompt: Prompt) -> AsyncGenerator[Chunk, None]:
        """The answer as it comes; the last chunk of each choice has a finish reason. Raises `ModelError`."""
        ...

    def way(self, model: str) -> Way:
        """How a prompt for the model of that name would be sent now."""
        ...

    async def models(self) -> list[ModelInfo]:
        """The models that can be named. Raises `ModelError`."""
        ...
