"""Search hits on the wire, in the rows that clients of the older system know, and some fields more."""

from typing import Literal

import msgspec

from api.problem import Problem
from api.turns.search import Hit
from api.wire.query import Parameter, Whole

LIMIT_DEFAULT = 20
LIMIT_MAX = 100
OFFSET_MAX = 1_000
TEXT_CHARACTERS_MAX = 500

LIMIT = Whole("limit", LIMIT_DEFAULT, LIMIT_MAX, "How many hits a page has at most; 100 and no more.")
OFFSET = Whole("offset", 0, OFFSET_MAX, "How many hits come before the page.")
WORDS = Parameter(
    "q",
    'What to search for: words, `"phrases"`, `prefix*`.',
    {"type": "string", "minLength": 1, "maxLength": TEXT_CHARACTERS_MAX},
    is_required=True,
)


class SearchHit(msgspec.Struct, kw_only=True):
    """One lineage. `session_id` is its newest session's; in `snippet` the matches stand between `>>>` and `<<<`.

    Times are seconds since 1970, UTC. Role, turn, model and timestamp are null where a title or an id was found.
    """

    session_id: str
    lineage_root_id: str = msgspec.field(name="_lineage_root_id")
    lineage_root: str
    parent_session_id: str | None
    title: str | None
    snippet: str
    role: str | None
    turn_id: str | None
    timestamp: float | None
    model: str | None
    source: str
    session_started: float


class SearchResults(msgspec.Struct, kw_only=True):
    """A page of hits, best first. `results` is the older name of `data`."""

    object: Literal["list"] = "list"
    data: list[SearchHit]
    results: list[SearchHit]
    limit: int
    offset: int
    has_more: bool


def text_asked(text: str) -> str:
    """What is searched for; raises `Problem` where there is nothing, or too much of it."""
    if not text.strip():
        raise Problem(
            "Missing required parameter: 'q', what to search for.", param="q", code="missing_required_parameter"
        )
    if len(text) > TEXT_CHARACTERS_MAX:
        raise Problem(f"q must be at most {TEXT_CHARACTERS_MAX} characters.", param="q", code="invalid_value")
    return text.encode("utf-8", "replace").decode()


def search_results(hits: list[Hit], limit: int, offset: int) -> SearchResults:
    """A page; `hits` may hold one more than `limit`, which tells that there are more."""
    entries = [_entry(hit) for hit in hits[:limit]]
    return SearchResults(data=entries, results=entries, limit=limit, offset=offset, has_more=len(hits) > limit)


def _entry(hit: Hit) -> SearchHit:
    lineage = hit.lineage
    return SearchHit(
        session_id=lineage.tip_id,
        lineage_root_id=lineage.root_id,
        lineage_root=lineage.root_id,
        parent_session_id=lineage.parent_id,
        title=lineage.title or None,
        snippet=hit.snippet or f"Session ID: {lineage.tip_id}",
        role=hit.role or None,
        turn_id=hit.turn_id or None,
        timestamp=hit.said_us / 1e6 if hit.said_us else None,
        model=hit.model or None,
        source=lineage.source or "api_server",
        session_started=lineage.started_us / 1e6,
    )
