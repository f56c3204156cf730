"""Search over HTTP, and the reading of what is typed into it: whatever that is, it is a question and not an error."""

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from api import keys
from api.turns import search
from api.turns.query import Term, for_index, for_texts, terms
from eventstore.events import CompressionRotated, Event, ForkPoint, SessionDeleted, SessionRenamed, lineage_stream
from eventstore.sqlite import SqliteLog
from projections.passages import MARK, TOKENIZER, tenant_mark
from projections.shortlist import Words, matches, ranked
from tests.support.facts import completed, session_started, started
from tests.support.server import Server, serving
from tests.support.upstream import Upstream, says

NASTY = (
    '"', '""', '"""', "*", "**", "a*b", '"a"*', "'", "a'b", "(", ")", "a)(", "NOT", "AND", "a AND", "OR b", "NEAR(a b)",
    "said:hello", "-a", "^a", "a:b", "{a b}:c", "+", "a + b", "\\", "%", "_", ";", "--", "/*", "\x00", "a\x00b",
    "\ue000", "\ud7ff", "é", "日本", "🎈", "DROP TABLE passages", " ".join(["w"] * 200), "x" * 500, "a-b-c*", "hello~",
    "#1", "[a]",
)  # fmt: skip


def hits(answer: dict[str, Any]) -> list[str]:
    """The sessions that were found."""
    return [hit["session_id"] for hit in answer["data"]]


async def find(server: Server, q: str, status: int = 200, **parameters: Any) -> dict[str, Any]:
    """What a search answers."""
    async with server.http.get("/api/sessions/search", params={"q": q, **parameters}) as response:
        answer: dict[str, Any] = await response.json()
        assert response.status == status, answer
        return answer


async def record(data: Path, *sessions: Sequence[Event], tenant: str = "default") -> None:
    """Have a log with those sessions, each under the id that it starts with."""
    log = await SqliteLog.open(data)
    for events in sessions:
        first: Any = events[0]
        await log.append(lineage_stream(tenant, first.session_id), 0, events)
    await log.close()


def session(session_id: str, *texts: str, **fields: Any) -> list[Event]:
    """A session with a turn for each text, to which the model said "fine"."""
    turns = [
        event
        for number, text in enumerate(texts)
        for event in (started(f"{session_id}-{number}", text), completed(f"{session_id}-{number}", "fine"))
    ]
    return [session_started(session_id, **fields), *turns]


async def test_a_hit_says_where_and_by_whom_it_was_said(server: Server, upstream: Upstream) -> None:
    upstream.script = lambda _: says("Lovely, a beagle.")
    await server.chat("My dog is called Rex", "s1")
    (hit,) = (await find(server, "rex"))["data"]
    row = (await server.get("/api/sessions/s1"))["session"]
    assert (hit["session_id"], hit["_lineage_root_id"], hit["lineage_root"]) == ("s1", "s1", "s1")
    assert (hit["snippet"], hit["role"], hit["model"]) == ("My dog is called >>>Rex<<<", "user", "m")
    assert hit["session_started"] == row["started_at"] <= hit["timestamp"]
    assert hit["turn_id"] == (await server.messages("s1"))[0]["turn_id"]
    assert (hit["title"], hit["parent_session_id"], hit["source"]) == (None, None, "api_server")
    (hit,) = (await find(server, "beagle"))["data"]
    assert (hit["snippet"], hit["role"]) == ("Lovely, a >>>beagle<<<.", "assistant")


async def test_what_was_acknowledged_a_moment_ago_is_found(server: Server) -> None:
    for number in range(20):
        await server.chat(f"word{number}", f"s{number}")
        assert hits(await find(server, f"word{number}")) == [f"s{number}"]


async def test_words_are_all_there_phrases_stand_side_by_side_and_a_star_is_any_ending(data: Path) -> None:
    await record(data, session("a", "the red house stands"), session("b", "a house, the red one"))
    async with serving(data) as server:
        for q, expected in {
            "house red": {"a", "b"},
            '"red house"': {"a"},
            "red-house": {"a"},
            "stan*": {"a"},
            '"the red ho"*': {"a"},
            "stan": set(),
            "house blue": set(),
            "house AND red": set(),
            "HÖUSE": {"a", "b"},
            '"house': {"a", "b"},
            "s*": set(),
            "?!": set(),
        }.items():
            assert set(hits(await find(server, q))) == expected, q


