"""From two databases to facts in the order in which they happened, and the account of it."""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from eventstore.events import ForkPoint, TurnCompleted
from tools.hermes.answers import assign
from tools.hermes.chains import chains, is_continuation
from tools.hermes.facts import Dated, Writing, facts_of
from tools.hermes.lineage import Lineage, inherit, lineage_of
from tools.hermes.rows import Notes, Original, Session


class Account(msgspec.Struct):
    """What is imported, counted, and what could not be understood. `rows` are the messages that the state holds."""

    sessions: int = 0
    lineages: int = 0
    forks: int = 0
    messages: int = 0
    rows: int = 0
    copies: int = 0
    left_out: int = 0
    responses: int = 0
    conversations: int = 0
    not_understood: list[str] = []

    def __str__(self) -> str:
        forks = f" ({many(self.forks, 'fork')})" if self.forks else ""
        return (
            f"{many(self.sessions, 'session')} in {many(self.lineages, 'lineage')}{forks}, "
            f"{many(self.messages, 'message')}, {many(self.responses, 'response')}, "
            f"{many(self.conversations, 'conversation')}"
        )


class Moved(NamedTuple):
    """Everything that is to be recorded, oldest first, the lineages that it makes, and the account of it."""

    facts: list[Dated]
    lineages: list[Lineage]
    slugs: dict[str, list[str]]
    account: Account


def moved(original: Original, tenant: str, notes: Notes) -> Moved:
    """The facts of everything that the original holds, for `tenant`."""
    lineages = _lineages(original, notes)
    taken = {*original.sessions, *(g.session_id for lineage in lineages for g in lineage.generations)}
    lineages += assign(original, lineages, taken, notes)
    slugs, account = _slugs(original, notes), Account()
    written: dict[str, Writing] = {}
    for lineage in lineages:
        written[lineage.root_id] = facts_of(lineage, tenant, slugs, _forked(lineage, written))
        _count(account, lineage)
    account.rows = sum(map(len, original.messages.values()))
    account.copies = sum(map(_copies, lineages))
    account.left_out = account.rows - account.copies - _rows(lineages, original)
    account.responses = len(original.responses)
    account.conversations = sum(map(len, slugs.values()))
    account.not_understood = notes.said
    dated = ((fact.at_us, order, fact) for order, w in enumerate(written.values()) for fact in w.facts)
    # Lineages are in the order in which they need one another, and no fact of one is earlier than the one before it.
    facts = [fact for _, _, fact in sorted(dated, key=lambda entry: entry[:2])]
    return Moved(facts, lineages, slugs, account)


def _lineages(original: Original, notes: Notes) -> list[Lineage]:
    """All lineages of sessions, a fork behind what it is a fork of."""
    taken = set(original.sessions)
    found = {chain[0].session_id: lineage_of(chain, original, taken, notes) for chain in chains(original, notes)}
    by_session = {g.session.session_id: lineage for lineage in found.values() for g in lineage.generations}
    ordered: dict[str, Lineage] = {}
    for lineage in found.values():
        for each in reversed(list(_ancestry(lineage, original, by_session))):
            if each.root_id not in ordered:
                _inherit(each, original, by_session, ordered, notes)
                ordered[each.root_id] = each
    return list(ordered.values())


def _ancestry(lineage: Lineage, original: Original, by_session: dict[str, Lineage]) -> Iterator[Lineage]:
    """The lineage, that which it may be a fork of, and so on."""
    seen: set[str] = set()
    while lineage.root_id not in seen:
        seen.add(lineage.root_id)
        yield lineage
        root = lineage.generations[0].session
        if not _may_inherit(root, original):
            return
        lineage = by_session[root.parent_id]


def _may_inherit(session: Session, original: Original) -> bool:
    """Whether it may begin with a copy of its parent: a branch, and neither a subagent nor what compression made."""
    parent = original.sessions.get(session.parent_id)
    if parent is None or session.delegated_from or session.source == "tool":
        return False
    return not is_continuation(session, parent)


def _inherit(
    lineage: Lineage, original: Original, by_session: dict[str, Lineage], done: dict[str, Lineage], notes: Notes
) -> None:
    session = lineage.generations[0].session
    if _may_inherit(session, original):
        parent = by_session[session.parent_id]
        if parent.root_id in done:
            inherit(lineage, parent, session, notes)


def _forked(lineage: Lineage, written: dict[str, Writing]) -> tuple[ForkPoint, int, bytes] | None:
    """Where the lineage left its parent, when the turn had ended behind which it did, and the digest of that."""
    if lineage.parent is None or lineage.fork_exchange is None:
        return None
    parent = written[lineage.parent.root_id]
    turn_id = parent.last_id(lineage.fork_exchange)
    point = ForkPoint(
        session_id=lineage.parent_session_id,
        root_id=lineage.parent.root_id,
        turn_id=turn_id,
        messages=lineage.inherited_messages,
    )
    for fact in parent.facts:
        if isinstance(fact.event, TurnCompleted) and fact.event.turn_id == turn_id:
            return point, fact.at_us, fact.event.history_digest
    return None


def _slugs(original: Original, notes: Notes) -> dict[str, list[str]]:
    """The names that lead to each response."""
    found: dict[str, list[str]] = {}
    for name, response_id in original.slugs.items():
        turn_id = response_id.removeprefix("resp_")
        if not name or turn_id not in original.responses:
            notes.note(f"conversation {name!r} leads to {response_id!r}, which is not there: left out")
            continue
        found.setdefault(turn_id, []).append(name)
    return found


def _count(account: Account, lineage: Lineage) -> None:
    account.lineages += 1
    account.sessions += len({g.session.session_id for g in lineage.generations})
    account.forks += lineage.parent is not None
    account.messages += sum(len(e.rows) + len(e.instructions) for e in lineage.exchanges)


def _copies(lineage: Lineage) -> int:
    """How many rows were copies or summaries that the original had made of others."""
    copies = [g.copies for g in lineage.generations if g.copies and g.rows]
    made = sum(c.head + c.tail + int(not (c.is_merged and c.tail)) for c in copies if c.summary)
    plain = sum(len(g.rows) - len(g.copies.own) for g in lineage.generations if g.copies and not g.copies.summary)
    return made + plain + lineage.inherited_rows


def _rows(lineages: list[Lineage], original: Original) -> int:
    """How many rows of the state were taken up as messages."""
    of_sessions = (g for lineage in lineages for g in lineage.generations if g.session.session_id in original.sessions)
    taken = (row for g in of_sessions for e in g.exchanges for row in (*e.rows, *e.instructions))
    return sum(row.row_id > 0 for row in taken)


def many(count: int, one: str, many: str = "") -> str:
    """A count and what is counted."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
