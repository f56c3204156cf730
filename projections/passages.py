"""What was said, by its words: a full-text index over the completed turns of all lineages, and over their titles.

Theory of operation. The index holds words and no text: the text is in the log, and whoever has found a turn reads it
there, so that nothing that was said is stored twice. A document is one turn, input and output, under the position of
its `TurnCompleted`; until it has completed, its input waits in `passages_open`. A turn that failed was never said. A
title is a document under the lineage's id with a minus.

Every document begins with marks: words that no text can hold, one for its tenant, one for its session key, one for its
lineage. A query always asks for a mark, so that it walks no other tenant's documents, and weighs none.

`apply` runs on the event loop and only writes plain rows, gathered where turns come and go. The index takes in what has
completed once a transaction, in `settle`. An index without text can only forget a document that it is shown again: that
is what `forget` does for a deleted lineage, whose rows are gone by then, so that nothing of it is found even before. A
turn that has lost an item is forgotten as a whole: what is left of it would be found with the words of the log.
"""

import hashlib
from collections.abc import Iterable, Iterator
from functools import lru_cache

from eventstore.events import (
    CompressionRotated,
    ItemRemoved,
    ItemsAdded,
    SessionDeleted,
    SessionRenamed,
    SessionStarted,
    TurnCancelled,
    TurnCompleted,
    TurnFailed,
    TurnStarted,
    parse_stream,
)
from eventstore.log import Recorded
from projections.messages import input_messages, messages_of
from projections.text import spoken
from projections.view import Deletion, Statement, View

TOKENIZER = "unicode61 remove_diacritics 2"
MARK = "\ue000"  # for private use: part of a word to the tokenizer, and taken out of every text

SCHEMA = f"""
CREATE TABLE passages (
    position INTEGER PRIMARY KEY,
    started  INTEGER NOT NULL,
    lineage  INTEGER NOT NULL
) STRICT;
CREATE INDEX passages_of_lineage ON passages (lineage);
CREATE TABLE passage_lineages (
    id         INTEGER PRIMARY KEY,
    stream     TEXT    NOT NULL UNIQUE,
    tenant     TEXT    NOT NULL,
    root_id    TEXT    NOT NULL,
    tip_id     TEXT    NOT NULL,
    parent_id  TEXT,
    title      TEXT    NOT NULL,
    source     TEXT    NOT NULL,
    marks      TEXT    NOT NULL,
    scope      TEXT    NOT NULL,
    started_us INTEGER NOT NULL
) STRICT;
CREATE TABLE passages_open (
    stream    TEXT    NOT NULL,
    started   INTEGER NOT NULL,
    completed INTEGER,
    lineage   INTEGER NOT NULL,
    said      TEXT    NOT NULL,
    PRIMARY KEY (stream, started)
) STRICT, WITHOUT ROWID;
CREATE TABLE passages_gone (position INTEGER PRIMARY KEY) STRICT;
CREATE VIRTUAL TABLE passages_fts USING fts5(said, content='', columnsize=0, detail=none, tokenize='{TOKENIZER}')
"""

START = "INSERT OR REPLACE INTO passage_lineages VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
OPEN = """WITH new (started, own, said, stream) AS (VALUES (?, ?, ?, ?)) INSERT INTO passages_open
    SELECT stream, new.started, NULL, id, marks || coalesce(own, scope) || said
    FROM new CROSS JOIN passage_lineages USING (stream)"""
# Many turns of a stream may end at once: each in the row that began last before it.
COMPLETE = """WITH new (completed, said, stream) AS (VALUES (?, ?, ?)) UPDATE passages_open
    SET completed = new.completed, said = passages_open.said || new.said FROM new
    WHERE passages_open.stream = new.stream AND passages_open.started = (
        SELECT max(started) FROM passages_open AS o WHERE o.stream = new.stream AND o.started < new.completed)"""
