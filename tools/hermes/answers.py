"""Which exchange each stored response is the answer of; and lineages for those whose session is gone.

The original stores a response with the whole history, and neither says which rows of its session they are: they are
found by what was asked and answered, and where that was said twice, by the time.
"""

from collections.abc import Iterable, Sequence

import msgspec

from tools.hermes.groups import Exchange, Step, exchanges
from tools.hermes.lineage import Generation, Lineage
from tools.hermes.rows import Message, Notes, Original, Response, Session

_encode = msgspec.json.Encoder().encode


def assign(original: Original, lineages: Sequence[Lineage], taken: set[str], notes: Notes) -> list[Lineage]:
    """Give each response its exchange; the lineages made for those that have none in `lineages`."""
    by_session = {g.session.session_id: lineage for lineage in lineages for g in lineage.generations}
    left: dict[str, list[Response]] = {}
    for response in sorted(original.responses.values(), key=lambda r: (r.created_us, r.turn_id)):
        lineage = by_session.get(response.session_id)
        if not (lineage and _assign(response, lineage.exchanges)):
            left.setdefault(response.session_id, []).append(response)
    made: list[Lineage] = []
    for session_id, responses in left.items():
        made += _lineages(session_id, responses, taken, notes)
    return made


def _assign(response: Response, candidates: Iterable[Exchange]) -> bool:
    """Make it the response of the exchange that is most like it; False where none is."""
    free = [exchange for exchange in candidates if exchange.response is None and exchange.rows]
    best = max(free, key=lambda exchange: _likeness(response, exchange), default=None)
    if best is None or _likeness(response, best)[0] == 0:
        return False
    best.response = response
    if not best.is_answered and not best.is_taken_back and response.answer and not best.steps[0].output:
        answered(best, response)
    return True


def _likeness(response: Response, exchange: Exchange) -> tuple[int, int]:
    alike = bool(response.asked) and response.asked.strip() == exchange.asked.strip()
    same = bool(response.answer) and response.answer.strip() == exchange.answer.strip()
    distance_us = abs(exchange.rows[-1].at_us - response.created_us)
    return 2 * int(same) + int(alike), -distance_us


def answered(exchange: Exchange, response: Response) -> None:
    """The answer that the session has lost, and its response has not."""
    row = exchange.rows[-1]
    chat = _encode({"role": "assistant", "content": response.answer})
    said = msgspec.structs.replace(row, role="assistant", chat=chat, text=response.answer, mark=(), row_id=-row.row_id)
    exchange.steps = [Step(exchange.steps[0].items, [said])]
    exchange.is_answered = True


def _lineages(session_id: str, responses: Sequence[Response], taken: set[str], notes: Notes) -> list[Lineage]:
    """One lineage of the newest response's history, with all whose exchanges are in it; then one of the next left."""
    made: list[Lineage] = []
    left = list(responses)
    while left:
        newest = left[-1]
        id_ = session_id if session_id and session_id not in taken else f"ses_{newest.turn_id}"
        taken.add(id_)
        lineage = _from_history(id_, newest, left[0].created_us, notes)
        if not _assign(newest, reversed(lineage.exchanges)):
            lineage.generations[0].exchanges.append(_alone(newest))
        left = [response for response in left[:-1] if not _assign(response, lineage.exchanges)]
        made.append(lineage)
    return made


def _from_history(session_id: str, response: Response, started_us: int, notes: Notes) -> Lineage:
    rows = [
        msgspec.structs.replace(row, row_id=number, session_id=session_id)
        for number, row in enumerate(response.history, 1)
    ]
    session = Session(session_id=session_id, source="api_server", model=response.model, started_us=started_us)
    generation = Generation(session, session_id, rows, rows)
    generation.exchanges = _once(exchanges(rows, notes), response, notes)
    return Lineage([generation])


def _alone(response: Response) -> Exchange:
    """A response of which nothing but its answer is known."""
    row = Message(row_id=0, session_id="", role="user", at_us=response.created_us, chat=b"", mark=())
    exchange = Exchange([Step([row], [])], is_answered=False, response=response)
    if response.answer:
        answered(exchange, response)
    exchange.steps[0].items = []
    return exchange


def _once(found: list[Exchange], response: Response, notes: Notes) -> list[Exchange]:
    """A history that the original has doubled, with each exchange once. It leaves questions without answers between."""
    if all(exchange.is_answered for exchange in found[:-1]):
        return found
    kept: dict[tuple[tuple[str, ...], ...], Exchange] = {}
    for exchange in found:
        said = tuple(row.mark for row in exchange.rows if row.role != "user")
        if exchange.is_answered:
            kept.setdefault(said, exchange)
    once = list(kept.values())
    asked = {exchange.asked for exchange in once}
    once += [e for e in found if not e.is_answered and e.asked not in asked]
    once.sort(key=lambda exchange: exchange.rows[0].row_id)
    if len(once) < len(found):
        notes.note(
            f"response 'resp_{response.turn_id}': hermes had stored its history more than once over: "
            f"{len(found) - len(once)} repeated exchanges are left out"
        )
    return once
