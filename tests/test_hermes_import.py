"""A conversation of the original goes on: its databases, made by its own classes, are imported, and served."""

import asyncio
import contextlib
import random
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from api.turns.summary import HEADING
from tests.support.dialogue import found as hits_of
from tests.support.dialogue import listed
from tests.support.hermes import folded, shown
from tests.support.server import Server, serving
from tests.support.upstream import Upstream
from tests.test_tools import turnlog
from tools.cli import main
from tools.hermes.moving import moved
from tools.hermes.reading import Unreadable, read
from tools.hermes.rows import Notes

FIXTURES = Path(__file__).parent / "fixtures" / "hermes"
STATE, STORE = FIXTURES / "state.db", FIXTURES / "response_store.db"
ROOT, MIDDLE, TIP = "trip-root", "20260601_120000_aaaaaa", "20260601_130000_bbbbbb"
SAID = [
    *("I am Ada, I want to go to Oslo.", "Gladly, Ada. When?"),
    *("In May. What is the weather?", "", "12 degrees, dry", "Dry and mild."),
    *("Is this the fjord?", "Yes, that is the Oslofjord."),
    *("Find me a hotel.", "The Grand, on Karl Johans gate.", "Too dear.", "Then the Cochs Pensjonat."),
    *("And by train?", "The night train from Stockholm.", "How long does it take?", "About eleven hours."),
    *("Book it.", "", "booked, number 4711", "It is booked: 4711.", "Thank you!", "Have a good trip, Ada."),
]
# What the original's compressor kept of it: the head, a summary, the tail and what was said since.
KEPT_HEAD, KEPT_TAIL = SAID[:3], SAID[14:]


def run(*arguments: str) -> Result:
    """The command, in this process: starting one takes longer than all that it does."""
    return CliRunner().invoke(main, ["import", "--from-hermes", *arguments])


@pytest.fixture(scope="session")
def imported_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("hermes") / "data"
    done = turnlog("import", "--from-hermes", str(STATE), str(STORE), "--data", str(data), cwd=data.parent)
    assert (done.returncode, done.stderr) == (0, ""), done
    return data


@pytest.fixture
def moved_in(imported_once: Path, data: Path) -> Path:
    """A data directory with everything of the fixture databases."""
    return Path(shutil.copytree(imported_once, data))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that commands are run in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def text(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else str(content[0]["text"])


def prompt(upstream: Upstream) -> list[dict[str, Any]]:
    """What the model was sent last, without system messages."""
    return [message for message in upstream.messages[-1] if message["role"] != "system"]


def check_prompt(sent: list[dict[str, Any]], *since: str) -> None:
    texts = [text(message) for message in sent]
    summary = texts[len(KEPT_HEAD)]
    assert texts == [*KEPT_HEAD, summary, *KEPT_TAIL, *since]
    assert summary.startswith(HEADING)
    assert "Ada goes to Oslo by night train." in summary
    roles = [message["role"] for message in sent if message["role"] != "tool" and not message.get("tool_calls")]
    assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]


async def test_a_compressed_conversation_goes_on_by_every_name_it_had(moved_in: Path, upstream: Upstream) -> None:
    async with serving(moved_in, upstream=upstream.url, response_ttl_s=0) as server:
        by_slug = await server.openai.responses.create(model="m", input="By slug.", conversation="trip")
        check_prompt(prompt(upstream), "By slug.")
        since = ["By slug.", by_slug.output_text]
        for name in (ROOT, MIDDLE, TIP):
            answer, effective = await server.chat(f"By {name}.", name)
            assert effective == TIP
            check_prompt(prompt(upstream), *since, f"By {name}.")
            since += [f"By {name}.", answer["choices"][0]["message"]["content"]]
        chained = await server.openai.responses.create(model="m", input="Next.", previous_response_id=by_slug.id)
        assert [text(m) for m in prompt(upstream)][-3:] == ["By slug.", by_slug.output_text, "Next."]
        assert chained.previous_response_id == by_slug.id
        seen = [text(message) for message in await server.messages(ROOT)]
        assert seen == SAID + since, "everything was said once"


