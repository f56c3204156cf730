"""The API's description as one HTML page: nothing is loaded from elsewhere, and nothing runs in it."""

import html
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

Json = dict[str, Any]

_DEPTH_MAX = 12
_ABOUT = (
    "<p>Every route but the open ones wants <code>Authorization: Bearer KEY</code>. "
    'The same description for programs: <a href="/openapi.json">/openapi.json</a>.</p>'
)
_STYLE = (files("api") / "docs.css").read_text()


def page(document: Json) -> str:
    """The page that an OpenAPI document makes."""
    info = document["info"]
    title = f"{info['title']} {info['version']}"
    rooms = {tag["name"]: list(_operations(document, tag["name"])) for tag in document["tags"]}
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{_text(title)}</title><style>{_STYLE}</style>",
        "<nav>",
        *(_index(room, operations) for room, operations in rooms.items()),
        f"</nav><main><h1>{_text(title)}</h1><p>{_text(info['description'])}</p>",
        _ABOUT,
    ]
    schemas = document["components"]["schemas"]
    for room, operations in rooms.items():
        parts.append(f"<h2>{_text(room)}</h2>")
        parts += [_operation(path, method, operation, schemas) for path, method, operation in operations]
    return "".join((*parts, "</main></html>"))


def _operations(document: Json, room: str) -> Iterator[tuple[str, str, Json]]:
    for path, methods in document["paths"].items():
        yield from ((path, method, operation) for method, operation in methods.items() if room in operation["tags"])


def _index(room: str, operations: list[tuple[str, str, Json]]) -> str:
    links = "".join(
        f'<a href="#{operation["operationId"]}">{_verb(method)}<code>{_text(path)}</code></a>'
        for path, method, operation in operations
    )
    return f"<h2>{_text(room)}</h2>{links}"


def _operation(path: str, method: str, operation: Json, schemas: Json) -> str:
    about = " ".join(filter(None, (operation["summary"], operation.get("description"))))
    parts = [
        f'<section id="{operation["operationId"]}"><h3>{_verb(method)} {_text(path)}</h3><p>{_prose(about)}',
        ' <span class="faint">No key needed.</span></p>' if operation.get("security") == [] else "</p>",
    ]
    if operation["parameters"]:
        rows = (_parameter(parameter) for parameter in operation["parameters"])
        parts.append(f"<details><summary>Parameters</summary><table>{''.join(rows)}</table></details>")
    if body := operation.get("requestBody"):
        parts.append(_body("Request body", body["content"], schemas, is_open=True))
    for status, answer in operation["responses"].items():
        if status != "default":
            parts.append(_body(f"Answer {status}", answer["content"], schemas))
    return "".join((*parts, "</section>"))


def _parameter(parameter: Json) -> str:
    need = "" if parameter["required"] else ' <span class="faint">optional</span>'
    about = parameter.get("description", "")
    kind = f'<span class="faint">{_text(_kind(parameter["schema"]))}, {parameter["in"]}</span>'
    return f"<tr><td><code>{_text(parameter['name'])}</code>{need}<td>{_prose(about)} {kind}"


def _body(title: str, content: Json, schemas: Json, *, is_open: bool = False) -> str:
    parts = []
    for media, entry in content.items():
        name, schema = _resolved(entry["schema"], schemas)
        head = f'{_text(title)} <span class="faint">{_text(media)} {_text(name)}</span>'
        fields = _fields(schema, schemas)
        about = f"<p>{_prose(schema.get('description', ''))}</p>" if schema.get("description") else ""
        state = " open" if is_open else ""
        parts.append(f"<details{state}><summary>{head}</summary>{about}{fields}</details>")
    return "".join(parts)


def _fields(schema: Json, schemas: Json, depth: int = 0) -> str:
    """The fields of an object, those of what they hold folded away below them."""
    if depth > _DEPTH_MAX or not schema.get("properties"):
        return ""
    required = set(schema.get("required", ()))
    rows = []
    for name, field in schema["properties"].items():
        need = "" if name in required else ' <span class="faint">optional</span>'
        inner = "".join(_inner(found, schemas, depth) for found in _references(field))
        rows.append(f"<tr><td><code>{_text(name)}</code>{need}<td>{_text(_kind(field))}{inner}")
    return f"<table>{''.join(rows)}</table>"


def _inner(name: str, schemas: Json, depth: int) -> str:
    schema = schemas[name]
    about = f"<p>{_prose(schema.get('description', ''))}</p>" if schema.get("description") else ""
    return f"<details><summary>{_text(name)}</summary>{about}{_fields(schema, schemas, depth + 1)}</details>"


def _references(field: Json) -> list[str]:
    """The structs that a field may hold, by name."""
    if ref := field.get("$ref"):
        return [ref.rpartition("/")[2]]
    inside = [*field.get("anyOf", ()), *([field["items"]] if isinstance(field.get("items"), dict) else ())]
    return list(dict.fromkeys(name for schema in inside for name in _references(schema)))


def _kind(field: Json) -> str:
    """A schema in a few words."""
    if ref := field.get("$ref"):
        return str(ref.rpartition("/")[2])
    if "anyOf" in field:
        return " or ".join(dict.fromkeys(map(_kind, field["anyOf"])))
    if "enum" in field:
        return " | ".join(str(value) for value in field["enum"])
    if "const" in field:
        return str(field["const"])
    kind = str(field.get("type", "any"))
    if kind == "array" and isinstance(field.get("items"), dict):
        kind = f"list of {_kind(field['items'])}"
    limits = [f"{words} {field[key]}" for key, words in _LIMITS.items() if key in field]
    default = [f"default {field['default']}"] if field.get("default") not in (None, [], {}) else []
    more = ", ".join((*limits, *default))
    return f"{kind} ({more})" if more else kind


_LIMITS = {
    "minimum": "from",
    "maximum": "to",
    "minLength": "at least",
    "maxLength": "at most",
    "minItems": "at least",
    "maxItems": "at most",
    "maxProperties": "at most",
}


def _resolved(schema: Json, schemas: Json) -> tuple[str, Json]:
    name = schema.get("$ref", "").rpartition("/")[2]
    return (name, schemas[name]) if name else ("", schema)


def _verb(method: str) -> str:
    return f'<span class="method">{method.upper()}</span>'


def _prose(text: str) -> str:
    """A text in which what stands between backticks is code."""
    pieces = _text(text).split("`")
    return "".join(f"<code>{piece}</code>" if number % 2 else piece for number, piece in enumerate(pieces))


def _text(text: object) -> str:
    return html.escape(str(text))
