"""The description of the API as it is served: made once for a server, from its routes."""

from collections.abc import Iterable
from functools import cached_property

from api.docs_page import page
from api.openapi import document
from api.routes.route import Route
from api.wire.decode import encode


class Description:
    """Both forms of it, each made when it is first asked for."""

    def __init__(self, routes: Iterable[Route], version: str) -> None:
        self._routes = tuple(routes)
        self._version = version

    @cached_property
    def openapi(self) -> bytes:
        """For programs: an OpenAPI document, JSON."""
        return encode(document(self._routes, self._version))

    @cached_property
    def page(self) -> str:
        """For people: an HTML page."""
        return page(document(self._routes, self._version))
