"""Bodies that are read like one of POST /v1/responses, but may come without any input."""

import msgspec

from api.turns.request import TurnRequest
from api.wire import responses
from api.wire.decode import Fields, body_of, encode
from api.wire.headers import Continuity
from api.wire.responses import ResponsesRequest

_NONE = (b"null", b"[]")
_STAND_IN = msgspec.Raw(b'"-"')  # is read and checked as input, and taken out again

_decoder = msgspec.json.Decoder(Fields)


def turn_of(
    body: bytes, tenant: str, headers: Continuity, *, needs_input: bool = False
) -> tuple[ResponsesRequest, TurnRequest]:
    """The turn that a body asks for, with nothing new in it where there is and need be no input; raises `Problem`."""
    fields = {} if needs_input else body_of(_decoder, body)
    has_input = needs_input or bytes(fields.get("input", b"null")) not in _NONE
    if not has_input:
        body = encode(fields | {"input": _STAND_IN})
    asked = responses.decode(body)
    turn = responses.turn_request(asked, body, tenant, headers.standing_in(asked.user))
    return asked, turn if has_input else msgspec.structs.replace(turn, items=(), opening=(), history=0)
