"""Search over what a tenant's sessions said and over their titles: one hit for a lineage, its best turn.

The index tells the newest turns that hold the words, up to `MATCHES_MAX`; a block of them at a time is read from the
log and ranked there, until the page is full. So a hit in an older block never precedes one in a newer block, pages
are stable, and what a search costs does not grow with the log. A session that the text is the id of comes first, then
titles, then what was said.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import NamedTuple

import msgspec

from api.turns.directory import Directory
from api.turns.query import Term, for_index, for_texts, terms
from api.turns.request import Names
from api.turns.said import Found, Index, turns_at
from eventstore.events import TurnCompleted, lineage_stream
from eventstore.log import EventLog
from projections import passages
from projections.passages import tenant_mark
from projections.shortlist import BEGIN, CUT, END, Words, ranked
from projections.text import said_in, spoken

MATCHES_MAX = 1_000
TITLES_MAX = 200
BLOCK_TURNS = 100
LINEAGE_TURNS_MAX = 5  # of one lineage in question, where they are alike: phrases are only seen in the text
ID_CHARACTERS_MAX = 256


class Lineage(NamedTuple):
    """A lineage, as the search knows it."""

    id: int
    root_id: str
    tip_id: str
    parent_id: str | None
    title: str
    source: str
    started_us: int


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A lineage that was found. `snippet` has the matches marked. Of a title or an id: no turn, and no role."""

    lineage: Lineage
    snippet: str
    role: str = ""
    turn_id: str = ""
    model: str = ""
    said_us: int = 0


class _Match(NamedTuple):
    """A turn that the index knows of: the positions of its end and its start, and its lineage."""

    position: int
    started: int
    lineage: int


class Search:
    """For all tenants; nobody finds what is another's."""

    def __init__(self, log: EventLog, views: Index, directory: Directory) -> None:
        self._log = log
        self._views = views
        self._directory = directory
        self._words = Words()

    def close(self) -> None:
        """Let go of what is held."""
        self._words.close()

    async def hits(self, tenant: str, text: str, first: int, count: int) -> list[Hit]:
        """The hits for `text`, `count` of them from `first` on. Raises `ViewsUnavailable`, `LogError`."""
        asked = terms(text, self._words.of)
        found: dict[int, Hit] = {}
        for hit in [*await self._identified(tenant, text.strip()), *await self._titled(tenant, asked)]:
            found.setdefault(hit.lineage.id, hit)
        if asked and len(found) < first + count:
            async for hit in self._said(tenant, asked):
                found.setdefault(hit.lineage.id, hit)
                if len(found) >= first + count:
                    break
        return list(found.values())[first : first + count]

    async def _identified(self, tenant: str, session_id: str) -> list[Hit]:
        """The lineage that has a session of that id, if any."""
        if len(session_id) > ID_CHARACTERS_MAX:
            return []
        place = await self._directory.find(tenant, Names(session_id=session_id))
        rows = await self._views.search(passages.LINEAGE, (lineage_stream(tenant, place.root_id),)) if place else ()
        lineages = await self._lineages(tenant, [row[0] for row in rows]) if rows else {}
        return [Hit(lineage=lineage, snippet=lineage.title) for lineage in lineages.values()]

    async def _titled(self, tenant: str, asked: Sequence[Term]) -> list[Hit]:
        """The lineages whose titles match, best first, of those that began last."""
        query = for_index(asked, tenant_mark(tenant))
        rows = await self._views.search(passages.FIND_TITLES, (query, TITLES_MAX)) if asked else ()
        if not rows:
            return []
        lineages = list((await self._lineages(tenant, [row[0] for row in rows])).values())
        titles = [(lineage.title, "") for lineage in lineages]
        found = await asyncio.to_thread(ranked, titles, for_texts(asked))
        return [Hit(lineage=lineages[number], snippet=snippet) for number, snippet, _ in found]

    async def _said(self, tenant: str, asked: Sequence[Term]) -> AsyncIterator[Hit]:
        """The lineages in which it was said, block by block, the best of a block first; some more than once."""
        query = for_index(asked, tenant_mark(tenant))
        rows = await self._views.search(passages.FIND, (query, MATCHES_MAX))
        matches = [_Match(*row) for row in rows]
        if all(len(term.words) == 1 for term in asked):
            matches = list(_newest_of_each(matches))
        for begin in range(0, len(matches), BLOCK_TURNS):
            block = matches[begin : begin + BLOCK_TURNS]
            lineages = await self._lineages(tenant, {match.lineage for match in block})
            block = [match for match in block if match.lineage in lineages]
            turns = await turns_at(self._log, ((match.position, match.started) for match in block))
            texts = [_input_and_output(turn) for turn in turns]
            for number, snippet, is_output in await asyncio.to_thread(ranked, texts, for_texts(asked)):
                yield _hit(lineages[block[number].lineage], turns[number], snippet, is_output=is_output)

    async def _lineages(self, tenant: str, ids: Iterable[int]) -> dict[int, Lineage]:
        rows = await self._views.search(passages.LINEAGES, (tenant, msgspec.json.encode(list(ids)).decode()))
        return {row[0]: Lineage(*row) for row in rows}


def _newest_of_each(matches: Iterable[_Match]) -> Iterable[_Match]:
    seen: dict[int, int] = {}
    for match in matches:
        seen[match.lineage] = seen.get(match.lineage, 0) + 1
        if seen[match.lineage] <= LINEAGE_TURNS_MAX:
            yield match


def _input_and_output(turn: Found) -> tuple[str, str]:
    output = turn.ended.output if turn.ended else ()
    messages = turn.messages
    return spoken(messages[: len(messages) - len(output)]), spoken(output)


def _hit(lineage: Lineage, turn: Found, snippet: str, *, is_output: bool) -> Hit:
    model = turn.ended.model if isinstance(turn.ended, TurnCompleted) else ""
    return Hit(
        lineage=lineage,
        snippet=snippet,
        role="assistant" if is_output else _speaker(turn, snippet),
        turn_id=turn.turn_id,
        model=model or turn.started.model,
        said_us=turn.ended_us if is_output else turn.started_us,
    )


def _speaker(turn: Found, snippet: str) -> str:
    """Whose words they are: an input may hold many messages."""
    words = snippet.replace(BEGIN, "").replace(END, "").removeprefix(CUT).removesuffix(CUT)
    for message in turn.messages:
        role, text = said_in(message)
        if words in text:
            return role
    return "user"
