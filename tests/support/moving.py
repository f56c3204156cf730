"""Logs to move, and the commands that move them."""

import hashlib
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from click.testing import CliRunner, Result

from eventstore.chain import Row
from eventstore.events import Event
from eventstore.moving.outgoing import START, Outgoing
from eventstore.sqlite import LOG_FILE, SqliteLog
from tests.support.facts import completed, session_started, started
from tools.cli import main

STREAM = "lineage/default/s1"


class Append(NamedTuple):
    """Events for a stream."""

    stream: str
    events: Sequence[Event]


TWO_TURNS = (
    Append(STREAM, (session_started(), started("t1", "hello Ada"))),
    Append(STREAM, (completed("t1", "hi there"),)),
    Append("lineage/acme/ß–東", (session_started("ß–東"), started("t2", "grüße 🎈\u2028"), completed("t2", "日本"))),
    Append(STREAM, (started("t3", "again"), completed("t3", "and again"))),
)


def turnlog(*arguments: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def done(*arguments: object) -> Result:
    """Run a command that must not fail."""
    result = turnlog(*arguments)
    assert result.exit_code == 0, result.output
    return result


def refused(*arguments: object, status: int = 1) -> str:
    """What a command says that must fail in a sentence."""
    result = turnlog(*arguments)
    assert result.exit_code == status, result.output
    assert isinstance(result.exception, SystemExit), result.exception
    return result.stderr


def exported(data: Path, *arguments: object) -> bytes:
    """What `turnlog export` writes."""
    return done("export", "--data", data, *arguments).stdout_bytes


async def make_log(data: Path, appends: Iterable[Append] = TWO_TURNS) -> None:
    """A log with these appends, in `data`, new or not."""
    log = await SqliteLog.open(data, synchronous="OFF")
    try:
        for stream, events in appends:
            await log.append(stream, len(await log.read(stream)), events)
    finally:
        await log.close()


def erase(data: Path, positions: Iterable[int]) -> None:
    """Replace events by their digests, as an erasure does."""
    with sqlite3.connect(data / LOG_FILE) as database:
        (trigger,) = database.execute(
            "SELECT sql FROM sqlite_schema WHERE name = 'events_are_never_updated'"
        ).fetchone()
        database.execute("DROP TRIGGER events_are_never_updated")
        for position in positions:
            (content,) = database.execute("SELECT data FROM events WHERE position = ?", (position,)).fetchone()
            digest = hashlib.sha256(content).digest()
            database.execute("UPDATE events SET data = ? WHERE position = ?", (digest, position))
        database.execute(trigger)
    database.close()


def rows(path: Path) -> list[Row]:
    """All rows of a log's file, checked."""
    with Outgoing.open(path) as log:
        return [row for batch in log.rows(START, log.head.position) for row in batch]


def names(directory: Path) -> set[str]:
    """What is in a directory, without what SQLite keeps there while it is read."""
    return {path.name for path in directory.iterdir() if not path.name.endswith(("-wal", "-shm"))}
