"""What exactly the model was sent for a turn, shown again: made once more of the facts that it was made of.

The lineage is folded up to where the turn began, with what a fork had inherited, what a rotation had kept, and what was
taken out of it only later; what was recalled is read where it was said, as it was then. The same pure functions then
make the same bytes. Nothing that came later counts: neither rotations, nor evictions, nor the settings of today.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from msgspec import structs

from api.ids import made_ms
from api.models import chat, response_body
from api.models.model import CHAT, NOWHERE, RESPONSES, ModelRefused, Prompt
from api.models.router import Dialect
from api.turns.cache import Sessions
from api.turns.directory import COMPLETION, RESPONSE, RUN, Views
from api.turns.memory import passage_of, recollection
from api.turns.prompt import prompt_of
from api.turns.refusals import ContentErased, NothingSent, PromptNotFound
from eventstore.events import (
    Erased,
    Event,
    ItemsAdded,
    Recalled,
    SessionErased,
    SessionStarted,
    TurnCompleted,
    TurnRestarted,
    TurnStarted,
    lineage_stream,
    queue_stream,
)
from eventstore.log import EventLog, Part, Recorded
from eventstore.selection import every, last_until
from projections import responses, runs
from projections.session import Session

LOOKED_MAX = 20_000  # positions behind the moment at which an id was made
PAGE = 100
_STARTS = frozenset({TurnStarted.__name__})
_PREFIXES = (RESPONSE, COMPLETION, RUN)


class Sent(NamedTuple):
    """What a model was sent: the body of a request, and the names of the model and of the dialect in it."""

    turn_id: str
    session_id: str
    position: int
    model: str
    upstream_api: Dialect
    body: bytes


class _Beginning(NamedTuple):
    """A turn's own start, among the events of its stream."""

    turn_id: str
    started: Recorded
    fact: TurnStarted
    events: Sequence[Recorded]