async def test_a_response_of_before_the_compression_goes_on_where_it_was(moved_in: Path, upstream: Upstream) -> None:
    async with serving(moved_in, upstream=upstream.url, response_ttl_s=0) as server:
        old = f"resp_{'a' * 27}3"
        again = await server.openai.responses.retrieve(old)
        assert (again.id, again.output_text) == (old, "The Grand, on Karl Johans gate.")
        assert again.usage is not None
        assert again.usage.input_tokens == 120
        await server.openai.responses.create(model="m", input="What was it called?", previous_response_id=old)
        assert [text(message) for message in prompt(upstream)] == [*SAID[:10], "What was it called?"]
        assert [text(m) for m in await server.messages(TIP)] == SAID, "the session it left did not move"


async def test_the_newest_response_of_a_slug_continues_its_session(moved_in: Path, upstream: Upstream) -> None:
    async with serving(moved_in, upstream=upstream.url, response_ttl_s=0) as server:
        newest = "resp_" + "d" * 28
        await server.openai.responses.create(model="m", input="When?", previous_response_id=newest)
        expected = ["What is a fjord?", "A drowned valley.", "Who made it?", "Ice did.", "When?"]
        assert [text(message) for message in prompt(upstream)] == expected, "nothing is doubled"
        await server.openai.responses.create(model="m", input="Where?", conversation="fjords")
        assert [text(message) for message in prompt(upstream)][:5] == expected


async def test_a_client_without_names_is_known_by_the_history_it_resends(moved_in: Path, upstream: Upstream) -> None:
    async with serving(moved_in, upstream=upstream.url, response_ttl_s=0) as server:
        history = [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "What is two and two?"},
            {"role": "assistant", "content": "Four."},
            {"role": "user", "content": "Times seven?"},
            {"role": "assistant", "content": "Twenty-eight."},
            {"role": "user", "content": "Half of it?"},
        ]
        _, session_id = await server.chat("", messages=history)
        assert session_id.startswith("api-")
        sent = [text(message) for message in prompt(upstream)]
        told = ["What is two and two?", "Four.", "Times seven?", "", "28", "Twenty-eight.", "Half of it?"]
        assert sent == told, "with what the tools had said, which the client never saw"


async def test_lists_titles_search_and_forks_show_what_was_imported(moved_in: Path, upstream: Upstream) -> None:
    async with serving(moved_in, upstream=upstream.url, response_ttl_s=0) as server:
        rows = {row["id"]: row for row in await listed(server)}
        assert rows[TIP]["title"] == "Trip to Oslo #3"
        assert rows[TIP]["_lineage_root_id"] == ROOT
        assert rows["tg-1"]["source"] == "telegram"
        assert rows["cli-1"]["end_reason"] == "branched"
        assert rows[TIP]["started_at"] == pytest.approx(1_780_300_801)
        await check_search(server)
        branch = [text(message) for message in await server.messages("cli-2")]
        assert branch == ["Name a colour.", "Blue.", "Another.", "Green.", "One more.", "Red."]
        lineage = await server.get(f"/api/sessions/{MIDDLE}/lineage")
        assert [row["id"] for row in lineage["generations"]] == [ROOT, MIDDLE, TIP]


async def check_search(server: Server) -> None:
    hits = await hits_of(server, "Pensjonat")
    assert [hit["session_id"] for hit in hits] == [TIP]
    assert await hits_of(server, "COMPACTION") == [], "summaries and copies were never said"


async def test_what_was_cut_short_or_taken_back_is_shown_and_in_no_prompt(moved_in: Path, upstream: Upstream) -> None:
    async with serving(moved_in, upstream=upstream.url, response_ttl_s=0) as server:
        seen = [text(message) for message in await server.messages("tg-1")]
        asked = "[Eve] @bot and when?"
        assert seen == [
            *("[Bob] lunch?", "[Eve] @bot where?", "At the harbour."),
            *(asked, asked, "At noon.", "[Eve] @bot sing.", "La la la."),
        ]
        await server.chat("[Eve] @bot really?", "tg-1")
        sent = [text(message) for message in prompt(upstream)]
        assert sent == [*seen[:3], asked, "At noon.", "[Eve] @bot really?"]


async def test_a_session_that_was_compacted_in_place_keeps_its_id(moved_in: Path, upstream: Upstream) -> None:
    async with serving(moved_in, upstream=upstream.url, response_ttl_s=0) as server:
        await server.chat("Fact 7?", "place-1")
        sent = [text(message) for message in prompt(upstream)]
        assert sent[:3] == ["Fact 0?", "It is 0.", "Fact 1?"]
        assert "Facts 0 to 5 were told." in sent[3]
        assert sent[4:] == ["Fact 4?", "It is 4.", "Fact 5?", "It is 5.", "Fact 6?", "It is 6.", "Fact 7?"]
        seen = [text(message) for message in await server.messages("place-1")]
        assert seen[:14] == [said for n in range(7) for said in (f"Fact {n}?", f"It is {n}.")]


