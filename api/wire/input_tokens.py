"""POST /v1/responses/input_tokens on the wire."""

from typing import Annotated, Literal

import msgspec

from api.turns.request import TurnRequest
from api.wire.decode import body_of
from api.wire.headers import Continuity
from api.wire.no_input import turn_of


class InputTokens(msgspec.Struct):
    """How long the prompt would be."""

    input_tokens: int
    object: Literal["response.input_tokens"] = "response.input_tokens"


class _Beside(msgspec.Struct):
    """What only this route takes: a style of the model's, of which the model servers behind turnlog know nothing."""

    personality: Annotated[str, msgspec.Meta(max_length=64)] | None = None


_decoder = msgspec.json.Decoder(_Beside)


def turn_request(body: bytes, tenant: str, headers: Continuity) -> TurnRequest:
    """The turn whose prompt is to be measured; raises `Problem`."""
    body_of(_decoder, body)
    _, turn = turn_of(body, tenant, headers)
    return turn