class Prompts:
    """The prompts of all turns in a log. Without views, as in a tool, every turn is looked for in the log itself."""

    def __init__(self, log: EventLog, sessions: Sessions, views: Views | None = None) -> None:
        self._log = log
        self._sessions = sessions
        self._views = views

    async def of(self, tenant: str, turn_id: str) -> Sent:
        """What the model was sent for the turn of that id, or for the response, the chat completion or the run.

        Where a run was started again, that is what it was sent then. Raises `PromptNotFound`, `NothingSent`,
        `ContentErased`, `LogError`.
        """
        turn_id = turn_id.encode(errors="replace").decode()  # bytes that are no text are no id either
        bare_id = next((turn_id.removeprefix(p) for p in _PREFIXES if turn_id.startswith(p)), turn_id)
        beginning = await self._beginning(tenant, bare_id)
        if beginning is None:
            raise await self._not_found(tenant, bare_id)
        if self._views and not await self._sessions.find(
            await self._sessions.get(beginning.started.stream), beginning.turn_id
        ):
            raise _unknown(bare_id)  # of a session that was deleted
        session, prompt = await self._prompt(tenant, beginning)
        fact = beginning.fact
        return Sent(
            turn_id=beginning.turn_id,
            session_id=session.session_id,
            position=beginning.started.position,
            model=prompt.model,
            upstream_api="chat" if fact.upstream_api == CHAT else "responses",
            body=_body(beginning, prompt),
        )

    async def _beginning(self, tenant: str, turn_id: str) -> _Beginning | None:
        started = await self._by_view(tenant, turn_id) or await self._by_time(tenant, turn_id)
        if started is None:
            return None
        events = await self._log.read(started.stream)
        found = _start_in(events, turn_id)
        return found and _Beginning(turn_id, found[0], found[1], events)

    async def _by_view(self, tenant: str, turn_id: str) -> Recorded | None:
        """The start of a response or a run that can be looked up."""
        if self._views is None:
            return None
        for sql in (responses.ROOT_OF, runs.ROOT_OF):
            rows = await self._views.fetch(sql, (tenant, turn_id))
            if rows and (found := _start_in(await self._log.read(lineage_stream(tenant, rows[0][0])), turn_id)):
                return found[0]
        return None

    async def _by_time(self, tenant: str, turn_id: str) -> Recorded | None:
        """The start of a turn that was recorded soon after its id was made; without views, whenever it was."""
        made = made_ms(turn_id)
        if made is None and self._views:
            return None
        after = await last_until(self._log, (made or 0) * 1_000 - 1)
        if waited := await self._log.read(queue_stream(tenant, turn_id)):
            after = max(after, waited[-1].position - LOOKED_MAX // 2)
        until = after + LOOKED_MAX if self._views else None
        part = Part(after_position=after, until_position=until, tenant=tenant, types=_STARTS)
        async for events in every(self._log, part, PAGE):
            if found := _start_in(events, turn_id):
                return found[0]
        return None

    async def _not_found(self, tenant: str, turn_id: str) -> Exception:
        if await self._log.read(queue_stream(tenant, turn_id)):
            return NothingSent(f"The turn {turn_id} was queued and has not begun: no model was sent anything for it.")
        return _unknown(turn_id)

    async def _prompt(self, tenant: str, beginning: _Beginning) -> tuple[Session, Prompt]:
        """The session as it was when the turn began, and the prompt that it made."""
        fact, stream = beginning.fact, beginning.started.stream
        before = [event for event in beginning.events if event.position < beginning.started.position]
        session = await self._sessions.fold(stream, before)
        if fact.sent_alone:
            alone = structs.replace(fact, items=fact.items[-fact.sent_alone :])
            prompt = prompt_of(None, alone, Session(stream))
        else:
            sent_at = _sent_at(beginning)
            await self._ensure_inherited(tenant, before, sent_at)
            recalled = await self._recalled(tenant, fact.recalled, sent_at)
            prompt = prompt_of(session.started, fact, session, recalled)
        return session, structs.replace(prompt, model=fact.upstream_model or fact.model)

    async def _ensure_inherited(self, tenant: str, events: Iterable[Recorded], sent_at: int) -> None:
        """Raise `ContentErased` where the events began as a fork of what was erased after the position `sent_at`."""
        position, began = _newest_start(events)
        while began and (fork := began.forked_from) and fork.turn_id:
            whole = await self._log.read(lineage_stream(tenant, fork.root_id))
            before = [event for event in whole if event.position < position]
            end = next((event.position for event in reversed(before) if _is_end(event.event, fork.turn_id)), None)
            if end is None:
                if _lost(before) - _erased_before(sent_at, whole):
                    raise ContentErased("What the turn goes on from was erased: its prompt can not be shown.")
                return
            position, began = _newest_start(event for event in before if event.position < end)

    async def _recalled(self, tenant: str, recalled: Iterable[Recalled], position: int) -> tuple[bytes, ...]:
        """The message with what was recalled, from where it was said, as that was at a position."""
        passages = []
        for where in recalled:
            stream = lineage_stream(tenant, where.root_id)
            events = [event for event in await self._log.read(stream) if event.position < position]
            session = await self._sessions.fold(stream, events, keeps_past=True)
            turn = session.find(where.turn_id)
            if turn and not turn.removed:
                passages.append(passage_of(where, turn))
            elif turn is None and any(isinstance(event.event, Erased) for event in events):
                raise ContentErased("The turn recalled what was erased since: its prompt can not be shown.")
        return recollection(passages)


def _start_in(events: Iterable[Recorded], turn_id: str) -> tuple[Recorded, TurnStarted] | None:
    for recorded in events:
        if isinstance(recorded.event, TurnStarted) and recorded.event.turn_id == turn_id:
            return recorded, recorded.event
    return None


def _newest_start(events: Iterable[Recorded]) -> tuple[int, SessionStarted | None]:
    """Where a lineage has begun last, and how."""
    found: tuple[int, SessionStarted | None] = 0, None
    for recorded in events:
        if isinstance(recorded.event, SessionStarted):
            found = recorded.position, recorded.event
    return found


def _lost(events: Iterable[Recorded]) -> set[int]:
    """The positions of those that have no content any more."""
    return {recorded.position for recorded in events if isinstance(recorded.event, Erased)}


def _erased_before(position: int, events: Iterable[Recorded]) -> set[int]:
    """The positions that had been erased by then: nobody was sent what they held."""
    facts = (recorded.event for recorded in events if recorded.position < position)
    runs = [run for fact in facts if isinstance(fact, SessionErased) for run in fact.ranges]
    return {erased for first, last in runs for erased in range(first, last + 1)}


def _is_end(event: Event, turn_id: str) -> bool:
    """Whether the turn of that id joined the transcript with this."""
    return isinstance(event, TurnCompleted | ItemsAdded) and event.turn_id == turn_id


def _sent_at(beginning: _Beginning) -> int:
    """The position at which the turn was begun last: a run that was started again was recalled to anew."""
    restarts = (
        recorded.position
        for recorded in beginning.events
        if isinstance(recorded.event, TurnRestarted) and recorded.event.turn_id == beginning.turn_id
    )
    return max(restarts, default=beginning.started.position)


def _body(beginning: _Beginning, prompt: Prompt) -> bytes:
    """The bytes; raises `NothingSent` where the model's server could not be asked for this."""
    fact = beginning.fact
    streams = fact.stream or fact.background  # what goes on without its client is always streamed
    if fact.upstream_api == CHAT:
        return chat.body_of(prompt, stream=streams)
    if fact.upstream_api == NOWHERE:
        raise NothingSent(f"No model server had the model '{fact.model}': nothing was sent for the turn.")
    without = any(
        isinstance(recorded.event, TurnCompleted) and recorded.event.turn_id == fact.turn_id and recorded.event.resent
        for recorded in beginning.events
    )
    thoughts = fact.upstream_api == RESPONSES and not without
    try:
        return response_body.body_of(prompt, stream=streams, with_thoughts=thoughts)
    except ModelRefused as error:
        raise NothingSent(f"Nothing was sent for the turn: {error}") from error


def _unknown(turn_id: str) -> PromptNotFound:
    return PromptNotFound(f"Turn not found: {turn_id[:256]}")
