"""Idempotency keys: the turn that each one made, and the digest of the request it came with. Kept for a day."""

from collections.abc import Iterable

from eventstore.events import SessionDeleted, TurnStarted, parse_stream
from eventstore.log import Recorded
from projections.view import Statement, View

KEPT_US = 24 * 3_600 * 1_000_000

SCHEMA = """
CREATE TABLE idempotency_keys (
    tenant      TEXT NOT NULL,
    scope       TEXT NOT NULL,
    key         TEXT NOT NULL,
    root_id     TEXT NOT NULL,
    turn_id     TEXT NOT NULL,
    body_digest BLOB NOT NULL,
    recorded_us INTEGER NOT NULL,
    PRIMARY KEY (tenant, scope, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (recorded_us);
CREATE INDEX idempotency_keys_of_lineage ON idempotency_keys (tenant, root_id);
"""
# A few at a time: a busy day's keys must not all go with the first key of the day after.
EXPIRE = """DELETE FROM idempotency_keys WHERE (tenant, scope, key) IN (SELECT tenant, scope, key
    FROM idempotency_keys WHERE recorded_us <= ? ORDER BY recorded_us, tenant, scope, key LIMIT 4)"""
INSERT = "INSERT OR REPLACE INTO idempotency_keys VALUES (?, ?, ?, ?, ?, ?, ?)"
DELETE_ALL = "DELETE FROM idempotency_keys WHERE tenant = ? AND root_id = ?"
# By tenant, scope, key, and the time before which a key no longer counts.
FIND = """SELECT root_id, turn_id, body_digest FROM idempotency_keys
    WHERE tenant = ? AND scope = ? AND key = ? AND recorded_us > ?"""


def apply(recorded: Recorded) -> Iterable[Statement]:
    """The rows that an event changes."""
    event, now_us = recorded.event, recorded.recorded_us
    if isinstance(event, TurnStarted):
        if event.idempotency_key and event.idempotency_scope:
            _, tenant, root_id = parse_stream(recorded.stream)
            key, scope, digest = event.idempotency_key, event.idempotency_scope, event.body_digest
            yield EXPIRE, (now_us - KEPT_US,)
            yield INSERT, (tenant, scope, key, root_id, event.turn_id, digest, now_us)
    elif isinstance(event, SessionDeleted):
        _, tenant, root_id = parse_stream(recorded.stream)
        yield DELETE_ALL, (tenant, root_id)


VIEW = View("idempotency_keys", 2, SCHEMA, (TurnStarted, SessionDeleted), apply)
