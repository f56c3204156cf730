"""Requests that are not even HTTP: answered in the envelope too.

aiohttp answers a request that its parser refuses (a header that is too long, a control character in one) before any
application sees it, in plain text. Its `RequestHandler.handle_error` is where that answer is made.
"""

import asyncio
from typing import Any

import structlog
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from api.boundary import REQUEST_ID_HEADER, SERVER_NAME
from api.context import answer
from api.errors import problem_of
from api.ids import new_request_id
from api.problem import Problem, envelope

_log = structlog.get_logger()


class _Connection(RequestHandler):
    """One client's connection."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        request_id = new_request_id()
        reason = " ".join((message or str(exc) or "no reason given").split())
        _log.warning("not a request", request_id=request_id, status=status, reason=reason)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already: it can only be broken off")
        if exc is not None and status >= 500:
            problem = problem_of(RuntimeError(reason))  # our own fault, outside of the middleware
        else:
            problem = Problem(f"This is not a valid HTTP request: {reason}", status=status, code="bad_http")
        response = answer(
            envelope(problem), status=status, headers={REQUEST_ID_HEADER: request_id, "Server": SERVER_NAME}
        )
        response.force_close()
        return response


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
            plain.request_handler,
            request_factory=plain.request_factory,
            loop=asyncio.get_running_loop(),
            **known,
        )
