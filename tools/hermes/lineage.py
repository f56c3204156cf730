"""A lineage as it is to be recorded: its generations, what was said in each, and what each keeps of the one before.

Rows are copied by the original wherever it compresses or branches. Here every message is said once: copies are counted
as what a rotation keeps, or a fork inherits. A turn that was under way as its session was compressed belongs to the
child, as turnlog never rotates inside a turn.
"""

from collections.abc import Iterable, Sequence

import msgspec

from tools.hermes.copies import Copies, common, copied, rounds
from tools.hermes.groups import Exchange, exchanges
from tools.hermes.rows import Message, Notes, Original, Session


class Generation(msgspec.Struct):
    """One session of the lineage: `rows` is its transcript as the original had it, copies included.

    `counts` says of each of these rows how many messages it is in the transcript that turnlog folds. The rotation that
    began it kept `head` and `tail` messages.
    """

    session: Session
    session_id: str
    rows: list[Message]
    own: list[Message]
    copies: Copies | None = None
    counts: dict[int, int] = {}
    head: int = 0
    tail: int = 0
    first_kept: Exchange | None = None
    begins_with_note: bool = False
    base_messages: int = 0
    exchanges: list[Exchange] = []
    carried: Exchange | None = None


class Lineage(msgspec.Struct):
    """Everything of one lineage. A fork inherits from `parent` up to and with `fork_exchange`."""

    generations: list[Generation]
    parent: "Lineage | None" = None
    parent_session_id: str = ""
    fork_exchange: Exchange | None = None
    inherited_messages: int = 0
    inherited_rows: int = 0

    @property
    def root_id(self) -> str:
        """The id of its first session."""
        return self.generations[0].session_id

    @property
    def exchanges(self) -> list[Exchange]:
        """All of its exchanges, oldest first."""
        return [exchange for generation in self.generations for exchange in generation.exchanges]


def lineage_of(chain: Sequence[Session], original: Original, taken: set[str], notes: Notes) -> Lineage:
    """The lineage of sessions that follow one another, by itself: nothing of it is inherited."""
    generations: list[Generation] = []
    for session in chain:
        has_base = bool(generations or session.branched_from)
        found = rounds(original.messages.get(session.session_id, []), has_base=has_base)
        for number, rows in enumerate(found):
            id_ = free_id(session.session_id, number, taken)
            generations.append(Generation(session, id_, rows, []))
    _share_out(generations)
    _settle(generations, notes)
    return Lineage(generations)


def free_id(session_id: str, number: int, taken: set[str]) -> str:
    """The id of what a session became when it was compacted in place: the original kept one id for all of it."""
    id_ = f"{session_id}-c{number}" if number else session_id
    while number and id_ in taken:
        id_ += "x"
    taken.add(id_)
    return id_


def inherit(lineage: Lineage, parent: Lineage, session: Session, notes: Notes) -> bool:
    """Have a branch inherit what it had copied of its parent; False where that is no whole turn."""
    generation, first = _generation_of(parent, session.parent_id), lineage.generations[0]
    copies = common(generation.rows, first.rows)
    end, exchange = _last_answered(generation, copies)
    if exchange is None:
        return False
    lineage.parent, lineage.parent_session_id, lineage.fork_exchange = parent, generation.session_id, exchange
    counts = [generation.counts.get(row.row_id, 0) for row in generation.rows[:end]]
    lineage.inherited_messages, lineage.inherited_rows = sum(counts), end
    first.base_messages = lineage.inherited_messages
    first.counts = {row.row_id: count for row, count in zip(first.rows, counts, strict=False)}
    inherited = {row.row_id for row in first.rows[:end]}
    first.own = [row for row in first.own if row.row_id not in inherited]
    _settle(lineage.generations, notes)
    return True


def _generation_of(lineage: Lineage, session_id: str) -> Generation:
    """The newest of those that a session of the original became."""
    return [g for g in lineage.generations if g.session.session_id == session_id][-1]


def _last_answered(generation: Generation, rows: int) -> tuple[int, Exchange | None]:
    """The last exchange that is whole within the first `rows` of the transcript, and how many rows reach to its end."""
    places = {row.row_id: place for place, row in enumerate(generation.rows, 1)}
    found: tuple[int, Exchange | None] = (0, None)
    for exchange in generation.exchanges:
        end = max((places.get(row.row_id, 0) for row in exchange.rows), default=0)
        if exchange.is_answered and found[0] < end <= rows:
            found = (end, exchange)
    return found


