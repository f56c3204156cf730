"""Bodies from the wire: decoded into structs, and refused with the name of what is wrong."""

import hashlib
import re
from typing import TypeVar

import msgspec

from api.models.model import NULL
from api.problem import Problem

T = TypeVar("T")

Fields = dict[str, msgspec.Raw]

MARGIN_FRAMES = 50

_JSON_TYPES = {"str": "string", "bool": "boolean", "int": "integer", "float": "number"}
_TYPE = re.compile(r"\b(?:str|bool|int|float)\b")

encode = msgspec.json.Encoder().encode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_DELIVERY = frozenset({"stream", "stream_options"})
_decode_fields = msgspec.json.Decoder(Fields).decode
_PATH = re.compile(r" - at (?:`key` in )?`\$\.?(?P<path>[^`]*)`$")


def body_of(decoder: msgspec.json.Decoder[T], body: bytes, where: str = "") -> T:
    """`body` as the decoder's type. `where` is the place of a part that is decoded on its own: `messages[3]`."""
    try:
        body.decode()  # what is only passed on is not looked at, and must be text all the same
        return _with_margin(decoder, body, 0 if where else MARGIN_FRAMES)
    except msgspec.ValidationError as error:
        raise _invalid(error, where) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem(f"Invalid JSON in request body: {error}", code="invalid_json") from error
    except RecursionError as error:
        raise Problem("Invalid JSON in request body: it is nested too deeply", code="invalid_json") from error


def _with_margin(decoder: msgspec.json.Decoder[T], body: bytes, frames: int) -> T:
    """Decode some frames further down than need be: what can be read here can be read again deeper in a turn.

    The whole body is read so; its parts are nested less deep than it is.
    """
    return _with_margin(decoder, body, frames - 1) if frames else decoder.decode(body)


def rest_of(body: bytes, known: frozenset[str]) -> bytes:
    """All fields of a body that are not `known`, as a JSON object, each value byte for byte. Null is nothing."""
    rest = {name: value for name, value in _decode_fields(body).items() if name not in known and value != NULL}
    return encode(rest) if rest else b"{}"


def digest_of(body: bytes) -> bytes:
    """What tells one body from another under the same idempotency key: not the order of its fields, nor how the answer
    is to come.
    """
    asked = {name: value for name, value in _decode_fields(body).items() if name not in _DELIVERY}
    return hashlib.sha256(_encode_sorted(asked)).digest()


def _invalid(error: msgspec.ValidationError, where: str) -> Problem:
    text = str(error)
    found = _PATH.search(text)
    path = found["path"].removesuffix("[...]") if found else ""
    dot = "." if where and path and not path.startswith("[") else ""
    path = where + dot + path
    if missing := re.match(r"Object missing required field `(?P<name>\w+)`", text):
        path = f"{path}.{missing['name']}" if path else missing["name"]
        return Problem(f"Missing required parameter: '{path}'.", param=path, code="missing_required_parameter")
    if not path:
        return Problem(f"Request body must be a JSON object: {text}", code="invalid_type")
    return Problem(f"Invalid '{path}': {_in_json_terms(_PATH.sub('', text))}.", param=path, code="invalid_value")


def _in_json_terms(text: str) -> str:
    """Python's names of types, as a client of any language knows them."""
    return re.sub(r"`[^`]*`", lambda quoted: _TYPE.sub(lambda found: _JSON_TYPES[found[0]], quoted[0]), text)
