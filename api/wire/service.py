"""What the server says of itself, on the wire."""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from api.models.model import ModelInfo


class Health(msgspec.Struct, omit_defaults=True):
    """The server takes turns; or it is read only, and serves the log up to a position."""

    status: Literal["ok"]
    platform: Literal["turnlog"]
    version: str
    read_only: bool = False
    position: int | UnsetType = UNSET


class ModelList(msgspec.Struct):
    """The models that can be named."""

    object: Literal["list"]
    data: list[ModelInfo]


class Auth(msgspec.Struct):
    """How a client shows who it is, and whether it must."""

    type: Literal["bearer"]
    required: bool


class Endpoint(msgspec.Struct):
    """Where something is to be had."""

    method: str
    path: str


class Capabilities(msgspec.Struct):
    """What clients can rely on, so that they need not guess."""

    object: Literal["hermes.api_server.capabilities"]
    platform: Literal["turnlog"]
    version: str
    model: str | None
    auth: Auth
    features: dict[str, Any]
    endpoints: dict[str, Endpoint]


class Deleted(msgspec.Struct):
    """Something is gone."""

    id: str
    object: str
    deleted: Literal[True] = True