def _share_out(generations: Sequence[Generation]) -> None:
    """What of each transcript is copied, and what was said in it.

    Rows that were written into a session when it had been compressed already are of the generation that was at work.
    """
    late: list[Message] = []
    before: list[Message] = []
    for generation, following in zip(generations, [*generations[1:], None], strict=True):
        live = [row for row in generation.rows if row.is_active or row.is_compacted]
        gone = [row for row in generation.rows if not (row.is_active or row.is_compacted)]
        end = following.rows[0].row_id if following and following.rows else None
        later = [row for row in live if end is not None and row.row_id >= end]
        generation.rows = live[: len(live) - len(later)]
        own = generation.rows
        if generation is not generations[0]:
            generation.copies = copied(before, generation.rows)
            own = generation.copies.own
        here = [row for row in late if end is None or row.row_id < end]
        late = late[len(here) :] + later
        generation.own = [*own, *here, *gone]
        before = generation.rows
    generations[-1].own += late


def _settle(generations: Sequence[Generation], notes: Notes) -> None:
    """Make turns of what was said in each generation, and count what the rotations between them keep."""
    carried: Exchange | None = None
    for number, generation in enumerate(generations):
        if number:
            _keep(generation, generations[number - 1])
        generation.exchanges = _exchanges(generation, carried, notes)
        following = generations[number + 1] if number + 1 < len(generations) else None
        carried = _carried(generation, following)
        if carried:
            generation.exchanges.remove(carried)
        generation.carried = carried
        spoken = {row.row_id for e in generation.exchanges if e.is_answered for row in e.rows}
        generation.counts |= dict.fromkeys(spoken, 1)
        if number and (copies := generation.copies):
            generation.counts |= {
                copy.row_id: 1
                for old, copy in copies.pairs(generations[number - 1].rows, generation.rows)
                if old.row_id in spoken
            }


def _exchanges(generation: Generation, carried: Exchange | None, notes: Notes) -> list[Exchange]:
    """Those of a generation: first what it has taken over unfinished, then by when each session's were written."""
    taken_over = carried.rows if carried else []
    found: list[Exchange] = []
    for session_id in {generation.session.session_id, *(row.session_id for row in generation.own)}:
        rows = [row for row in generation.own if row.session_id == session_id]
        if session_id == generation.session.session_id:
            rows += taken_over
        found += exchanges(sorted(rows, key=lambda row: row.row_id), notes)
    return sorted(found, key=lambda exchange: min(row.row_id for row in exchange.rows))


def _carried(generation: Generation, following: Generation | None) -> Exchange | None:
    """The exchange that was under way as the generation ended."""
    if following is None or following.copies is None or not generation.exchanges:
        return None
    last = generation.exchanges[-1]
    if last.is_answered or last.is_taken_back or not generation.rows:
        return None
    is_at_end = generation.rows[-1].row_id in {row.row_id for row in last.rows}
    own = following.copies.own
    goes_on = following.copies.tail > 0 or bool(own and own[0].role in ("assistant", "tool"))
    return last if is_at_end and goes_on else None


def _keep(generation: Generation, earlier: Generation) -> None:
    """Count the messages that the rotation keeps: of what turnlog folds, without what was still under way."""
    copies, before = generation.copies, earlier.rows
    if copies is None:
        return
    counts = earlier.counts
    head, kept = _sum(counts, before[: copies.head]), before[len(before) - copies.kept_tail :]
    generation.head = head + int(earlier.begins_with_note and head > 0)
    generation.tail = _sum(counts, kept)
    if copies.summary is None:
        # Nothing was left out. A rotation has a summary, and what stands for it here is in no row: it comes first.
        said = sum(len(exchange.rows) for exchange in earlier.exchanges if exchange.is_answered)
        generation.head, generation.tail = 0, earlier.base_messages + said
        generation.begins_with_note = True
    generation.base_messages = generation.head + 1 + generation.tail
    generation.first_kept = _exchange_of(earlier, kept)
    for old, copy in copies.pairs(before, generation.rows):
        generation.counts[copy.row_id] = counts.get(old.row_id, 0)
    if copies.summary:
        extra = _sum(counts, kept[: len(kept) - copies.tail])
        merged = counts.get(before[len(before) - copies.tail].row_id, 0) if copies.is_merged and copies.tail else 0
        generation.counts[copies.summary.row_id] = 1 + extra + merged


def _sum(counts: dict[int, int], rows: Iterable[Message]) -> int:
    return sum(counts.get(row.row_id, 0) for row in rows)


def _exchange_of(generation: Generation, rows: Sequence[Message]) -> Exchange | None:
    """The exchange that the first of the rows which count was said in."""
    first = next((row.row_id for row in rows if generation.counts.get(row.row_id)), None)
    return next((e for e in generation.exchanges if any(row.row_id == first for row in e.rows)), None)
