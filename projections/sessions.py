"""The list of sessions: one row a session, with its counts, its usage and the beginning of what was said.

A lineage has one row for each of its generations. Turns change the newest alone, the tip: `superseded` is 0 in its row,
so that the primary key finds it, and the generation's number in all others, which stand still until their lineage is
deleted. A tip carries what the list shows of its lineage: when and from where its root began, and the tokens of the
generations before it.
"""

from collections.abc import Iterable
from typing import TypeAlias, assert_never

import msgspec

from eventstore.events import (
    CompressionRotated,
    ConversationAdvanced,
    ConversationCreated,
    ConversationDeleted,
    ConversationUpdated,
    Erased,
    ItemRemoved,
    ItemsAdded,
    ResponseAnnotated,
    ResponseEvicted,
    SessionAnnotated,
    SessionDeleted,
    SessionEnded,
    SessionErased,
    SessionRenamed,
    SessionStarted,
    TurnCancelled,
    TurnCompleted,
    TurnDequeued,
    TurnFailed,
    TurnQueued,
    TurnRestarted,
    TurnStarted,
    parse_stream,
)
from eventstore.log import Recorded
from projections.messages import fields
from projections.text import said_in
from projections.usage import tokens_of
from projections.view import Statement, View

PREVIEW_CHARACTERS = 60
DEFAULT_SOURCE = "api_server"  # kept as an empty text, so that only the others are in an index

SCHEMA = """
CREATE TABLE sessions (
    tenant            TEXT    NOT NULL,
    root_id           TEXT    NOT NULL,
    generation        INTEGER NOT NULL,
    superseded        INTEGER NOT NULL,
    session_id        TEXT    NOT NULL,
    parent_session_id TEXT,
    forked_root_id    TEXT,
    source            TEXT    NOT NULL,
    session_key       TEXT    NOT NULL,
    user_id           TEXT    NOT NULL,
    title             TEXT    NOT NULL,
    model             TEXT    NOT NULL,
    preview           TEXT    NOT NULL DEFAULT '',
    started_us        INTEGER NOT NULL,
    active_us         INTEGER NOT NULL,
    ended_us          INTEGER,
    end_reason        TEXT    NOT NULL DEFAULT '',
    turns             INTEGER NOT NULL DEFAULT 0,
    messages          INTEGER NOT NULL DEFAULT 0,
    tool_calls        INTEGER NOT NULL DEFAULT 0,
    input_tokens      INTEGER NOT NULL DEFAULT 0,
    output_tokens     INTEGER NOT NULL DEFAULT 0,
    cached_tokens     INTEGER NOT NULL DEFAULT 0,
    reasoning_tokens  INTEGER NOT NULL DEFAULT 0,
    has_instructions  INTEGER NOT NULL,
    open_turn         TEXT,
    root_started_us   INTEGER NOT NULL,
    root_parent_id    TEXT,
    earlier_input     INTEGER NOT NULL DEFAULT 0,
    earlier_output    INTEGER NOT NULL DEFAULT 0,
    earlier_cached    INTEGER NOT NULL DEFAULT 0,
    earlier_reasoning INTEGER NOT NULL DEFAULT 0,
    metadata          TEXT    NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant, root_id, superseded)
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_activity ON sessions (tenant, active_us, root_id, generation, superseded);
CREATE INDEX sessions_by_user ON sessions (tenant, user_id, active_us, root_id, generation, superseded)
    WHERE user_id <> '';
CREATE INDEX sessions_by_key ON sessions (tenant, session_key, active_us, root_id, generation, superseded)
    WHERE session_key <> '';
CREATE INDEX sessions_by_source ON sessions (tenant, source, active_us, root_id, generation, superseded)
    WHERE source <> '';
CREATE INDEX sessions_forked ON sessions (tenant, forked_root_id, started_us) WHERE forked_root_id IS NOT NULL;
CREATE INDEX sessions_open ON sessions (open_turn) WHERE open_turn IS NOT NULL;
"""

