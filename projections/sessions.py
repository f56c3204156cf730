"""The list of sessions: one row a session, with its counts, its usage and the beginning of what was said."""

from collections.abc import Iterable

import msgspec

from eventstore.events import (
    SessionStarted,
    TurnCancelled,
    TurnCompleted,
    TurnFailed,
    TurnStarted,
    parse_stream,
)
from eventstore.log import Recorded
from projections.messages import fields, input_messages, text_of
from projections.usage import tokens_of
from projections.view import Statement, View

PREVIEW_CHARACTERS = 60

SCHEMA = """
CREATE TABLE sessions (
    tenant            TEXT    NOT NULL,
    root_id           TEXT    NOT NULL,
    session_id        TEXT    NOT NULL,
    parent_session_id TEXT,
    session_key       TEXT    NOT NULL,
    user_id           TEXT    NOT NULL,
    model             TEXT    NOT NULL DEFAULT '',
    preview           TEXT    NOT NULL DEFAULT '',
    started_us        INTEGER NOT NULL,
    active_us         INTEGER NOT NULL,
    turns             INTEGER NOT NULL DEFAULT 0,
    messages          INTEGER NOT NULL DEFAULT 0,
    tool_calls        INTEGER NOT NULL DEFAULT 0,
    input_tokens      INTEGER NOT NULL DEFAULT 0,
    output_tokens     INTEGER NOT NULL DEFAULT 0,
    cached_tokens     INTEGER NOT NULL DEFAULT 0,
    reasoning_tokens  INTEGER NOT NULL DEFAULT 0,
    has_instructions  INTEGER NOT NULL DEFAULT 0,
    open_turn         TEXT,
    PRIMARY KEY (tenant, root_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_activity ON sessions (tenant, active_us DESC);
CREATE INDEX sessions_open ON sessions (open_turn) WHERE open_turn IS NOT NULL;
"""

START = """INSERT INTO sessions (tenant, root_id, session_id, parent_session_id, session_key, user_id,
    started_us, active_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"""
PREVIEW = "UPDATE sessions SET preview = ? WHERE tenant = ? AND root_id = ?"
OPEN = """UPDATE sessions SET open_turn = ?, model = ?, active_us = ?, messages = messages + ?,
    has_instructions = has_instructions OR ? WHERE tenant = ? AND root_id = ?"""
COMPLETE = """UPDATE sessions SET open_turn = NULL, active_us = ?, turns = turns + 1, messages = messages + ?,
    tool_calls = tool_calls + ?, input_tokens = input_tokens + ?, output_tokens = output_tokens + ?,
    cached_tokens = cached_tokens + ?, reasoning_tokens = reasoning_tokens + ? WHERE tenant = ? AND root_id = ?"""
END = """UPDATE sessions SET open_turn = NULL, active_us = ?, messages = messages + ?
    WHERE tenant = ? AND root_id = ?"""

LIST = "SELECT * FROM sessions WHERE tenant = ? ORDER BY active_us DESC, root_id LIMIT ? OFFSET ?"
GET = "SELECT * FROM sessions WHERE tenant = ? AND root_id = ?"
OPEN_TURNS = "SELECT tenant, root_id, open_turn FROM sessions WHERE open_turn IS NOT NULL"

_FIRST_TURN_VERSION = 2  # the stream's first event starts the session


class SessionRow(msgspec.Struct, frozen=True):
    """One row of the list, fields in the order of the table's columns."""

    tenant: str
    root_id: str
    session_id: str
    parent_session_id: str | None
    session_key: str
    user_id: str
    model: str
    preview: str
    started_us: int
    active_us: int
    turns: int
    messages: int
    tool_calls: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    has_instructions: int
    open_turn: str | None


def apply(recorded: Recorded) -> Iterable[Statement]:
    """The rows that an event changes."""
    event = recorded.event
    _, tenant, root_id = parse_stream(recorded.stream)
    now_us = recorded.recorded_us
    match event:
        case SessionStarted():
            parent = event.forked_from.session_id if event.forked_from else None
            who = (event.session_key, event.identity.user_id)
            yield START, (tenant, root_id, event.session_id, parent, *who, now_us, now_us)
        case TurnStarted():
            counts = (len(event.items), int(bool(event.instructions)))
            yield OPEN, (event.turn_id, event.model, now_us, *counts, tenant, root_id)
            if recorded.version == _FIRST_TURN_VERSION:
                yield PREVIEW, (preview(event), tenant, root_id)
        case TurnCompleted():
            yield COMPLETE, (now_us, len(event.output), _tool_calls(event), *tokens_of(event.usage), tenant, root_id)
        case TurnFailed() | TurnCancelled():
            yield END, (now_us, len(event.output), tenant, root_id)
        case _:
            pass


def preview(started: TurnStarted) -> str:
    """The first user message on one line, cut short."""
    messages = (fields(data) for data in input_messages(started))
    first = next((message for message in messages if message.get("role") == "user"), {})
    line = " ".join(text_of(first.get("content")).split())
    return line if len(line) <= PREVIEW_CHARACTERS else line[:PREVIEW_CHARACTERS] + "..."


def _tool_calls(event: TurnCompleted) -> int:
    calls = [fields(output).get("tool_calls") for output in event.output if b'"tool_calls"' in output]
    return sum(len(call) for call in calls if isinstance(call, list))


OF = (SessionStarted, TurnStarted, TurnCompleted, TurnFailed, TurnCancelled)
VIEW = View("sessions", 1, SCHEMA, OF, apply)
