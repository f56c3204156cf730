"""A lineage as facts, each with the time at which it happened: pure."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from api.turns.history import Scope, beginning, extended
from api.turns.summary import HEADING
from eventstore.events import (
    CompressionRotated,
    ConversationAdvanced,
    ConversationCreated,
    Event,
    ForkPoint,
    Identity,
    SessionAnnotated,
    SessionEnded,
    SessionStarted,
    TurnCancelled,
    TurnCompleted,
    TurnStarted,
    conversation_stream,
    lineage_stream,
)
from projections.messages import fields
from tools.hermes.copies import summary_text
from tools.hermes.groups import Exchange, Step
from tools.hermes.lineage import Generation, Lineage
from tools.hermes.rows import Message, Session

OWNER = "import"
SUMMARISER = "hermes-agent"
MODEL = "hermes-agent"  # what the original's server calls itself
NOTHING_LEFT_OUT = "The conversation goes on in another session; nothing of it was left out."
DERIVED_ID = re.compile("api-[0-9a-f]{16}")  # made of a client's first words, where it names no session

_encode = msgspec.json.Encoder().encode


class Dated(NamedTuple):
    """A fact, and when it happened, microseconds UTC."""

    at_us: int
    stream: str
    event: Event


class Writing:
    """The facts of one lineage as they are written down: none is earlier than the one before it."""

    def __init__(self, tenant: str, lineage: Lineage, began_us: int) -> None:
        self.tenant = tenant
        self.lineage = lineage
        self.stream = lineage_stream(tenant, lineage.root_id)
        self.now_us = began_us
        self.facts: list[Dated] = []
        self.digest = b""
        self.title = ""

    def add(self, at_us: int, event: Event, stream: str = "") -> None:
        """Write down what happened, at a time that may be unknown (0)."""
        self.now_us = max(self.now_us, at_us)
        self.facts.append(Dated(self.now_us, stream or self.stream, event))

    def id_of(self, exchange: Exchange, step: int) -> str:
        """A turn's id: the response's own for its last step, else one that sorts by time and is always the same."""
        if exchange.response and step == len(exchange.steps) - 1:
            return exchange.response.turn_id
        rows = exchange.rows
        row, at_us = rows[0], next((row.at_us for row in exchange.steps[step].items if row.at_us), rows[0].at_us)
        what = f"{self.stream}\0{row.session_id}\0{row.row_id}\0{step}"
        return f"{at_us // 1_000:012x}{hashlib.sha256(what.encode()).hexdigest()[:16]}"

    def last_id(self, exchange: Exchange) -> str:
        """The id of the turn that has the exchange's answer."""
        return self.id_of(exchange, len(exchange.steps) - 1)


def facts_of(
    lineage: Lineage, tenant: str, slugs: dict[str, list[str]], forked: tuple[ForkPoint, int, bytes] | None = None
) -> Writing:
    """The lineage's facts. `slugs` are the names that lead to each turn; `forked` is where it left its parent, when
    that turn had ended, and the digest of what had been said by then.
    """
    first = lineage.generations[0]
    at_us = first.session.started_us or next((r.at_us for e in lineage.exchanges for r in e.rows), 0)
    writing = Writing(tenant, lineage, max(at_us, forked[1] if forked else 0))
    identity = _identity(first.session)
    writing.digest = forked[2] if forked else beginning(Scope(identity.user_id, first.session.session_key))
    _begin(writing, identity, forked[0] if forked else None)
    for exchange in lineage.exchanges:
        if exchange.response:
            for name in slugs.get(exchange.response.turn_id, ()):
                created = ConversationCreated(name=name, session_id=lineage.root_id)
                writing.add(0, created, conversation_stream(tenant, name))
    for number, generation in enumerate(lineage.generations):
        if number:
            _rotate(writing, lineage.generations[number - 1], generation)
        for exchange in generation.exchanges:
            _exchange(writing, exchange, generation, slugs)
    _end(writing, lineage.generations[-1].session)
    return writing


