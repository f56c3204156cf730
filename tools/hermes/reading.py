"""Reads the original's two SQLite files, beside a running hermes or without one, and changes nothing in them.

Columns that an older version lacks are empty; ones that a newer version has are passed over.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from eventstore.sqlite import LOG_FILE
from tools.hermes.chat import message_of
from tools.hermes.rows import Message, Notes, Original, Response, Session, parsed, text, us

SCHEMA_KNOWN = 22  # of hermes-agent 0.19.0
PREFIX = "resp_"
_STATE = {"sessions": {"id", "source"}, "messages": {"session_id", "role", "content"}}
_STORE = {"responses": {"response_id", "data"}, "conversations": {"name", "response_id"}}
_TEXTS = (
    *("source", "user_id", "session_key", "chat_id", "chat_type", "thread_id", "display_name"),
    *("model", "system_prompt", "end_reason", "title"),
)

_encode = msgspec.json.Encoder().encode


class Unreadable(Exception):
    """A file is not what it should be: says which, why, and what to do."""


def read(state: Path, store: Path | None, notes: Notes) -> Original:
    """Everything that is moved. Raises `Unreadable`."""
    with _opened(state, _STATE, "state.db", _STORE) as connection:
        _check_version(connection, state, notes)
        sessions = {found.session_id: found for row in _rows(connection, "sessions") if (found := _session(row, notes))}
        messages: dict[str, list[Message]] = {}
        order = "ORDER BY id" if "id" in _columns(connection, "messages") else "ORDER BY rowid"
        for row in _rows(connection, "messages", order):
            if message := message_of(row, notes):
                messages.setdefault(message.session_id, []).append(message)
    for session_id in messages.keys() - sessions.keys():
        notes.note(f"session {session_id!r} has messages and no row: it is imported with what they tell")
        sessions[session_id] = Session(session_id=session_id, started_us=messages[session_id][0].at_us)
    if store is None:
        return Original(sessions, messages, {}, {})
    with _opened(store, _STORE, "response_store.db", _STATE) as connection:
        responses = {r.turn_id: r for row in _rows(connection, "responses") if (r := _response(row, notes))}
        slugs = {text(row["name"]): text(row["response_id"]) for row in _rows(connection, "conversations")}
    return Original(sessions, messages, responses, slugs)


@contextlib.contextmanager
def _opened(
    path: Path, expected: dict[str, set[str]], name: str, other: dict[str, set[str]]
) -> Iterator[sqlite3.Connection]:
    """A snapshot of the database for reading, checked to be the one that is meant."""
    try:
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise Unreadable(f"{path} can not be read: {error.strerror}") from error
    try:
        with contextlib.closing(sqlite3.connect(_uri(path), uri=True, isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            connection.text_factory = _lenient
            connection.execute("BEGIN")
            _check_tables(connection, path, expected, name, other)
            yield connection
    except sqlite3.OperationalError as error:
        raise Unreadable(f"{path} can not be read: {error}") from error
    except sqlite3.DatabaseError as error:
        raise Unreadable(f"{path} is not a {name} of hermes, or it is damaged: SQLite says: {error}") from error


def _lenient(data: bytes) -> str:
    return data.decode(errors="replace")


def _uri(path: Path) -> str:
    """A file in a directory that can not be written is read as it lies there, where nobody has it open."""
    is_closed = not os.access(path.parent, os.W_OK) and not path.with_name(path.name + "-wal").exists()
    return f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if is_closed else ''}"


def _check_tables(
    connection: sqlite3.Connection, path: Path, expected: dict[str, set[str]], name: str, other: dict[str, set[str]]
) -> None:
    if all(required <= _columns(connection, table) for table, required in expected.items()):
        return
    if all(required <= _columns(connection, table) for table, required in other.items()):
        raise Unreadable(f"{path} is the other database: give state.db first and response_store.db behind it")
    if _columns(connection, "events"):
        raise Unreadable(f"{path} is a {LOG_FILE} of turnlog, no {name} of hermes")
    lacking = [table for table, required in expected.items() if not required <= _columns(connection, table)]
    raise Unreadable(f"{path} is no {name} of hermes: it lacks {' and '.join(lacking)}, or columns of these")


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row["name"] for row in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))}


def _rows(connection: sqlite3.Connection, table: str, order: str = "ORDER BY rowid") -> Iterator[dict[str, Any]]:
    for row in connection.execute(f"SELECT * FROM {table} {order}"):  # noqa: S608 (names of ours)
        yield dict(row)


def _check_version(connection: sqlite3.Connection, path: Path, notes: Notes) -> None:
    if not _columns(connection, "schema_version"):
        return
    newest = max((row["version"] for row in _rows(connection, "schema_version")), default=0)
    if isinstance(newest, int) and newest > SCHEMA_KNOWN:
        notes.note(
            f"{path} has schema {newest}, newer than {SCHEMA_KNOWN} of hermes-agent 0.19.0, which turnlog knows: "
            "what is new in it is passed over"
        )


def _session(row: dict[str, Any], notes: Notes) -> Session | None:
    session_id = text(row["id"])
    if not session_id:
        notes.note(f"a session whose id is {row['id']!r}: left out")
        return None
    config = _object(row.get("model_config"))
    return Session(
        session_id=session_id,
        branched_from=text(config.get("_branched_from")),
        delegated_from=text(config.get("_delegate_from")),
        parent_id=text(row.get("parent_session_id")),
        started_us=us(row.get("started_at")),
        ended_us=us(row.get("ended_at")),
        is_archived=bool(row.get("archived")),
        input_tokens=_count(row.get("input_tokens")),
        output_tokens=_count(row.get("output_tokens")),
        **{name: text(row.get(name)) for name in _TEXTS},
    )


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _object(data: Any) -> dict[str, Any]:
    try:
        found = parsed(data) if isinstance(data, str) else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _response(row: dict[str, Any], notes: Notes) -> Response | None:
    id_ = text(row["response_id"])
    if not id_.removeprefix(PREFIX) or not id_.startswith(PREFIX):
        notes.note(f"response {id_!r}: its id does not begin with {PREFIX!r}, so no client can ask for it: left out")
        return None
    stored = _object(row["data"])
    body = stored.get("response")
    if not isinstance(body, dict):
        notes.note(f"response {id_!r}: what is stored of it is not JSON, or no response: left out")
        return None
    entries = stored.get("conversation_history")
    said = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    history = tuple(message for entry in said if (message := message_of(entry, notes)))
    return Response(
        turn_id=id_.removeprefix(PREFIX),
        session_id=text(stored.get("session_id")),
        created_us=us(body.get("created_at")) or us(row.get("accessed_at")),
        model=text(body.get("model")),
        instructions=text(stored.get("instructions")),
        status=text(body.get("status")) or "completed",
        usage=_usage(body.get("usage")),
        asked=next((message.text for message in reversed(history) if message.role == "user"), ""),
        answer=_answer(body.get("output")),
        history=history,
    )


def _usage(usage: Any) -> bytes:
    """The counts by the names of the chat API, as the log keeps them."""
    if not isinstance(usage, dict):
        return b""
    said, answered = _count(usage.get("input_tokens")), _count(usage.get("output_tokens"))
    counts = {"prompt_tokens": said, "completion_tokens": answered, "total_tokens": said + answered}
    return _encode(counts) if said or answered else b""


def _answer(output: Any) -> str:
    """The text of the last message."""
    for item in reversed(output if isinstance(output, list) else []):
        if isinstance(item, dict) and item.get("type") == "message":
            parts = item.get("content")
            texts = [part.get("text") for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
            return "".join(said for said in texts if isinstance(said, str))
    return ""