async def test_a_phrase_does_not_run_from_a_question_into_its_answer(data: Path) -> None:
    await record(data, session("a", "is it"))
    async with serving(data) as server:
        assert hits(await find(server, '"it fine"')) == []
        assert hits(await find(server, "it fine")) == ["a"]


async def test_a_lineage_is_one_hit_by_its_newest_session_and_its_best_turn(data: Path) -> None:
    rotated = CompressionRotated(
        old_session_id="s1", session_id="s2", summary=b'{"role":"user","content":"sum"}', head=0, tail=0,
        trigger="manual", tokens_before=2, tokens_after=1, summariser="m", title="Pets #2",
    )  # fmt: skip
    many = session("s1", "a cat and so many other things that were said besides", "cat cat", "a dog")
    await record(data, [*many, rotated, started("late", "another cat here"), completed("late")])
    async with serving(data) as server:
        (hit,) = (await find(server, "cat"))["data"]
        assert (hit["session_id"], hit["_lineage_root_id"], hit["title"]) == ("s2", "s1", "Pets #2")
        assert hit["turn_id"] == "s1-1"
        for old_or_new in ("s1", "s2"):
            assert hits(await find(server, old_or_new)) == ["s2"]


async def test_titles_match_and_come_first(data: Path) -> None:
    await record(
        data,
        session("said", "garden garden garden"),
        [*session("called", "hello", title="Kitchen"), SessionRenamed(title="My garden")],
    )
    async with serving(data) as server:
        answer = await find(server, "garden")
        assert hits(answer) == ["called", "said"]
        first = answer["data"][0]
        assert (first["snippet"], first["title"], first["role"]) == ("My >>>garden<<<", "My garden", None)
        assert hits(await find(server, "kitchen")) == []
        assert hits(await find(server, '"garden my"')) == []


async def test_a_fork_is_a_lineage_of_its_own_and_inherits_no_hit(data: Path) -> None:
    fork = session("f", "own words", forked_from=ForkPoint(session_id="s", root_id="s", turn_id="s-0"))
    await record(data, session("s", "first words"), fork)
    async with serving(data) as server:
        assert hits(await find(server, "first")) == ["s"]
        (hit,) = (await find(server, "own"))["data"]
        assert (hit["session_id"], hit["parent_session_id"]) == ("f", "s")


async def test_nothing_of_a_deleted_session_is_found(data: Path) -> None:
    await record(data, session("s", "secret", title="secret plans"))
    log = await SqliteLog.open(data)
    await log.append(lineage_stream("default", "s"), 3, (SessionDeleted(),))
    await log.close()
    async with serving(data) as server:
        assert hits(await find(server, "secret")) == []


async def test_pages_are_whole_and_stable(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "BLOCK_TURNS", 4)
    await record(data, *(session(f"s{n:02}", *["word " * (1 + (n * t) % 3) for t in range(3)]) for n in range(30)))
    async with serving(data) as server:
        paged: list[str] = []
        while True:
            answer = await find(server, "word", limit=7, offset=len(paged))
            assert (answer["limit"], answer["offset"]) == (7, len(paged))
            paged += hits(answer)
            if not answer["has_more"]:
                break
        assert sorted(paged) == [f"s{n:02}" for n in range(30)]
        assert paged == hits(await find(server, "word", limit=100))
        assert len(hits(await find(server, "word"))) == 20
        assert (await find(server, "word", limit=10_000))["limit"] == 100


@pytest.mark.parametrize(
    ("q", "parameters", "param"),
    [
        ("", {}, "q"),
        ("  \t ", {}, "q"),
        ("x" * 501, {}, "q"),
        ("x", {"limit": "many"}, "limit"),
        ("x", {"limit": "-1"}, "limit"),
        ("x", {"offset": "1.5"}, "offset"),
    ],
)
async def test_a_malformed_search_is_refused_by_the_name_of_what_is_wrong(
    server: Server, q: str, parameters: dict[str, str], param: str
) -> None:
    error = (await find(server, q, 400, **parameters))["error"]
    assert error["param"] == param
    assert error["type"] == "invalid_request_error"