ADD = (
    """INSERT INTO passages_open SELECT stream, ?, ?, id, marks || scope || ? FROM passage_lineages WHERE stream = ?"""
)
DROP_OPEN = "DELETE FROM passages_open WHERE stream = ? AND completed IS NULL"
ROTATE = "UPDATE passage_lineages SET tip_id = ? WHERE stream = ?"
UNTITLE = """INSERT INTO passages_fts (passages_fts, rowid, said)
    SELECT 'delete', -id, ? || title FROM passage_lineages WHERE stream = ? AND title <> ''"""
RENAME = "UPDATE passage_lineages SET title = ? WHERE stream = ?"
TITLE = """INSERT INTO passages_fts (rowid, said)
    SELECT -id, ? || title FROM passage_lineages WHERE stream = ? AND title <> ''"""
_ID = "lineage = (SELECT id FROM passage_lineages WHERE stream = ?)"
DELETE = (
    f"INSERT INTO passages_gone SELECT position FROM passages WHERE {_ID}",  # noqa: S608
    f"DELETE FROM passages WHERE {_ID}",  # noqa: S608
    "DELETE FROM passages_open WHERE stream = ?",
    "DELETE FROM passage_lineages WHERE stream = ?",
)
DROP_TURN = "DELETE FROM passages_open WHERE stream = ? AND completed = ?"
DELETE_TURN = (
    "INSERT INTO passages_gone SELECT position FROM passages WHERE position = ?",
    "DELETE FROM passages WHERE position = ?",
)
FORGET = """INSERT INTO passages_fts (passages_fts, rowid, said)
    SELECT 'delete', position, ? FROM passages_gone WHERE position = ?"""
FORGOTTEN = "DELETE FROM passages_gone WHERE position = ?"  # taken out once: twice would spoil the index

SETTLE = (
    "INSERT INTO passages SELECT completed, started, lineage FROM passages_open WHERE completed IS NOT NULL",
    """INSERT INTO passages_fts (rowid, said)
    SELECT completed, said FROM passages_open WHERE completed IS NOT NULL ORDER BY completed""",
    "DELETE FROM passages_open WHERE completed IS NOT NULL",
    "DELETE FROM passages_gone",
)

# The newest documents that match, as position, position of the start, and lineage.
FIND = """
SELECT p.position, p.started, p.lineage
FROM (SELECT rowid AS id FROM passages_fts WHERE passages_fts MATCH ? AND rowid > 0 ORDER BY rowid DESC LIMIT ?)
JOIN passages p ON p.position = id
ORDER BY p.position DESC
"""
FIND_TITLES = """
SELECT -rowid FROM passages_fts WHERE passages_fts MATCH ? AND rowid < 0 ORDER BY rowid LIMIT ?
"""
# One word of several that are looked for in one statement: its number, and the newest documents that hold it, as JSON:
# the position of each, with that of its start. One row a word: each row would cost the interpreter's lock.
FIND_WORD = """
SELECT ?, json_group_object(p.position, p.started)
FROM (SELECT rowid AS id FROM passages_fts WHERE passages_fts MATCH ? ORDER BY rowid DESC LIMIT ?)
CROSS JOIN passages p ON p.position = id
"""
LINEAGES = """
SELECT id, root_id, tip_id, parent_id, title, source, started_us
FROM passage_lineages WHERE tenant = ? AND id IN (SELECT value FROM json_each(?)) ORDER BY id DESC
"""
LINEAGE = "SELECT id FROM passage_lineages WHERE stream = ?"
ANY = "SELECT 1 FROM passages_fts WHERE passages_fts MATCH ? AND rowid > 0 LIMIT 1"


def tenant_mark(tenant: str) -> str:
    """The word that begins every document of the tenant."""
    return _mark("t", tenant)


def scope_mark(tenant: str, session_key: str) -> str:
    """The word in every document of what was said under the session key; empty where there is none."""
    return _mark("s", tenant, session_key) if session_key else ""


def lineage_mark(tenant: str, root_id: str) -> str:
    """The word in every document of the lineage but its title."""
    return _mark("l", tenant, root_id)


def quoted(word: str) -> str:
    """A word as the index is asked for it."""
    return f'"{word}"'


@lru_cache(maxsize=4_096)
def _mark(kind: str, *names: str) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for name in names:
        digest.update(len(name).to_bytes(4, "big") + name.encode("utf-8", "surrogatepass"))
    return MARK + kind + digest.hexdigest()


