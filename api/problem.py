"""A request that is refused at the edge, before anything was decided: malformed, not allowed, not found."""

import msgspec

MESSAGE_CHARACTERS_MAX = 4_000


class Problem(Exception):
    """Says what was expected and what to do. Becomes OpenAI's error envelope as it is."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        type_: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.type = type_
        self.param = param
        self.code = code
        self.headers = headers or {}


class Error(msgspec.Struct):
    """OpenAI's error object: all four keys, always."""

    message: str
    type: str
    param: str | None
    code: str | None


class Envelope(msgspec.Struct):
    """The body of every answer that is an error."""

    error: Error


def error_of(problem: Problem) -> Error:
    """The problem as the client is told. What it says back of a request may be long, or no text at all."""
    message = problem.message
    if len(message) > MESSAGE_CHARACTERS_MAX:
        message = message[:MESSAGE_CHARACTERS_MAX] + "…"
    return Error(message.encode(errors="replace").decode(), problem.type, problem.param, problem.code)


def envelope(problem: Problem) -> Envelope:
    """The body that tells of `problem`."""
    return Envelope(error_of(problem))