async def test_a_search_without_anything_to_search_for_is_refused(server: Server) -> None:
    assert (await server.get("/api/sessions/search", 400))["error"]["param"] == "q"


async def test_whatever_is_typed_is_answered(server: Server) -> None:
    for text in NASTY:
        await server.chat(f"said {text}", "s1")
    for q in NASTY:
        await find(server, q)


async def test_lone_surrogates_and_broken_utf_8_are_only_unknown_words(server: Server) -> None:
    await server.chat("hello", "s1")
    for q in ("%FF", "%ED%A0%80", "%00", "hello%FF"):
        async with server.http.get(f"/api/sessions/search?q={q}") as response:
            assert response.status == 200


class Tenants:
    """A server for two tenants."""

    def __init__(self, server: Server, secrets: dict[str, str]) -> None:
        self._server = server
        self._secrets = secrets

    async def find(self, tenant: str, q: str) -> list[str]:
        headers = {"authorization": f"Bearer {self._secrets[tenant]}"}
        async with self._server.http.get("/api/sessions/search", params={"q": q}, headers=headers) as response:
            return hits(await response.json())


@pytest_asyncio.fixture
async def tenants(data: Path) -> AsyncIterator[Tenants]:
    """Both have a session s1; acme said "treasure" there, bravo "nothing"; bravo has a title too."""
    data.mkdir()
    secrets = {name: keys.add(data, name, name) for name in ("acme", "bravo")}
    await record(data, session("s1", "treasure everywhere"), tenant="acme")
    await record(data, session("s1", "nothing everywhere"), session("b", "x", title="Treasure"), tenant="bravo")
    async with serving(data, api_key="") as server:
        yield Tenants(server, secrets)


async def test_nobody_finds_what_is_anothers(tenants: Tenants) -> None:
    assert await tenants.find("acme", "treasure") == ["s1"]
    assert await tenants.find("bravo", "treasure") == ["b"]
    assert await tenants.find("acme", "everywhere") == await tenants.find("bravo", "everywhere") == ["s1"]
    assert await tenants.find("acme", "b") == []
    assert await tenants.find("bravo", f"{tenant_mark('acme')} treasure") == []


@pytest.fixture(scope="module")
def words() -> Words:
    return Words()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One two", [Term(("one",)), Term(("two",))]),
        ('"One two" three', [Term(("one", "two")), Term(("three",))]),
        ("well-known*", [Term(("well", "known"), is_prefix=True)]),
        ('"one two"* x*', [Term(("one", "two"), is_prefix=True), Term(("x",))]),
        ("日*", [Term(("日",), is_prefix=True)]),
        ('a" b', [Term(("a",)), Term(("b",))]),
        ('"" * - "?"', []),
    ],
)
def test_what_is_typed_is_read_as_words_phrases_and_beginnings(words: Words, text: str, expected: list[Term]) -> None:
    assert terms(text, words.of) == expected


@given(st.one_of(st.text(), st.text(alphabet='ab "*-():^éñ日\x00\ue000'), st.sampled_from(NASTY)))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_query_that_finds_itself(words: Words, text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    asked = terms(text, words.of)
    if not asked:
        return
    assert [number for number, *_ in ranked([(text, "")], for_texts(asked))] == [0]
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute(f"CREATE VIRTUAL TABLE f USING fts5(said, detail=none, tokenize='{TOKENIZER}')")
        database.execute("INSERT INTO f VALUES (?)", (f"{tenant_mark('t')} {text.replace(MARK, ' ')}",))
        query = for_index(asked, tenant_mark("t"))
        assert database.execute("SELECT count(*) FROM f WHERE f MATCH ?", (query,)).fetchone() == (1,)


@given(st.lists(st.sampled_from(["red", "Rëd", "blue", "🎈", "\n", "  ", "x-red", "\ue000"]), max_size=12))
def test_matches_tell_where_the_words_stand(parts: list[str]) -> None:
    text = " ".join(parts)
    found = matches([text, "blue"], '"red" OR "nothing"')
    expected = [index for index in range(len(text)) if text[index : index + 3].lower() in ("red", "rëd")]
    assert [first for _, stretches in found for first, _ in stretches] == expected
    assert {word for _, stretches in found for _, word in stretches} <= {"red"}
