"""`turnlog audit show --as-of` and `turnlog audit diff`: a session at any moment, and what changed between two."""

import asyncio
import json
import sqlite3
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from freezegun import freeze_time

from eventstore.chain import digest
from eventstore.events import (
    CompressionRotated,
    Event,
    ItemRemoved,
    SessionAnnotated,
    SessionDeleted,
    SessionEnded,
    SessionRenamed,
    TurnCancelled,
    lineage_stream,
)
from eventstore.sqlite import SqliteLog
from tests.support.facts import assistant, completed, session_started, started
from tests.support.server import serving
from tests.test_tools import turnlog
from tools.cli import main

NOON = "2026-12-01T12:00:00Z"
USAGE = b'{"prompt_tokens":10,"completion_tokens":5}'
ROTATED = CompressionRotated(
    old_session_id="s1",
    session_id="s1b",
    summary=b'{"role":"user","content":"they greeted each other"}',
    head=0,
    tail=0,
    trigger="manual",
    tokens_before=1_200,
    tokens_after=90,
    summariser="m",
    title="Old",
)
LIFE: tuple[Event, ...] = (
    session_started(title="Old"),  # 1
    started("t1", "hello\nthere"),
    completed("t1", "hi \x1b[31mred", usage=USAGE),
    started("t2", "two"),
    TurnCancelled(turn_id="t2", reason="client", output=(assistant("I was"),)),  # 5
    started("t3", "three"),
    completed("t3", "drei", usage=USAGE),
    ROTATED,  # 8
    SessionRenamed(title="New"),
    SessionAnnotated(metadata=b'{"a":"b"}'),
    ItemRemoved(turn_id="t3", item_id="msg_t3"),
    SessionEnded(reason="done"),  # 12
    SessionDeleted(),
)
CHANGED = """\
--- position 4, 2026-12-01T12:04:00.000000Z
+++ position 12, 2026-12-01T12:12:00.000000Z
8 events of this session between them

  id              's1' -> 's1b'
  title           'Old' -> 'New'
  ended_at        none -> 2026-12-01T12:12:00.000000Z
  end_reason      none -> 'done'
  message_count   3 -> 0
  input_tokens    10 -> 20
  output_tokens   5 -> 10
  api_call_count  1 -> 0
  last_active     2026-12-01T12:04:00.000000Z -> 2026-12-01T12:08:00.000000Z
  metadata        none -> {"a":"b"}

  user: hello
      there
  assistant: hi \\x1b[31mred
- user (in progress): two
+ user (cancelled): two
+ assistant (cancelled): I was
+ user: three
+ compressed: s1 -> s1b, 1,200 -> 90 tokens, summary by m: they greeted each other
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """A log of a session's life, an event a minute."""
    asyncio.run(_live(tmp_path / "d"))
    return tmp_path / "d"


async def _live(data: Path) -> None:
    log = await SqliteLog.open(data)
    with freeze_time(NOON, real_asyncio=True) as now:
        for version, event in enumerate(LIFE):
            now.tick(60)
            await log.append(lineage_stream("default", "s1"), version, (event,))
    await log.close()


def audit(log: Path, *arguments: str, color: bool = False) -> Result:
    """What the command says."""
    return CliRunner().invoke(main, ["audit", *arguments, "--data", str(log)], color=color)


def said(log: Path, *arguments: str) -> str:
    done = audit(log, *arguments)
    assert done.exit_code == 0, done.output
    return done.output


def test_show_ends_at_the_moment(log: Path) -> None:
    whole = said(log, "show", "s1").splitlines()
    assert len(whole) == len(LIFE)
    for moment in ("4", "2026-12-01T12:04:00Z", "2026-12-01T14:04:59.9+02:00"):
        assert said(log, "show", "s1", "--as-of", moment).splitlines() == whole[:4]
    assert said(log, "show", "s1b", "--as-of", "99").splitlines() == whole


def test_show_tells_what_had_been_said_by_then(log: Path) -> None:
    assert said(log, "show", "s1", "--messages", "--as-of", "4").splitlines() == [
        *("user: hello", "    there", "assistant: hi \\x1b[31mred", "user (in progress): two"),
    ]
    last = said(log, "show", "s1b", "--messages", "--as-of", "10", "--json").splitlines()
    assert [json.loads(line).get("content") for line in last] == [
        *("hello\nthere", "hi \x1b[31mred", "two", "I was", "three", "drei", None),
    ]
    assert json.loads(last[-1])["summary"] == "they greeted each other"


def test_diff_tells_people_what_changed(log: Path) -> None:
    assert said(log, "diff", "s1", "4", "12") == CHANGED
    assert said(log, "diff", "s1b", "2026-12-01T12:04:00Z", "2026-12-01T12:12:30Z") == said(
        log, "diff", "s1", "4", "12"
    )