def _begin(writing: Writing, identity: Identity, forked_from: ForkPoint | None) -> None:
    first, tip = writing.lineage.generations[0], writing.lineage.generations[-1].session
    session = first.session
    writing.title = session.title
    started = SessionStarted(
        session_id=first.session_id,
        forked_from=forked_from,
        session_key=session.session_key,
        identity=identity,
        source=session.source,
        title=session.title,
        model=tip.model or session.model,
        system_prompt=_system_prompt(session, tip),
    )
    writing.add(0, started)
    writing.add(0, SessionAnnotated(metadata=_encode(_metadata(writing.lineage))))


def _system_prompt(session: Session, tip: Session) -> str:
    """What the next turn would be told; nothing in a session of clients that name none, and bring all with them."""
    return "" if DERIVED_ID.fullmatch(session.session_id) else tip.system_prompt or session.system_prompt


def _identity(session: Session) -> Identity:
    return Identity(
        user_id=session.user_id,
        chat_id=session.chat_id,
        chat_name=session.display_name,
        chat_type=session.chat_type,
        thread_id=session.thread_id,
    )


def _metadata(lineage: Lineage) -> dict[str, str]:
    """What turnlog has no place for: whose child a session was that inherits nothing, and what it has cost."""
    sessions = {g.session.session_id: g.session for g in lineage.generations}
    said: dict[str, str] = {"imported_from": "hermes-agent"}
    root = lineage.generations[0].session
    if root.parent_id and not lineage.parent:
        said["hermes_parent_session_id"] = root.parent_id
    if any(session.is_archived for session in sessions.values()):
        said["hermes_archived"] = "true"
    for name in ("input_tokens", "output_tokens"):
        if total := sum(getattr(session, name) for session in sessions.values()):
            said[f"hermes_{name}"] = str(total)
    return said


def _rotate(writing: Writing, earlier: Generation, generation: Generation) -> None:
    session, copies = generation.session, generation.copies
    is_in_place = session.session_id == earlier.session.session_id
    writing.title = writing.title if is_in_place else session.title or writing.title
    rotated = CompressionRotated(
        old_session_id=earlier.session_id,
        session_id=generation.session_id,
        summary=_summary(generation, copies.summary if copies else None),
        head=generation.head,
        tail=generation.tail,
        first_kept_turn_id=writing.last_id(generation.first_kept) if generation.first_kept else "",
        trigger="threshold",
        tokens_before=0,
        tokens_after=0,
        summariser=SUMMARISER,
        title=writing.title,
    )
    # The rows of a compaction in place carry the times of what they copy.
    writing.add(0 if is_in_place else session.started_us, rotated)


def _summary(generation: Generation, summary: Message | None) -> bytes:
    if summary is None:
        return _encode({"role": "assistant", "content": f"{HEADING}\n{NOTHING_LEFT_OUT}"})
    role = summary.role
    if generation.copies and generation.copies.is_merged:
        role = "user" if role == "user" and generation.tail else "assistant"
        role = _other_than_tail(generation, role)
    return _encode({"role": role, "content": f"{HEADING}\n{summary_text(summary)}"})


def _other_than_tail(generation: Generation, role: str) -> str:
    """The role of a summary that was written into the tail: what does not stand beside its own kind."""
    copies = generation.copies
    if copies is None or not generation.tail:
        return role
    tail_role = copies.summary.role if copies.summary else role
    has_more = copies.kept_tail > copies.tail  # the message before it is kept too, in the other role
    return tail_role if has_more else ("user" if tail_role == "assistant" else "assistant")