def apply(recorded: Recorded) -> Iterable[Statement]:
    """The rows that an event changes."""
    event, position, stream = recorded.event, recorded.position, recorded.stream
    match event:
        case TurnStarted():
            own = None if event.session_key is None else scope_mark(parse_stream(stream).tenant, event.session_key)
            yield OPEN, (position, own, _input(event), stream)
        case TurnCompleted():
            yield COMPLETE, (position, _output(event), stream)
        case TurnFailed() | TurnCancelled():
            yield DROP_OPEN, (stream,)
        case ItemsAdded():
            yield ADD, (position, position, _added(event), stream)
        case SessionStarted():
            _, tenant, root_id = parse_stream(stream)
            parent = event.forked_from.root_id if event.forked_from else None
            ids = (position, stream, tenant, root_id, event.session_id, parent)
            marks = (_marks(tenant, root_id), scope_mark(tenant, event.session_key))
            yield START, (*ids, "", event.source, *marks, recorded.recorded_us)
            if event.title:
                yield from _retitled(stream, event.title)
        case CompressionRotated():
            yield ROTATE, (event.session_id, stream)
            yield from _retitled(stream, event.title)
        case SessionRenamed():
            yield from _retitled(stream, event.title)
        case SessionDeleted():
            yield UNTITLE, (_title_marks(stream), stream)
            yield from ((sql, (stream,)) for sql in DELETE)
        case _:
            pass


def forget(deletion: Deletion) -> Iterable[Statement]:
    """What takes the deleted lineage's turns out of the index, or the one that has lost an item."""
    stream, event = deletion.recorded.stream, deletion.recorded.event
    for position, turn_id, said in _documents(stream, deletion.earlier):
        if isinstance(event, ItemRemoved):
            if turn_id != event.turn_id:
                continue
            yield DROP_TURN, (stream, position)
            yield from ((sql, (position,)) for sql in DELETE_TURN)
        yield FORGET, (said, position)
        yield FORGOTTEN, (position,)


def _documents(stream: str, events: Iterable[Recorded]) -> Iterator[tuple[int, str, str]]:
    """The documents that a stream's events have made: the position of each, its turn, and its text."""
    _, tenant, root_id = parse_stream(stream)
    scope, said, marks = "", "", _marks(tenant, root_id)
    for recorded in events:
        match recorded.event:
            case SessionStarted(session_key=key):
                scope = scope_mark(tenant, key)
            case TurnStarted() as started:
                own = scope if started.session_key is None else scope_mark(tenant, started.session_key)
                said = marks + own + _input(started)
            case TurnCompleted() as completed:
                yield recorded.position, completed.turn_id, said + _output(completed)
            case ItemsAdded() as event:
                yield recorded.position, event.turn_id, marks + scope + _added(event)
            case _:
                pass


def _retitled(stream: str, title: str) -> Iterable[Statement]:
    marks = _title_marks(stream)
    yield UNTITLE, (marks, stream)
    yield RENAME, (title.replace(MARK, " "), stream)
    yield TITLE, (marks, stream)


def _title_marks(stream: str) -> str:
    return tenant_mark(parse_stream(stream).tenant) + " "


def _marks(tenant: str, root_id: str) -> str:
    return f"{tenant_mark(tenant)} {lineage_mark(tenant, root_id)} "


def _input(started: TurnStarted) -> str:
    return " " + spoken(input_messages(started)).replace(MARK, " ")


def _added(event: ItemsAdded) -> str:
    return " " + spoken(messages_of("responses", event.items)).replace(MARK, " ")


def _output(completed: TurnCompleted) -> str:
    return " " + spoken(completed.output).replace(MARK, " ")


VIEW = View(
    "passages",
    2,
    SCHEMA,
    (
        SessionStarted,
        TurnStarted,
        TurnCompleted,
        TurnFailed,
        TurnCancelled,
        ItemsAdded,
        CompressionRotated,
        SessionRenamed,
        SessionDeleted,
    ),
    apply,
    (START, OPEN, COMPLETE),
    SETTLE,
    forget,
)
