"""Stored chat completions: those whose request said `store: true`. They are listed once the model has answered.

Their ids sort by time, so that a list in the order of the primary key is one by time. `completion_notes` has each pair
of their metadata, in that same order: a list by metadata costs its rows and not the table.
"""

from collections.abc import Iterable, Sequence

import msgspec

from eventstore.events import (
    ResponseAnnotated,
    ResponseEvicted,
    SessionDeleted,
    TurnCancelled,
    TurnCompleted,
    TurnFailed,
    TurnStarted,
    parse_stream,
)
from eventstore.log import Recorded
from projections.messages import fields
from projections.view import Statement, View

SCHEMA = """
CREATE TABLE completions (
    tenant       TEXT NOT NULL,
    turn_id      TEXT NOT NULL,
    root_id      TEXT NOT NULL,
    model        TEXT NOT NULL,
    created_us   INTEGER NOT NULL,
    is_completed INTEGER NOT NULL,
    metadata     TEXT NOT NULL,
    PRIMARY KEY (tenant, turn_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX completions_of_lineage ON completions (tenant, root_id);
CREATE INDEX completions_of_model ON completions (tenant, model, turn_id);
CREATE TABLE completion_notes (
    tenant  TEXT NOT NULL,
    key     TEXT NOT NULL,
    value   TEXT NOT NULL,
    turn_id TEXT NOT NULL,
    PRIMARY KEY (tenant, key, value, turn_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX notes_of_completion ON completion_notes (tenant, turn_id);
"""
INSERT = "INSERT OR IGNORE INTO completions VALUES (?, ?, ?, ?, ?, ?, ?)"
NOTE = "INSERT OR IGNORE INTO completion_notes VALUES (?, ?, ?, ?)"
# Most turns that complete are not stored: many are looked up with one statement.
COMPLETE = """WITH done (tenant, turn_id, model) AS (VALUES (?, ?, ?))
    UPDATE completions SET is_completed = 1, model = coalesce(nullif(done.model, ''), completions.model)
    FROM done WHERE completions.tenant = done.tenant AND completions.turn_id = done.turn_id"""
ANNOTATE = "UPDATE completions SET metadata = ? WHERE tenant = ? AND turn_id = ?"
NOTE_STORED = """INSERT OR IGNORE INTO completion_notes
    SELECT tenant, ?, ?, turn_id FROM completions WHERE tenant = ? AND turn_id = ?"""
FORGET_NOTES = "DELETE FROM completion_notes WHERE tenant = ? AND turn_id = ?"
DELETE = "DELETE FROM completions WHERE tenant = ? AND turn_id = ?"
FORGET_ALL_NOTES = """DELETE FROM completion_notes WHERE tenant = ?
    AND turn_id IN (SELECT turn_id FROM completions WHERE tenant = ? AND root_id = ?)"""
DELETE_ALL = "DELETE FROM completions WHERE tenant = ? AND root_id = ?"
ROOT_OF = "SELECT root_id FROM completions WHERE tenant = ? AND turn_id = ? AND is_completed = 1"


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """Which stored completions of a tenant: those behind the turn `after`; an empty filter lets all pass."""

    model: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    after: str = ""
    is_newest_first: bool = False


def is_stored(started: TurnStarted) -> bool:
    """Whether a turn's request asked for a stored completion."""
    # Looked for as bytes first: hardly any turn is, and every turn is asked.
    return (
        started.api == "chat" and b'"store"' in started.parameters and fields(started.parameters).get("store") is True
    )


def query(tenant: str, stored: Stored, rows_max: int) -> tuple[str, Sequence[object]]:
    """The SQL, made of constant pieces, and its parameters. Its rows are the lineage and the turn of each."""
    pieces, parameters = ["c.tenant = ?", "c.is_completed = 1"], [tenant]
    if stored.model:
        pieces.append("c.model = ?")
        parameters.append(stored.model)
    notes = [f"n{number}" for number in range(len(stored.metadata))]
    first = notes[0] if notes else "c"  # whose order is that of the list: the others are looked up in it
    for note, (key, value) in zip(notes, stored.metadata, strict=True):
        pieces.append(f"{note}.tenant = ? AND {note}.key = ? AND {note}.value = ?")
        parameters += [tenant, key, value]
    pieces += [f"{other}.turn_id = {first}.turn_id" for other in (*notes, "c") if other != first]
    if stored.after:
        pieces.append(f"{first}.turn_id {'<' if stored.is_newest_first else '>'} ?")
        parameters.append(stored.after)
    # SQLite would rather walk through all of a tenant's than look a model up.
    by_model = " INDEXED BY completions_of_model" if stored.model and not notes else ""
    sources = " CROSS JOIN ".join([*(f"completion_notes AS {note}" for note in notes), f"completions AS c{by_model}"])
    order = f"{first}.turn_id {'DESC' if stored.is_newest_first else 'ASC'}"
    sql = f"SELECT c.root_id, c.turn_id FROM {sources} WHERE {' AND '.join(pieces)} ORDER BY {order} LIMIT ?"  # noqa: S608
    return sql, (*parameters, rows_max)


def apply(recorded: Recorded) -> Iterable[Statement]:
    """The rows that an event changes."""
    event = recorded.event
    _, tenant, root_id = parse_stream(recorded.stream)
    match event:
        case TurnStarted():
            if is_stored(event):
                yield from _begin(event, tenant, root_id, recorded.recorded_us)
        case TurnCompleted():
            yield COMPLETE, (tenant, event.turn_id, event.model)
        case ResponseAnnotated():
            yield ANNOTATE, (event.metadata.decode(), tenant, event.turn_id)
            yield FORGET_NOTES, (tenant, event.turn_id)
            for key, value in _notes(fields(event.metadata)):
                yield NOTE_STORED, (key, value, tenant, event.turn_id)
        case TurnFailed() | TurnCancelled() | ResponseEvicted():
            yield FORGET_NOTES, (tenant, event.turn_id)
            yield DELETE, (tenant, event.turn_id)
        case SessionDeleted():
            yield FORGET_ALL_NOTES, (tenant, tenant, root_id)
            yield DELETE_ALL, (tenant, root_id)


def _begin(event: TurnStarted, tenant: str, root_id: str, now_us: int) -> Iterable[Statement]:
    metadata = fields(event.parameters).get("metadata") or {}
    text = msgspec.json.encode(metadata).decode()
    yield INSERT, (tenant, event.turn_id, root_id, event.model, now_us, 0, text)
    for key, value in _notes(metadata):
        yield NOTE, (tenant, key, value, event.turn_id)


def _notes(metadata: object) -> list[tuple[str, str]]:
    """The pairs of a metadata object; nothing of what is no such pair."""
    pairs = metadata.items() if isinstance(metadata, dict) else ()
    return [(key, value) for key, value in pairs if isinstance(value, str)]


OF = (TurnStarted, TurnCompleted, TurnFailed, TurnCancelled, ResponseAnnotated, ResponseEvicted, SessionDeleted)
VIEW = View("completions", 1, SCHEMA, OF, apply, gathered=(INSERT, NOTE, COMPLETE))