START = """INSERT OR REPLACE INTO sessions (tenant, root_id, generation, superseded, session_id, parent_session_id,
    forked_root_id, source, session_key, user_id, title, model, started_us, active_us, has_instructions,
    root_started_us, root_parent_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
# Many turns of a session may begin, and many may end, in one transaction: of what is not counted, the last one's holds
# (of the columns that stand bare beside one max(), SQLite gives those of the row that has it), and the first preview.
# All that began is written before what ended: only its own end closes a turn.
OPEN = """WITH new (tenant, root_id, position, now_us, open_turn, model, messages, instructed, preview)
    AS (VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?))
    UPDATE sessions SET open_turn = last.open_turn, model = last.model, active_us = last.now_us,
    messages = messages + said, has_instructions = has_instructions OR last.instructed, preview = iif(preview = '',
        coalesce((SELECT new.preview FROM new WHERE new.tenant = sessions.tenant AND new.root_id = sessions.root_id
            AND new.preview <> '' ORDER BY new.position LIMIT 1), ''), preview), end_reason = '', ended_us = NULL
    FROM (SELECT tenant, root_id, max(position), now_us, open_turn, model, sum(messages) AS said,
        total(instructed) > 0 AS instructed FROM new GROUP BY tenant, root_id) AS last
    WHERE sessions.tenant = last.tenant AND sessions.root_id = last.root_id AND superseded = 0"""
COMPLETE = """WITH new (tenant, root_id, position, now_us, turn_id, messages, calls, input, output, cached, reasoning)
    AS (VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?))
    UPDATE sessions SET open_turn = nullif(open_turn, last.turn_id), active_us = max(active_us, last.now_us),
    turns = sessions.turns + last.turns, messages = messages + said, tool_calls = tool_calls + calls,
    input_tokens = input_tokens + input, output_tokens = output_tokens + output,
    cached_tokens = cached_tokens + cached, reasoning_tokens = reasoning_tokens + reasoning
    FROM (SELECT tenant, root_id, max(position), now_us, turn_id, count(*) AS turns, sum(messages) AS said,
        sum(calls) AS calls, sum(input) AS input, sum(output) AS output, sum(cached) AS cached,
        sum(reasoning) AS reasoning FROM new GROUP BY tenant, root_id) AS last
    WHERE sessions.tenant = last.tenant AND sessions.root_id = last.root_id AND superseded = 0"""
CUT_SHORT = """UPDATE sessions SET open_turn = NULL, active_us = ?, messages = messages + ?
    WHERE tenant = ? AND root_id = ? AND superseded = 0"""
ADD = """UPDATE sessions SET active_us = ?, messages = messages + ?, preview = iif(preview = '', ?, preview),
    end_reason = '', ended_us = NULL
    WHERE tenant = ? AND root_id = ? AND superseded = 0"""
SUPERSEDE = """UPDATE sessions SET superseded = generation, end_reason = 'compression', ended_us = ?
    WHERE tenant = ? AND root_id = ? AND superseded = 0"""
# The child begins as its parent stood: only what is counted begins anew.
ROTATE = """INSERT INTO sessions (tenant, root_id, generation, superseded, session_id, parent_session_id, source,
    session_key, user_id, title, model, preview, started_us, active_us, has_instructions,
    root_started_us, root_parent_id, earlier_input, earlier_output, earlier_cached, earlier_reasoning, metadata)
    SELECT tenant, root_id, generation + 1, 0, ?, session_id, source,
    session_key, user_id, ?, model, preview, ?, ?, has_instructions,
    root_started_us, root_parent_id, earlier_input + input_tokens, earlier_output + output_tokens,
    earlier_cached + cached_tokens, earlier_reasoning + reasoning_tokens, metadata
    FROM sessions WHERE tenant = ? AND root_id = ? ORDER BY superseded DESC LIMIT 1"""
# A fork looks like its parent until somebody speaks in it.
FORK = """UPDATE sessions SET messages = ?, preview = parent.preview,
    model = iif(sessions.model = '', parent.model, sessions.model)
    FROM (SELECT preview, model FROM sessions WHERE tenant = ? AND root_id = ? AND superseded = 0) AS parent
    WHERE sessions.tenant = ? AND sessions.root_id = ? AND superseded = 0"""
RENAME = "UPDATE sessions SET title = ? WHERE tenant = ? AND root_id = ? AND superseded = 0"
ANNOTATE = "UPDATE sessions SET metadata = ? WHERE tenant = ? AND root_id = ? AND superseded = 0"
END = """UPDATE sessions SET end_reason = ?, ended_us = ?
    WHERE tenant = ? AND root_id = ? AND superseded = 0 AND end_reason = ''"""
DELETE = "DELETE FROM sessions WHERE tenant = ? AND root_id = ?"

GET = "SELECT * FROM sessions WHERE tenant = ? AND root_id = ? AND session_id = ?"
GENERATIONS = "SELECT * FROM sessions WHERE tenant = ? AND root_id = ? ORDER BY generation"
# Forks of the lineage as it is now: an id may have been another lineage's, which was deleted.
FORKS = """SELECT session_id FROM sessions WHERE tenant = ? AND forked_root_id = ? AND started_us >= ?
    ORDER BY started_us LIMIT ?"""
OPEN_TURNS = "SELECT tenant, root_id, open_turn FROM sessions WHERE open_turn IS NOT NULL"


class SessionRow(msgspec.Struct, frozen=True):
    """One row of the list, fields in the order of the table's columns."""

    tenant: str
    root_id: str
    generation: int
    superseded: int
    session_id: str
    parent_session_id: str | None
    forked_root_id: str | None
    source: str
    session_key: str
    user_id: str
    title: str
    model: str
    preview: str
    started_us: int
    active_us: int
    ended_us: int | None
    end_reason: str
    turns: int
    messages: int
    tool_calls: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    has_instructions: int
    open_turn: str | None
    root_started_us: int
    root_parent_id: str | None
    earlier_input: int
    earlier_output: int
    earlier_cached: int
    earlier_reasoning: int
    metadata: str


