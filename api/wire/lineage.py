"""A lineage on the wire: its sessions, how each followed from the one before, and what was forked from it."""

from typing import Literal

import msgspec

from api.turns.reader import Lineage
from api.turns.summary import without_heading
from eventstore.events import CompressionRotated, ForkPoint, Trigger
from projections.sessions import SessionRow


class Summary(msgspec.Struct):
    """What stands for the part of the transcript that a rotation left out. Tokens are estimates of whole prompts."""

    text: str
    summariser: str
    trigger: Trigger
    tokens_before: int
    tokens_after: int


class GenerationEntry(msgspec.Struct, kw_only=True):
    """One session of the lineage. `summary` is what it began with; the first began with none."""

    id: str
    parent_session_id: str | None
    title: str | None
    started_at: float
    ended_at: float | None
    end_reason: str | None
    summary: Summary | None


class ForkedFrom(msgspec.Struct):
    """The session that the lineage was forked from, and the turn it goes on behind; none where that had no turns."""

    session_id: str
    turn_id: str | None


class LineageObject(msgspec.Struct, kw_only=True):
    """A lineage, oldest session first; `forks` are the first sessions of the lineages that were forked from it."""

    object: Literal["hermes.session.lineage"] = "hermes.session.lineage"
    root_id: str
    tip_id: str
    generations: list[GenerationEntry]
    forked_from: ForkedFrom | None
    forks: list[str]


def lineage_object(lineage: Lineage) -> LineageObject:
    """The lineage as a client sees it."""
    session, rows, forks = lineage
    rotations = {past.rotated.session_id: past.rotated for past in session.past if past.rotated}
    fork = session.started.forked_from if session.started else None
    return LineageObject(
        root_id=session.root_id,
        tip_id=session.session_id,
        generations=[_generation(row, rotations.get(row.session_id)) for row in rows],
        forked_from=_forked_from(fork) if fork else None,
        forks=forks,
    )


def _generation(row: SessionRow, rotated: CompressionRotated | None) -> GenerationEntry:
    return GenerationEntry(
        id=row.session_id,
        parent_session_id=row.parent_session_id,
        title=row.title or None,
        started_at=row.started_us / 1e6,
        ended_at=None if row.ended_us is None else row.ended_us / 1e6,
        end_reason=row.end_reason or None,
        summary=_summary(rotated) if rotated else None,
    )


def _summary(rotated: CompressionRotated) -> Summary:
    text = without_heading(rotated.summary)
    return Summary(text, rotated.summariser, rotated.trigger, rotated.tokens_before, rotated.tokens_after)


def _forked_from(fork: ForkPoint) -> ForkedFrom:
    return ForkedFrom(fork.session_id, fork.turn_id or None)