def _exchange(writing: Writing, exchange: Exchange, generation: Generation, slugs: dict[str, list[str]]) -> None:
    response = exchange.response
    told = [row.chat for row in exchange.instructions]
    if response and response.instructions:
        told.append(_encode({"role": "system", "content": response.instructions}))
    for number, step in enumerate(exchange.steps):
        turn_id = writing.id_of(exchange, number)
        is_response = bool(response) and number == len(exchange.steps) - 1
        names = slugs.get(turn_id, []) if is_response else []
        started = TurnStarted(
            turn_id=turn_id,
            api="responses" if is_response else "chat",
            model=(response.model if response else "") or generation.session.model or MODEL,
            items=tuple(_items(step.items, is_response=is_response)),
            instructions=tuple(told),
            owner=OWNER,
            lease_ms=0,
            conversation=names[0] if names else "",
        )
        writing.add(_first_us(step.items), started)
        ended_us = _last_us(step.output) or (response.created_us if response else 0)
        writing.add(ended_us, _ended(writing, exchange, step, turn_id))
        for name in names:
            advanced = ConversationAdvanced(conversation=name, session_id=generation.session_id, turn_id=turn_id)
            writing.add(0, advanced)


def _ended(writing: Writing, exchange: Exchange, step: Step, turn_id: str) -> TurnCompleted | TurnCancelled:
    output = tuple(row.chat for row in step.output)
    if not exchange.is_answered:
        reason = "client" if exchange.is_taken_back else "disconnect" if exchange.response else "crash"
        return TurnCancelled(turn_id=turn_id, reason=reason, output=output)  # type: ignore[arg-type]
    is_last = step is exchange.steps[-1]
    usage = exchange.response.usage if exchange.response and len(exchange.steps) == 1 else b""
    calls = step.output[-1].calls if step.output else ()
    if is_last:
        writing.digest = extended(writing.digest, _seen(exchange))
    return TurnCompleted(
        turn_id=turn_id,
        output=output,
        finish_reason=_finish_reason(step.output, has_calls=bool(calls)),
        usage=usage,
        history_digest=writing.digest if is_last else b"",
    )


def _seen(exchange: Exchange) -> Iterator[bytes]:
    """What a client knows of an exchange, and resends: what was asked, and the last answer; tools were the server's."""
    yield from (row.chat for row in exchange.steps[0].items)
    yield from (row.chat for row in exchange.steps[-1].output[-1:])


def _finish_reason(output: Sequence[Message], *, has_calls: bool) -> str:
    said = output[-1].finish_reason if output else ""
    known = said in ("stop", "length", "content_filter", "tool_calls")
    return "tool_calls" if has_calls else said if known and said != "tool_calls" else "stop"


def _first_us(rows: Iterable[Message]) -> int:
    return next((row.at_us for row in rows if row.at_us), 0)


def _last_us(rows: Sequence[Message]) -> int:
    return _first_us(reversed(rows))


def _end(writing: Writing, tip: Session) -> None:
    if tip.end_reason and tip.ended_us:
        writing.add(tip.ended_us, SessionEnded(reason=tip.end_reason))


def _items(rows: Iterable[Message], *, is_response: bool) -> Iterator[bytes]:
    """A turn's input in its dialect: chat messages, or the items that a Responses client sends."""
    for row in rows:
        yield _encode(_item(fields(row.chat))) if is_response else row.chat


def _item(chat: dict[str, Any]) -> dict[str, Any]:
    content = chat.get("content")
    parts = [_part(part) for part in content if isinstance(part, dict)] if isinstance(content, list) else content
    if chat.get("role") == "tool":
        return {"type": "function_call_output", "call_id": chat.get("tool_call_id"), "output": parts}
    return {"type": "message", "role": chat.get("role"), "content": parts}


def _part(part: dict[str, Any]) -> dict[str, Any]:
    match part:
        case {"type": "text", "text": str(text)}:
            return {"type": "input_text", "text": text}
        case {"type": "image_url", "image_url": {"url": url, **rest}}:
            return {"type": "input_image", "image_url": url} | (
                {"detail": rest["detail"]} if rest.get("detail") else {}
            )
        case {"type": "file", "file": dict(file)}:
            return {"type": "input_file"} | file
    return part
