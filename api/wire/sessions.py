"""Sessions on the wire, in the rows that clients of the older system know."""

from typing import Any, Literal

import msgspec

from api.wire.session_list import Page, cursor_behind
from eventstore.events import TurnCompleted, TurnFailed
from projections.messages import fields
from projections.session import Session
from projections.sessions import DEFAULT_SOURCE, SessionRow
from projections.turn import Status, Turn


class SessionEntry(msgspec.Struct, kw_only=True):
    """One session. Times are seconds since 1970, UTC. In the list, the tip of a rotated lineage names its root."""

    id: str
    source: str
    user_id: str | None
    model: str | None
    title: str | None
    started_at: float
    ended_at: float | None
    end_reason: str | None
    message_count: int
    tool_call_count: int
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int = 0
    reasoning_tokens: int
    estimated_cost_usd: float | None = None
    actual_cost_usd: float | None = None
    api_call_count: int
    parent_session_id: str | None
    last_active: float
    preview: str
    lineage_root_id: str | msgspec.UnsetType = msgspec.field(default=msgspec.UNSET, name="_lineage_root_id")
    session_key: str | None
    metadata: dict[str, Any]
    has_system_prompt: bool
    has_model_config: bool = False


class SessionList(msgspec.Struct):
    """A page of sessions, most recently active first. `next_cursor` leads to the page behind it, where there is one."""

    object: Literal["list"]
    data: list[SessionEntry]
    limit: int
    offset: int
    has_more: bool
    next_cursor: str | None


class OneSession(msgspec.Struct):
    """One session by itself."""

    object: Literal["hermes.session"]
    session: SessionEntry


class MessageEntry(msgspec.Struct, kw_only=True):
    """One message. `id` counts from 1 within the session; `status` is that of its turn.

    Messages of turns that failed or were cancelled are shown, and are in no later prompt.
    """

    id: int
    session_id: str
    turn_id: str
    status: Status
    error: str | None
    role: str
    content: Any
    tool_call_id: Any
    tool_calls: Any
    tool_name: Any
    timestamp: float
    token_count: int | None = None
    finish_reason: str | None
    reasoning: Any
    reasoning_content: Any


class MessageList(msgspec.Struct):
    """A page of a session's messages, oldest first; without an offset the newest of them."""

    object: Literal["list"]
    session_id: str
    data: list[MessageEntry]
    limit: int
    offset: int
    total: int
    has_more: bool


def session_entry(row: SessionRow) -> SessionEntry:
    """A row of the list, as the client sees it."""
    return SessionEntry(
        id=row.session_id,
        source=row.source or DEFAULT_SOURCE,
        user_id=row.user_id or None,
        model=row.model or None,
        title=row.title or None,
        started_at=row.started_us / 1e6,
        ended_at=None if row.ended_us is None else row.ended_us / 1e6,
        end_reason=row.end_reason or None,
        message_count=row.messages,
        tool_call_count=row.tool_calls,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        cache_read_tokens=row.cached_tokens,
        reasoning_tokens=row.reasoning_tokens,
        api_call_count=row.turns,
        parent_session_id=row.parent_session_id,
        last_active=row.active_us / 1e6,
        preview=row.preview,
        session_key=row.session_key or None,
        metadata=fields(row.metadata.encode()),
        has_system_prompt=bool(row.has_instructions),
    )


def lineage_entry(row: SessionRow) -> SessionEntry:
    """The tip of a lineage, standing for all of it: began as its root did, and cost what all its sessions cost."""
    entry = session_entry(row)
    if row.generation == 1:
        return entry
    return msgspec.structs.replace(
        entry,
        started_at=row.root_started_us / 1e6,
        parent_session_id=row.root_parent_id,
        input_tokens=row.earlier_input + row.input_tokens,
        output_tokens=row.earlier_output + row.output_tokens,
        cache_read_tokens=row.earlier_cached + row.cached_tokens,
        reasoning_tokens=row.earlier_reasoning + row.reasoning_tokens,
        lineage_root_id=row.root_id,
    )


def session_list(rows: list[SessionRow], page: Page) -> SessionList:
    """A page of the list; `rows` may hold one more than its limit, which tells that there are more."""
    shown, has_more = rows[: page.limit], len(rows) > page.limit
    entry = session_entry if page.wanted.has_children else lineage_entry
    next_cursor = cursor_behind(shown[-1]) if shown and has_more else None
    return SessionList("list", [entry(row) for row in shown], page.limit, page.wanted.offset, has_more, next_cursor)


def message_list(session: Session, limit: int, offset: int | None) -> MessageList:
    """A page of the session's messages, what a fork has inherited first."""
    messages = [(session_id, turn, data) for session_id, turn in session.said for data in turn.messages]
    total = len(messages)
    first = max(0, total - limit) if offset is None else offset
    page = messages[first : first + limit]
    entries = [_entry(number, *said) for number, said in enumerate(page, first + 1)]
    return MessageList("list", session.session_id, entries, limit, first, total, first + len(page) < total)


def _entry(number: int, session_id: str, turn: Turn, data: bytes) -> MessageEntry:
    message = fields(data)
    role = str(message.get("role"))
    answered = role == "assistant" and turn.ended is not None and data in turn.ended.output
    done = turn.ended if isinstance(turn.ended, TurnCompleted) else None
    failed = turn.ended if isinstance(turn.ended, TurnFailed) else None
    return MessageEntry(
        id=number,
        session_id=session_id,
        turn_id=turn.turn_id,
        status=turn.status,
        error=failed.message if failed else None,
        role=role,
        content=message.get("content"),
        tool_call_id=message.get("tool_call_id"),
        tool_calls=message.get("tool_calls"),
        tool_name=message.get("name") if role == "tool" else None,
        timestamp=(turn.ended_us if answered else turn.started_us) / 1e6,
        finish_reason=done.finish_reason if done and answered else None,
        reasoning=message.get("reasoning"),
        reasoning_content=message.get("reasoning_content"),
    )