async def test_a_replay_of_an_imported_log_is_the_same(moved_in: Path, upstream: Upstream) -> None:
    async with serving(moved_in, upstream=upstream.url, response_ttl_s=0) as server:
        await server.chat("And on.", MIDDLE)
        await listed(server)
    verified = turnlog("replay", "--verify", "--data", str(moved_in), cwd=moved_in.parent)
    assert verified.returncode == 0, verified
    shown = turnlog("audit", "show", TIP, "--data", str(moved_in), cwd=moved_in.parent)
    assert shown.stdout.splitlines()[0].split()[2:4] == ["2026-06-01T08:00:01.000000Z", "SessionStarted"]
    assert "CompressionRotated" in shown.stdout


def test_the_account_counts_everything_and_names_what_is_left_out(here: Path) -> None:
    would = run(str(STATE), str(STORE), "--data", "d", "--dry-run")
    assert not (here / "d").exists()
    assert f"{ROOT} -> {MIDDLE} -> {TIP}, api_server, 'Trip to Oslo #3'" in would.stdout
    done = run(str(STATE), str(STORE), "--data", "d")
    counts = "13 sessions in 11 lineages (2 forks), 63 messages, 8 responses, 2 conversations"
    assert f"imported {counts} into d" in done.stdout
    assert f"would import {counts} into d" in would.stdout


def test_a_second_import_names_what_is_there_and_changes_nothing(moved_in: Path) -> None:
    before = (moved_in / "log.db").read_bytes()
    again = run(str(STATE), str(STORE), "--data", str(moved_in))
    assert again.exit_code == 1
    assert "the log knows conversation 'fjords', conversation 'trip'," in again.stderr
    assert (moved_in / "log.db").read_bytes() == before
    other = run(str(STATE), "--tenant", "acme", "--data", str(moved_in))
    assert other.exit_code == 0, other.output


async def test_what_is_imported_into_a_log_comes_behind_what_is_there(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url) as server:
        await server.chat("Hello.", "mine")
    done = await asyncio.to_thread(run, str(STATE), str(STORE), "--data", str(data))
    assert done.exit_code == 0, done.output
    with sqlite3.connect(data / "log.db") as log:
        times = [row[0] for row in log.execute("SELECT recorded_us FROM events ORDER BY position")]
    assert times == sorted(times)
    async with serving(data, upstream=upstream.url) as server:
        assert [text(m) for m in await server.messages(ROOT)] == SAID
        assert (await server.messages("mine"))[0]["content"] == "Hello."


async def test_beside_a_running_server_nothing_is_imported(data: Path, upstream: Upstream) -> None:
    async with serving(data, upstream=upstream.url):
        refused = await asyncio.to_thread(run, str(STATE), "--data", str(data))
    assert refused.exit_code == 1
    assert "is in use by process" in refused.stderr


def test_a_database_that_hermes_has_open_is_read_with_what_is_in_its_journal(here: Path) -> None:
    state = here / "state.db"
    shutil.copy(STATE, state)
    hermes = sqlite3.connect(state, isolation_level=None)
    hermes.execute("PRAGMA journal_mode = WAL")
    hermes.execute("INSERT INTO sessions (id, source, started_at) VALUES ('newest', 'cli', 1780400000.0)")
    try:
        done = run("state.db", "--data", "d", "--dry-run")
    finally:
        hermes.close()
    assert "newest, cli, 0 messages" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("state.db", "none.db"), "none.db can not be read: No such file or directory"),
        (("response_store.db", "state.db"), "response_store.db is the other database: give state.db first"),
        (("make.py",), "make.py is not a state.db of hermes, or it is damaged: SQLite says:"),
        (("empty.db",), "empty.db is no state.db of hermes: it lacks sessions and messages"),
        ((".",), "can not be read: Is a directory"),
        (("state.db", "--tenant", "A b"), "tenant 'A b': expected 1 to 64 of a-z"),
        (("state.db", "response_store.db", "state.db"), "expected STATE_DB and perhaps RESPONSE_STORE_DB, got 3"),
        (("nothing.db",), "nothing.db holds no sessions: there is nothing to import"),
    ],
)
def test_bad_input_is_a_sentence(here: Path, arguments: tuple[str, ...], sentence: str) -> None:
    for path in FIXTURES.glob("*.*"):
        shutil.copy(path, here)
    (here / "empty.db").touch()
    shutil.copy(STATE, here / "nothing.db")
    with sqlite3.connect(here / "nothing.db") as emptied:
        emptied.executescript("DELETE FROM messages; DELETE FROM sessions;")
    refused = run(*arguments, "--data", "d")
    assert refused.exit_code in (1, 2)
    assert sentence in " ".join(refused.stderr.split())
    assert "Traceback" not in refused.stderr
    assert not (here / "d").exists()


