"""Idempotency keys: the turn that each one made, and the digest of the body it came with."""

from collections.abc import Iterable

from eventstore.events import TurnStarted, parse_stream
from eventstore.log import Recorded
from projections.view import Statement, View

SCHEMA = """
CREATE TABLE idempotency_keys (
    tenant      TEXT NOT NULL,
    api         TEXT NOT NULL,
    root_id     TEXT NOT NULL,
    key         TEXT NOT NULL,
    turn_id     TEXT NOT NULL,
    body_digest BLOB NOT NULL,
    recorded_us INTEGER NOT NULL,
    PRIMARY KEY (tenant, api, root_id, key)
) STRICT, WITHOUT ROWID
"""
INSERT = "INSERT OR REPLACE INTO idempotency_keys VALUES (?, ?, ?, ?, ?, ?, ?)"


def apply(recorded: Recorded) -> Iterable[Statement]:
    """The rows that an event changes."""
    event = recorded.event
    if isinstance(event, TurnStarted) and event.idempotency_key:
        _, tenant, root_id = parse_stream(recorded.stream)
        key, digest = event.idempotency_key, event.body_digest
        yield INSERT, (tenant, event.api, root_id, key, event.turn_id, digest, recorded.recorded_us)


VIEW = View("idempotency_keys", 1, SCHEMA, (TurnStarted,), apply)
