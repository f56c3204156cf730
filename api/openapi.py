"""The API's description, made of the route table and the structs of the wire: OpenAPI 3.1, which every tool reads.

Pure: routes in, a JSON object out. Nothing is described here that is not handled, and nothing by hand.
"""

import inspect
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from api.problem import Envelope
from api.routes.route import SWITCHED, Route
from api.wire.headers import CHARACTERS_MAX, CONTINUITY, IDEMPOTENCY_KEY, MEMORY, SESSION_ID, SESSION_KEY
from api.wire.query import Parameter

Json = dict[str, Any]

_HEADER = {"type": "string", "maxLength": CHARACTERS_MAX}
_PLACE = re.compile(r"\{(\w+)(?::[^{}]*)?\}")
_REF = "#/components/schemas/{name}"
_ABOUT = (
    "A session service for LLM chat clients: a client sends only what is new, under any name it likes, and never "
    "loses, forks or doubles the conversation."
)
_SAYS = {SESSION_ID: "The session that the turn belongs to.", SESSION_KEY: "The scope of memory that it belongs to."}
_TURN_HEADERS = (
    *(Parameter(name, _SAYS.get(name, "Who speaks, or where; recorded and echoed."), _HEADER, "header")
      for name in CONTINUITY),
    Parameter(
        IDEMPOTENCY_KEY,
        "The same key and body again is answered from the log, for 24 hours.",
        {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
        "header",
    ),
    Parameter(MEMORY, "Whether the turn is given what was said in other sessions.", {"enum": ["on", "off"]}, "header"),
)  # fmt: skip


def document(routes: Iterable[Route], version: str) -> Json:
    """The whole description."""
    routes = list(routes)
    schemas = _Schemas([Envelope, *(kind for route in routes for kind in (route.body, route.answer) if kind)])
    paths: Json = {}
    for route in routes:
        paths.setdefault(path_of(route), {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "turnlog", "version": version, "description": _ABOUT},
        "tags": [{"name": room} for room in dict.fromkeys(route.room for route in routes)],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"key": []}],
    }


def path_of(route: Route) -> str:
    """The route's path without the patterns of its places."""
    return _PLACE.sub(r"{\1}", route.path)


class _Schemas:
    """The JSON schemas of the wire's structs; each struct is described once and referred to by its name."""

    def __init__(self, kinds: list[Any]) -> None:
        unique = list(dict.fromkeys(kinds))
        described = msgspec.json.schema_components(unique, ref_template=_REF)
        references, self.components = _plainly_named(described)
        self._references = dict(zip(unique, references, strict=True))

    def of(self, kind: Any) -> Json:
        return self._references[kind] if kind else {"type": "object"}


def _plainly_named(described: tuple[Any, Json]) -> tuple[list[Json], Json]:
    """Two structs of one name are told apart by their modules: `api.wire.response.Usage` becomes `ResponseUsage`."""
    text = msgspec.json.encode(described).decode()
    for name in described[1]:
        *_, module, struct = name.split(".") if "." in name else ("", "", name)
        plain = module.title().replace("_", "") + struct
        text = text.replace(f'"{_REF.format(name=name)}"', f'"{_REF.format(name=plain)}"').replace(
            f'"{name}":', f'"{plain}":'
        )
    references, components = msgspec.json.decode(text)
    return references, components


def _operation(route: Route, schemas: _Schemas) -> Json:
    summary, _, rest = inspect.getdoc(route.handler).partition("\n\n")  # type: ignore[union-attr]
    operation: Json = {
        "operationId": route.name,
        "tags": [route.room],
        "summary": _one_line(summary),
        "parameters": [*map(_in_path, _PLACE.findall(route.path)), *map(_parameter, _parameters(route))],
        "responses": {
            str(route.status): {"description": "As asked.", "content": _content(route, schemas)},
            "default": {"description": "An error.", "content": _json(schemas.of(Envelope))},
        },
    }
    if rest:
        operation["description"] = _one_line(rest)
    if route.body:
        operation["requestBody"] = {"required": route.needs_body, "content": _json(schemas.of(route.body))}
    if route.is_open:
        operation["security"] = []
    return operation


def _parameters(route: Route) -> tuple[Parameter, ...]:
    return (*route.parameters, *_TURN_HEADERS) if route.takes_turns else route.parameters


def _content(route: Route, schemas: _Schemas) -> Json:
    if route.status == SWITCHED:
        return {}
    if route.answers_html:
        return {"text/html": {"schema": {"type": "string"}}}
    # Without a schema: that of a stream is taken for that of each of its events.
    events: Json = {"text/event-stream": {"schema": {}}} if route.streams else {}
    if route.streams and not route.answer:
        return events
    return _json(schemas.of(route.answer)) | events


def _json(schema: Json) -> Json:
    return {"application/json": {"schema": schema}}


def _in_path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _parameter(parameter: Parameter) -> Json:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.is_required,
        "description": parameter.about,
        "schema": parameter.schema,
    }


def _one_line(text: str) -> str:
    return " ".join(text.split())
