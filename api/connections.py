"""Requests that are not even HTTP: answered in the envelope too.

aiohttp answers a request that its parser refuses (a header that is too long, a control character in one) before any
application sees it, in plain text. Its `RequestHandler.handle_error` is where that answer is made. One that expects
what there is not (`Expect: x`) it refuses in the application, but before any of our middleware.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from aiohttp import hdrs, web
from aiohttp.http_exceptions import InvalidURLError
from aiohttp.web_protocol import RequestHandler

from api.boundary import REQUEST_ID_HEADER, SERVER_NAME
from api.context import answer
from api.errors import problem_of
from api.ids import new_request_id
from api.problem import Problem, envelope

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]

_log = structlog.get_logger()
_QUOTED = re.compile(r"\bb(['\"]).*", re.DOTALL)
_CONTINUE = "100-continue"


class _Connection(RequestHandler):
    """One client's connection."""

    __slots__ = ()

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        """Log what went wrong behind an answer; not the rest of a body of which the client was told that it is bad."""
        if not isinstance(kwargs.get("exc_info"), web.RequestPayloadError):
            super().log_exception(*args, **kwargs)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if isinstance(exc, ConnectionError):
            raise exc  # the client hung up: there is nobody to tell
        request_id = new_request_id()
        reason = " ".join((message or str(exc) or "no reason given").split())
        _log.warning("not a request", request_id=request_id, status=status, reason=_loggable(reason, exc))
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already: it can only be broken off")
        if exc is not None and status >= 500:
            problem = problem_of(RuntimeError(reason))  # our own fault, outside of the middleware
        else:
            problem = Problem(f"This is not a valid HTTP request: {reason}", status=status, code="bad_http")
        response = _answered(problem, request_id)
        response.force_close()
        return response


def _loggable(reason: str, exc: BaseException | None) -> str:
    """The reason without what was sent, which the parser says back: a key, a message, what was searched for."""
    return "invalid URL" if isinstance(exc, InvalidURLError) else _QUOTED.sub("…", reason)


def _without_expectations(handler: Handler) -> Handler:
    """The application, and an answer in the envelope for whoever expects more than a `100 Continue`."""

    def handle(request: web.BaseRequest) -> Awaitable[web.StreamResponse]:
        is_plain = request.headers.get(hdrs.EXPECT, _CONTINUE).lower() == _CONTINUE
        return handler(request) if is_plain else _refuse_expectation()

    return handle


async def _refuse_expectation() -> web.StreamResponse:
    return _answered(Problem("Expect can only be '100-continue'.", status=417, param="Expect", code="bad_http"))


def _answered(problem: Problem, request_id: str = "") -> web.Response:
    headers = {REQUEST_ID_HEADER: request_id or new_request_id(), hdrs.SERVER: SERVER_NAME}
    return answer(envelope(problem), status=problem.status, headers=headers)


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application on connections that answer everything in the envelope."""

    __slots__ = ()

    async def _make_server(self) -> web.Server:
        plain = await super()._make_server()
        known: dict[str, Any] = {**plain._kwargs, "handler_cancellation": plain.handler_cancellation}  # noqa: SLF001
        return _Server(
            _without_expectations(plain.request_handler),
            request_factory=plain.request_factory,
            loop=asyncio.get_running_loop(),
            **known,
        )
