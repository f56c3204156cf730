"""Compression by hand, on the wire."""

from typing import Annotated, Literal

import msgspec

from api.turns.summary import without_heading
from api.wire.decode import body_of
from eventstore.events import CompressionRotated, Trigger

FOCUS_CHARACTERS_MAX = 2_000


class CompressRequest(msgspec.Struct):
    """`focus` is what the summary is to keep above all."""

    focus: Annotated[str, msgspec.Meta(max_length=FOCUS_CHARACTERS_MAX)] | None = None


class Compressed(msgspec.Struct):
    """A session that goes on in a child. Tokens are of the whole prompt, estimated; `kept` counts messages."""

    session_id: str
    parent_session_id: str
    kept_head: int
    kept_tail: int
    summary: str
    summariser: str
    trigger: Trigger
    tokens_before: int
    tokens_after: int
    object: Literal["hermes.session.compression"] = "hermes.session.compression"


_decoder = msgspec.json.Decoder(CompressRequest)


def decode(body: bytes) -> CompressRequest:
    """The request in `body`, which may be empty; raises `Problem`."""
    return body_of(_decoder, body or b"{}")


def compressed(rotated: CompressionRotated) -> Compressed:
    """What became of the session."""
    return Compressed(
        session_id=rotated.session_id,
        parent_session_id=rotated.old_session_id,
        kept_head=rotated.head,
        kept_tail=rotated.tail,
        summary=without_heading(rotated.summary),
        summariser=rotated.summariser,
        trigger=rotated.trigger,
        tokens_before=rotated.tokens_before,
        tokens_after=rotated.tokens_after,
    )