def test_diff_shows_what_was_taken_out_with_a_minus_and_little_around_it(log: Path) -> None:
    assert said(log, "diff", "s1", "10", "11").splitlines()[3:] == [
        *("", "  … 3 unchanged", "  assistant (cancelled): I was", "  user: three", "- assistant: drei"),
        "  compressed: s1 -> s1b, 1,200 -> 90 tokens, summary by m: they greeted each other",
    ]


def test_diff_tells_programs_what_changed(log: Path) -> None:
    told = json.loads(said(log, "diff", "s1", "4", "12", "--json"))
    assert told["before"] == {"position": 4, "recorded_at": "2026-12-01T12:04:00.000000Z", "exists": True}
    assert told["fields"]["title"] == {"before": "Old", "after": "New"}
    assert [message["content"] for message in told["added"]] == ["I was", "three"]
    assert [message["content"] for message in told["removed"]] == []
    assert [(c["before"]["status"], c["after"]["status"]) for c in told["changed"]] == [("in_progress", "cancelled")]
    assert [rotation["session_id"] for rotation in told["compressed"]] == ["s1b"]


def test_diff_is_coloured_on_a_terminal_alone(log: Path) -> None:
    assert "\x1b[" not in audit(log, "diff", "s1", "0", "12").output
    coloured = audit(log, "diff", "s1", "4", "5", color=True).output
    assert "\x1b[31m- user (in progress): two\x1b[0m" in coloured
    assert "\x1b[32m+ user (cancelled): two\x1b[0m" in coloured


def test_diff_says_what_is_not_there_on_a_side(log: Path) -> None:
    began = said(log, "diff", "s1", "0", "3")
    assert "--- position 0: it began at position 1, 2026-12-01T12:01:00.000000Z" in began
    assert "  title           none -> 'Old'" in began
    gone = said(log, "diff", "s1", "12", "13")
    assert "+++ position 13, 2026-12-01T12:13:00.000000Z: it was deleted at position 13" in gone
    assert "- user: three" in gone
    assert "FROM and TO are the same moment" in said(log, "diff", "s1", "5", "5")
    with sqlite3.connect(log / "log.db") as database:
        database.executescript("DROP TRIGGER events_are_never_updated")
        rows = database.execute("SELECT data, position FROM events").fetchall()
        database.executemany("UPDATE events SET data = ? WHERE position = ?", [(digest(row), p) for row, p in rows])
    database.close()
    assert "what it held was erased" in audit(log, "diff", "s1", "4", "12").output
    assert "TurnCompleted" in said(log, "show", "s1", "--as-of", "4")


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("diff", "s1", "9", "4"), 1, "FROM (position 9) comes after TO (position 4): turn them around"),
        (("diff", "s1", "99", "98"), 1, "turn them around"),
        (("diff", "s1", "2026-12-01T12:09:00Z", "4"), 1, "FROM (2026-12-01T12:09:00.000000Z) comes after TO"),
        (("diff", "s1", "0", "0"), 1, "there is no session 's1' at position 0: it began at position 1"),
        (("diff", "s1", "13", "99"), 1, "it was deleted at position 13"),
        (("diff", "nobody", "1", "2"), 1, "tenant 'default' has no session 'nobody'"),
        (("diff", "s1", "1", "2", "--tenant", "acme"), 1, "tenant 'acme' has no session 's1'"),
        (("diff", "\udcff", "1", "2"), 2, "is not text in UTF-8"),
        (("diff", "s1", "1", "yesterday"), 2, "neither a position nor a time"),
        (("diff", "s1", "1", "2026-12-01T12:00:00"), 2, "lacks a time zone"),
        (("diff", "s1", "1"), 2, "Missing argument 'TO'"),
        (("show", "s1", "--as-of", "0"), 1, "there is no session 's1' at position 0: it began at position 1"),
        (("show", "s1", "--as-of", ""), 2, "neither a position nor a time"),
        (("show", "s1", "--messages"), 1, "it was deleted at position 13"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(log: Path, arguments: tuple[str, ...], code: int, told: str) -> None:
    done = audit(log, *arguments)
    assert (done.exit_code, told in done.output) == (code, True), done.output
    assert isinstance(done.exception, SystemExit)


async def test_the_past_is_shown_beside_a_running_server(tmp_path: Path) -> None:
    async with serving(tmp_path / "d") as server:
        await server.chat("hello", "s1")
        await server.chat("again", "s1")
        done = await asyncio.to_thread(turnlog, "audit", "diff", "s1", "3", "5", "--data", "d", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\n+ user: again\n+ assistant: " in done.stdout
