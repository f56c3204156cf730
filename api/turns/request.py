"""What a turn is asked with, whichever API it came in by."""

import msgspec

from eventstore.events import Api, Identity


class Names(msgspec.Struct, frozen=True):
    """The names a client may use for where it left off; all of one request must agree."""

    session_id: str = ""
    conversation: str = ""
    previous_response_id: str = ""


class TurnRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One turn's input. `items` is what is new where a transcript is continued, `opening` where one begins.

    Both hold JSON objects in the dialect of `api`; `instructions` are chat messages; `parameters` is a JSON object.
    `route` is where it came in, where that is not named like `api`: an idempotency key is one within it.
    `history` counts those of `opening`, up to and with the last that a model said, which a client resends that names no
    session; 0 where it names one, or resends nothing, or says nothing new behind it.
    `turn_id` is the id that its turn is to have, where its client is told of that before it is open: such a turn waits
    for its session as long as it takes. `root_id` is the lineage that its conversation led to when it began to wait: it
    is refused where that is so no more.
    `continues` is the response that its client goes on from, where that is one that the log does not have.
    `seen` is a conversation that it sees without being part of it: what comes behind goes into a session of its own.
    With `must_exist` no session is begun. `compact_threshold_tokens` is the request's own limit for a rotation, 0 where
    it names none.
    """

    tenant: str
    api: Api
    names: Names
    model: str
    items: tuple[bytes, ...]
    opening: tuple[bytes, ...]
    route: str = ""
    instructions: tuple[bytes, ...] = ()
    parameters: bytes = b"{}"
    stream: bool = False
    session_key: str = ""
    identity: Identity = Identity()
    idempotency_key: str = ""
    idempotency_scope: str = ""
    body_digest: bytes = b""
    compact_threshold_tokens: int = 0
    uses_memory: bool = True
    must_exist: bool = False
    background: bool = False
    turn_id: str = ""
    history: int = 0
    continues: str = ""
    seen: str = ""
    root_id: str = ""

    @property
    def sight(self) -> Names:
        """The names that lead to what it sees."""
        return self.names if self.names.session_id or not self.seen else Names(conversation=self.seen)

    @property
    def size_bytes(self) -> int:
        """About what it takes in memory."""
        return sum(map(len, (*self.opening, *self.instructions, self.parameters)))
