"""POST /v1/responses/input_tokens on the wire."""

from typing import Annotated, Literal

import msgspec

from api.turns.request import TurnRequest
from api.wire.decode import body_of
from api.wire.headers import Continuity
from api.wire.no_input import turn_of
from api.wire.responses import ResponsesRequest


class InputTokens(msgspec.Struct):
    """How long the prompt would be."""

    input_tokens: int
    object: Literal["response.input_tokens"] = "response.input_tokens"


class InputTokensRequest(ResponsesRequest):
    """A create, as far as it makes a prompt. `personality` is a style of which no model server behind turnlog knows."""

    input: str | list[msgspec.Raw] | None = None  # type: ignore[assignment]  # need not be there
    personality: Annotated[str, msgspec.Meta(max_length=64)] | None = None


_decoder = msgspec.json.Decoder(InputTokensRequest)


def turn_request(body: bytes, tenant: str, headers: Continuity) -> TurnRequest:
    """The turn whose prompt is to be measured; raises `Problem`."""
    body_of(_decoder, body)
    _, turn = turn_of(body, tenant, headers)
    return turn
