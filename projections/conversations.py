"""Conversations: every name, the lineage it leads to, and its newest response. That of a deleted lineage is free."""

from collections.abc import Iterable

from eventstore.events import ConversationAdvanced, ConversationCreated, SessionDeleted, parse_stream
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
    PRIMARY KEY (tenant, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX conversations_of_lineage ON conversations (tenant, root_id);
"""
INSERT = "INSERT OR REPLACE INTO conversations VALUES (?, ?, ?, NULL, ?, ?)"
ADVANCE = "UPDATE conversations SET turn_id = ?, updated_us = ? WHERE tenant = ? AND name = ?"
DELETE = "DELETE FROM conversations WHERE tenant = ? AND root_id = ?"
ROOT_OF = "SELECT root_id FROM conversations WHERE tenant = ? AND name = ?"


def apply(recorded: Recorded) -> Iterable[Statement]:
    """The rows that an event changes."""
    event = recorded.event
    now_us = recorded.recorded_us
    if isinstance(event, ConversationAdvanced):
        tenant = parse_stream(recorded.stream).tenant
        yield ADVANCE, (event.turn_id, now_us, tenant, event.conversation)
    elif isinstance(event, ConversationCreated):
        tenant = parse_stream(recorded.stream).tenant
        yield INSERT, (tenant, event.name, event.session_id, now_us, now_us)
    elif isinstance(event, SessionDeleted):
        _, tenant, root_id = parse_stream(recorded.stream)
        yield DELETE, (tenant, root_id)


VIEW = View("conversations", 2, SCHEMA, (ConversationCreated, ConversationAdvanced, SessionDeleted), apply)
