"""What a model was sent for a turn, on the wire."""

from typing import Any, Literal

import msgspec

from api.turns.prompts import Sent


class PromptObject(msgspec.Struct, kw_only=True):
    """The body of the request that the model's server was sent, byte for byte, and where it belongs.

    `session_id` is the session's id then, `position` that of the turn's start in the log. `upstream_api` is what the
    model's server spoke, `model` its own name for the model.
    """

    object: Literal["turn.prompt"] = "turn.prompt"
    turn_id: str
    session_id: str
    position: int
    model: str
    upstream_api: Literal["chat", "responses"]
    body: dict[str, Any]


class _Embedding(PromptObject, kw_only=True, tag=False):
    """The same, with the body's own bytes."""

    body: msgspec.Raw  # type: ignore[assignment]


def prompt_object(sent: Sent) -> PromptObject:
    """As it is answered."""
    return _Embedding(
        turn_id=sent.turn_id,
        session_id=sent.session_id,
        position=sent.position,
        model=sent.model,
        upstream_api=sent.upstream_api,
        body=msgspec.Raw(sent.body),
    )
