"""Conversations: every name, the lineage it leads to, and its newest response, in the order in which they were made.

A name that was deleted is free, and so is that of a deleted lineage. What is recorded in a lineage under a name moves
that only while it leads there.
"""

from collections.abc import Iterable

import msgspec

from eventstore.events import (
    ConversationAdvanced,
    ConversationCreated,
    ConversationDeleted,
    ConversationUpdated,
    SessionDeleted,
    parse_stream,
)
from eventstore.log import Recorded
from projections.view import Statement, View

SCHEMA = """
CREATE TABLE conversations (
    tenant     TEXT NOT NULL,
    name       TEXT NOT NULL,
    root_id    TEXT NOT NULL,
    turn_id    TEXT,
    created_us INTEGER NOT NULL,
    updated_us INTEGER NOT NULL,
    position   INTEGER NOT NULL,
    metadata   TEXT    NOT NULL,
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX conversations_of_lineage ON conversations (tenant, root_id);
CREATE INDEX conversations_made ON conversations (tenant, position);
"""
INSERT = "INSERT OR REPLACE INTO conversations VALUES (?, ?, ?, NULL, ?, ?, ?, ?)"
ADVANCE = "UPDATE conversations SET turn_id = ?, updated_us = ? WHERE tenant = ? AND name = ? AND root_id = ?"
UPDATE = "UPDATE conversations SET metadata = ?, updated_us = ? WHERE tenant = ? AND name = ?"
DELETE_NAME = "DELETE FROM conversations WHERE tenant = ? AND name = ?"
DELETE = "DELETE FROM conversations WHERE tenant = ? AND root_id = ?"
FIND = "SELECT 1 FROM conversations WHERE tenant = ? AND root_id = ? LIMIT 1"
ROOT_OF = "SELECT root_id FROM conversations WHERE tenant = ? AND name = ?"
GET = "SELECT name, root_id, created_us, metadata, position FROM conversations WHERE tenant = ? AND name = ?"
NEWEST = """SELECT name, root_id, created_us, metadata, position FROM conversations
    WHERE tenant = ? AND position < ? ORDER BY position DESC LIMIT ?"""
OLDEST = """SELECT name, root_id, created_us, metadata, position FROM conversations
    WHERE tenant = ? AND position > ? ORDER BY position LIMIT ?"""
END = (1 << 63) - 1  # behind every position


class ConversationRow(msgspec.Struct, frozen=True):
    """A conversation as it is listed; `metadata` is a JSON object."""

    name: str
    root_id: str
    created_us: int
    metadata: str
    position: int


def apply(recorded: Recorded) -> Iterable[Statement]:
    """The rows that an event changes."""
    event = recorded.event
    now_us = recorded.recorded_us
    if isinstance(event, ConversationAdvanced):
        _, tenant, root_id = parse_stream(recorded.stream)
        yield ADVANCE, (event.turn_id, now_us, tenant, event.conversation, root_id)
    elif isinstance(event, ConversationCreated):
        tenant = parse_stream(recorded.stream).tenant
        said = (recorded.position, _text(event.metadata))
        yield INSERT, (tenant, event.name, event.session_id, now_us, now_us, *said)
    elif isinstance(event, ConversationUpdated):
        _, tenant, name = parse_stream(recorded.stream)
        yield UPDATE, (_text(event.metadata), now_us, tenant, name)
    elif isinstance(event, ConversationDeleted):
        _, tenant, name = parse_stream(recorded.stream)
        yield DELETE_NAME, (tenant, name)
    elif isinstance(event, SessionDeleted):
        _, tenant, root_id = parse_stream(recorded.stream)
        yield DELETE, (tenant, root_id)


def _text(metadata: bytes) -> str:
    return metadata.decode(errors="replace") or "{}"


VIEW = View(
    "conversations",
    3,
    SCHEMA,
    (ConversationCreated, ConversationUpdated, ConversationDeleted, ConversationAdvanced, SessionDeleted),
    apply,
)