def test_columns_that_an_older_version_lacked_are_empty(here: Path) -> None:
    with sqlite3.connect(here / "old.db") as old:
        old.execute("ATTACH ? AS state", (str(STATE),))
        columns = "id, source, model, parent_session_id, started_at, ended_at, end_reason"
        old.execute(f"CREATE TABLE sessions AS SELECT {columns} FROM state.sessions WHERE id <> 'place-1'")
        columns = "id, session_id, role, content, tool_call_id, tool_calls, timestamp"
        old.execute(f"CREATE TABLE messages AS SELECT {columns} FROM state.messages WHERE session_id <> 'place-1'")
    done = run("old.db", "--data", "d")
    assert "imported 11 sessions in 9 lineages (2 forks), 45 messages, 0 responses" in done.stdout, done.output


def test_a_newer_schema_and_odd_rows_are_named(here: Path) -> None:
    shutil.copy(STATE, here / "state.db")
    shutil.copy(STORE, here / "store.db")
    with sqlite3.connect(here / "state.db") as state:
        state.execute("UPDATE schema_version SET version = 99")
        state.execute("UPDATE messages SET role = 'narrator' WHERE id = 36")
        state.execute("UPDATE messages SET session_id = 'nobody' WHERE session_id = 'alone-1'")
    with sqlite3.connect(here / "store.db") as store:
        store.execute("UPDATE responses SET data = '{' WHERE response_id LIKE 'resp_c%'")
        store.execute("INSERT INTO conversations VALUES ('lost', 'resp_lost')")
    done = run("state.db", "store.db", "--data", "d")
    assert done.exit_code == 0, done.output
    for sentence in (
        "state.db has schema 99, newer than 22 of hermes-agent 0.19.0, which turnlog knows",
        "message 36 of session 'cli-1': role 'narrator' is none of a conversation: left out",
        "session 'nobody' has messages and no row: it is imported with what they tell",
        f"response 'resp_{'c' * 28}': what is stored of it is not JSON, or no response: left out",
        "conversation 'lost' leads to 'resp_lost', which is not there: left out",
        "7 responses older than 30 days can be asked for where --response-ttl-s is 0",
    ):
        assert sentence in done.stdout


ODD: list[object] = [None, "", -1, 1e300, b"\xff\x00", "[]", "{", "\x00json:{", '\x00json:{"a":1}', "[[1]]", "cli-2"]
ODD += ["trip-root", "tool", "user", "assistant", "compression", '{"_branched_from":5}', "a/b", '[{"function":{}}]']
ODD += ['{"response":{"output":[{"type":"message","content":[{"text":1}]}]},"conversation_history":5}', "\\ud800"]


@pytest.mark.parametrize("seed", range(8))
def test_whatever_stands_in_its_columns_is_imported_or_refused_in_a_sentence(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 (nothing is kept secret by it)
    for path, tables in ((STATE, ("sessions", "messages")), (STORE, ("responses", "conversations"))):
        shutil.copy(path, tmp_path)
        with sqlite3.connect(tmp_path / path.name) as database:
            for _ in range(12):
                table = chance.choice(tables)
                column = chance.choice([row[1] for row in database.execute(f"PRAGMA table_info({table})")])
                row = chance.choice([row[0] for row in database.execute(f"SELECT rowid FROM {table}")])
                with contextlib.suppress(sqlite3.Error):  # a key that is there already, nothing where something must be
                    database.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (chance.choice(ODD), row))
    try:
        found = moved(read(tmp_path / "state.db", tmp_path / "response_store.db", notes := Notes()), "default", notes)
    except Unreadable:
        return
    assert found.account.left_out == 0 or notes.said
    assert [fact.at_us for fact in found.facts] == sorted(fact.at_us for fact in found.facts)
    for session in folded(found).values():
        assert session.open is None
        shown(session)
