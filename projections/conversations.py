"""Conversations: every name, the lineage it leads to, and its newest response."""

from collections.abc import Iterable

from eventstore.events import ConversationAdvanced, ConversationCreated, parse_stream
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
) STRICT, WITHOUT ROWID
"""
INSERT = "INSERT INTO conversations VALUES (?, ?, ?, NULL, ?, ?)"
ADVANCE = "UPDATE conversations SET turn_id = ?, updated_us = ? WHERE tenant = ? AND name = ?"
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


VIEW = View("conversations", 1, SCHEMA, (ConversationCreated, ConversationAdvanced), apply)