Rarer: TypeAlias = (
    SessionStarted
    | CompressionRotated
    | SessionRenamed
    | SessionAnnotated
    | SessionEnded
    | SessionDeleted
    | TurnRestarted
    | ResponseEvicted
    | ConversationAdvanced
    | ConversationCreated
    | ConversationUpdated
    | ConversationDeleted
    | ResponseAnnotated
    | ItemsAdded
    | ItemRemoved
    | TurnQueued
    | TurnDequeued
    | SessionErased
    | Erased
)
OF = (
    *(SessionStarted, TurnStarted, TurnCompleted, TurnFailed, TurnCancelled),
    *(CompressionRotated, SessionRenamed, SessionAnnotated, SessionEnded, SessionDeleted, ItemsAdded),
)


def apply(recorded: Recorded) -> Iterable[Statement]:
    """The rows that an event changes."""
    event = recorded.event
    _, tenant, root_id = parse_stream(recorded.stream)
    now_us = recorded.recorded_us
    match event:
        case TurnStarted():
            said = (len(event.items), int(bool(event.instructions)), preview(event.items))
            yield OPEN, (tenant, root_id, recorded.position, now_us, event.turn_id, event.model, *said)
        case TurnCompleted():
            counts = (len(event.output), _tool_calls(event), *tokens_of(event.usage))
            yield COMPLETE, (tenant, root_id, recorded.position, now_us, event.turn_id, *counts)
        case TurnFailed() | TurnCancelled():
            yield CUT_SHORT, (now_us, len(event.output), tenant, root_id)
        case _:
            yield from _rarer(event, tenant, root_id, now_us)


def _rarer(event: Rarer, tenant: str, root_id: str, now_us: int) -> Iterable[Statement]:
    match event:
        case SessionStarted():
            yield START, (tenant, root_id, 1, 0, *_started(event, now_us))
            if fork := event.forked_from:
                yield FORK, (fork.messages, tenant, fork.root_id, tenant, root_id)
        case CompressionRotated():
            yield SUPERSEDE, (now_us, tenant, root_id)
            yield ROTATE, (event.session_id, event.title, now_us, now_us, tenant, root_id)
        case SessionRenamed():
            yield RENAME, (event.title, tenant, root_id)
        case SessionAnnotated():
            yield ANNOTATE, (event.metadata.decode(errors="replace"), tenant, root_id)
        case SessionEnded():
            yield END, (event.reason, now_us, tenant, root_id)
        case SessionDeleted():
            yield DELETE, (tenant, root_id)
        case ItemsAdded():
            yield ADD, (now_us, len(event.items), preview(event.items), tenant, root_id)
        case (
            TurnRestarted()
            | ResponseEvicted()
            | ResponseAnnotated()
            | ItemRemoved()
            | ConversationAdvanced()
            | ConversationCreated()
            | ConversationUpdated()
            | ConversationDeleted()
            | TurnQueued()
            | TurnDequeued()
            | SessionErased()
            | Erased()
        ):
            pass  # nothing that a list shows
        case _:
            assert_never(event)


def _started(event: SessionStarted, now_us: int) -> tuple[object, ...]:
    parent_id, parent_root_id = None, None
    if fork := event.forked_from:
        parent_id, parent_root_id = fork.session_id, fork.root_id
    who = (stored_source(event.source), event.session_key, event.identity.user_id)
    said = (event.title, event.model, now_us, now_us, int(bool(event.system_prompt)))
    return event.session_id, parent_id, parent_root_id, *who, *said, now_us, parent_id


def stored_source(source: str) -> str:
    """A source as it is kept in its column."""
    return "" if source == DEFAULT_SOURCE else source


def preview(items: Iterable[bytes]) -> str:
    """The first user message on one line, cut short. Both dialects name the role and the text alike."""
    for data in items:
        said = said_in(data)
        if said.role == "user":
            # Little more is looked at than is shown: messages may be long, and this is done for every turn.
            line = " ".join(said.text[: 4 * PREVIEW_CHARACTERS].split())
            return line if len(line) <= PREVIEW_CHARACTERS else line[:PREVIEW_CHARACTERS] + "..."
    return ""


def _tool_calls(event: TurnCompleted) -> int:
    calls = [fields(output).get("tool_calls") for output in event.output if b'"tool_calls"' in output]
    return sum(len(call) for call in calls if isinstance(call, list))


VIEW = View("sessions", 4, SCHEMA, OF, apply, gathered=(START, OPEN, COMPLETE))
