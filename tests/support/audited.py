"""Logs to be audited: made, cut short, written anew; and the verifier, run as its users run it."""

import sqlite3
import subprocess
import sys
from pathlib import Path

from eventstore.proofs.audit_key import KEY_FILE, load_or_make
from eventstore.proofs.notary import Notary
from eventstore.sqlite import SqliteLog
from tests.support.facts import started
from tools.audit import verifier

STREAM = "lineage/default/s1"
NOW_US = 1_796_126_400_700_000  # 2026-12-01T12:00:00.7Z


async def a_log(data: Path, events: int, word: str = "hello", *, after: int = 0) -> None:
    """A log of turns that say `word`; `after` is how many it has already."""
    log = await SqliteLog.open(data)
    for begin in range(after, events, 200):
        count = min(200, events - begin)
        await log.append(STREAM, begin, tuple(started(f"t{begin + n}", f"{word} {begin + n}") for n in range(count)))
    await log.close()


async def written_anew(data: Path, events: int) -> None:
    """Another log in the place of the one that was there: every hash fits, and nothing of it was signed for."""
    for path in data.glob("log.db*"):
        path.unlink()
    await a_log(data, events, "something else")


def change(data: Path, sql: str) -> None:
    """What somebody does with the `sqlite3` shell who knows of the triggers."""
    with sqlite3.connect(data / "log.db") as database:
        database.execute("DROP TRIGGER IF EXISTS events_are_never_updated")
        database.execute("DROP TRIGGER IF EXISTS events_are_never_deleted")
        database.execute(sql)
    database.close()


def notary_of(data: Path) -> Notary:
    """The notary of a log, its key made, its tree built. Close it."""
    load_or_make(data / KEY_FILE, "example.com/log")
    notary = Notary.open(data, data / KEY_FILE)
    while notary.catch_up():
        pass
    return notary


def verify(directory: Path, *arguments: str, piped: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run the verifier alone: isolated from every package and variable of this project, in that directory."""
    alone = directory / "verifier.py"
    alone.write_bytes(Path(verifier.__file__).read_bytes())
    return subprocess.run(
        [sys.executable, "-I", "-S", "verifier.py", *arguments],
        capture_output=True,
        text=True,
        cwd=directory,
        env={},
        input=piped,
        timeout=60,
        check=False,
    )
