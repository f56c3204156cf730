"""What a route is: where it is, who handles it, what it takes and what it answers. One row tells the server and its
description alike.
"""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from aiohttp import hdrs, web

from api.wire.query import Parameter

SWITCHED = 101  # the status where a connection goes on as something else than HTTP

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Route(msgspec.Struct, frozen=True):
    """A row of the table. The handler's docstring says what it does.

    `name` is how clients find it in the capabilities, `room` the heading it is described under. `body` and `answer` are
    structs of the wire; a body may lack where the route `needs_body` not. `status` is that of an answer that went well.
    One that `streams` answers server-sent events, always or where the body asks for them. One that `takes_turns` reads
    the continuity headers. One that `is_open` asks for no key. One that `answers_html` is for people. One that
    `only_asks` changes nothing, though it is no GET.
    """

    room: str
    method: str
    path: str
    handler: Handler
    name: str
    body: Any = None
    needs_body: bool = True
    answer: Any = None
    status: int = 200
    parameters: tuple[Parameter, ...] = ()
    streams: bool = False
    takes_turns: bool = False
    is_open: bool = False
    answers_html: bool = False
    only_asks: bool = False

    @property
    def changes(self) -> bool:
        """Whether something is different afterwards, or may be."""
        return self.status == SWITCHED or not (self.method == hdrs.METH_GET or self.only_asks)
