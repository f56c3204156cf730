"""Finds the lineage behind the names of a request: in memory, else in the views, which are level with the log by then.

A lineage is known by its root session id. Names that do not lead anywhere yet are claimed in the log, where only one
of two first requests can win.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from api.turns.refusals import (
    CompletionNotFound,
    ConversationNotFound,
    PreviousNotFound,
    ResponseNotFound,
    RunNotFound,
    SessionMismatch,
    SessionNotFound,
)
from api.turns.request import Names
from eventstore.events import ConversationCreated, conversation_stream
from eventstore.log import EventLog, VersionConflict
from projections import conversations, responses, runs, tips

SERVER_MADE = "conv_"  # ids of conversations that only the server makes
RESPONSE = "resp_"
RUN = "run_"
COMPLETION = "chatcmpl-"
KNOWN_MAX = 20_000
SAID_BACK_CHARACTERS = 256

_QUERIES = {
    "session": tips.ROOT_OF,
    "conversation": conversations.ROOT_OF,
    "response": responses.ROOT_OF,
    "run": runs.ROOT_OF,
}


class Views(Protocol):
    """Read access to the views."""

    async def fetch(self, sql: str, parameters: Sequence[object]) -> list[Any]:
        """The rows that `sql` finds, once the views are level with the log."""
        ...


class Place(NamedTuple):
    """Where a turn goes: the lineage of `root_id`; behind the turn `after`, or at its end where that is empty."""

    root_id: str
    after: str = ""


class Directory:
    """Every name of every tenant."""

    def __init__(self, log: EventLog, views: Views, new_session_id: Callable[[], str]) -> None:
        self._log = log
        self._views = views
        self._new_session_id = new_session_id
        self._known: dict[tuple[str, str, str], str] = {}
        self.deletions = 0  # of names, so far: where there was none, no name leads elsewhere

    async def place(self, tenant: str, names: Names) -> Place:
        """Where the turn goes that was asked for under `names`; a conversation met for the first time is claimed."""
        if names.conversation:
            return Place(await self._by_conversation(tenant, names))
        place = await self.find(tenant, names)
        return place or Place(names.session_id or self._new_session_id())

    async def find(self, tenant: str, names: Names) -> Place | None:
        """The same, without claiming anything: None where the names lead nowhere yet."""
        by_session = await self._lookup(tenant, "session", names.session_id)
        if names.previous_response_id:
            root_id = await self._previous(tenant, names.previous_response_id)
            _agree(names, by_session, root_id)
            return Place(root_id, names.previous_response_id.removeprefix(RESPONSE))
        if names.conversation:
            by_name = await self._lookup(tenant, "conversation", names.conversation)
            if by_name is None and names.conversation.startswith(SERVER_MADE):
                raise conversation_not_found(names.conversation)
            if by_name is not None:
                _agree(names, by_session, by_name)
                return Place(by_name)
        return Place(by_session) if by_session else None

    async def session(self, tenant: str, session_id: str) -> str:
        """The root of the session's lineage; raises `SessionNotFound`."""
        root_id = await self._lookup(tenant, "session", session_id)
        if root_id is None:
            raise session_not_found(session_id)
        return root_id

    async def conversation(self, tenant: str, name: str, session_id: str = "") -> str:
        """The root of the lineage that the conversation leads to; raises `ConversationNotFound`, or `SessionMismatch`
        where the session is one of another.
        """
        root_id = await self._lookup(tenant, "conversation", name)
        if root_id is None:
            raise conversation_not_found(name)
        names = Names(session_id=session_id, conversation=name)
        _agree(names, await self._lookup(tenant, "session", session_id), root_id)
        return root_id

    async def response(self, tenant: str, response_id: str) -> str:
        """The root of the response's lineage; raises `ResponseNotFound`."""
        turn_id = response_id.removeprefix(RESPONSE)
        root_id = await self._lookup(tenant, "response", turn_id) if turn_id != response_id else None
        if root_id is None:
            raise ResponseNotFound(f"Response not found: {_short(response_id)}")
        return root_id

    async def run(self, tenant: str, run_id: str) -> str:
        """The root of the run's lineage; raises `RunNotFound`."""
        turn_id = run_id.removeprefix(RUN)
        root_id = await self._lookup(tenant, "run", turn_id) if turn_id != run_id else None
        if root_id is None:
            raise run_not_found(run_id)
        return root_id

    def learn(self, tenant: str, kind: str, name: str, root_id: str) -> None:
        """Remember a name that was just recorded. It leads to one lineage until that is deleted."""
        if (tenant, kind, name) in self._known:
            return
        self._known[tenant, kind, name] = root_id
        if len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]

    def forget_response(self, tenant: str, turn_id: str) -> None:
        """An evicted response leads nowhere."""
        self.deletions += 1
        self._known.pop((tenant, "response", turn_id), None)

    def forget_conversation(self, tenant: str, name: str) -> None:
        """A deleted conversation leads nowhere."""
        self.deletions += 1
        self._known.pop((tenant, "conversation", name), None)

    def forget_lineage(self, tenant: str, root_id: str) -> None:
        """A deleted lineage has no names, but for the slugs that lead to where it begins anew."""
        self.deletions += 1
        gone = [known for known, root in self._known.items() if root == root_id and known[0] == tenant]
        for known in gone:
            del self._known[known]

    async def _by_conversation(self, tenant: str, names: Names) -> str:
        place = await self.find(tenant, names)
        if place and await self._lookup(tenant, "conversation", names.conversation):
            return place.root_id
        deletions = self.deletions
        root_id = await self._claim(tenant, names, place.root_id if place else names.session_id)
        if deletions == self.deletions:
            self.learn(tenant, "conversation", names.conversation, root_id)
        return root_id

    async def _claim(self, tenant: str, names: Names, root_id: str) -> str:
        created = ConversationCreated(name=names.conversation, session_id=root_id or self._new_session_id())
        stream = conversation_stream(tenant, names.conversation)
        version = 0
        while True:
            try:
                await self._log.append(stream, version, (created,))
            except VersionConflict:
                events = await self._log.read(stream)
            else:
                return created.session_id
            # Somebody was first; or it, or the session it led to, was deleted since, and the name is free again.
            rows = await self._views.fetch(conversations.ROOT_OF, (tenant, names.conversation))
            if rows and root_id not in ("", rows[0][0]):
                raise _mismatch(names)
            if rows:
                return str(rows[0][0])
            version = len(events)

    async def _previous(self, tenant: str, response_id: str) -> str:
        try:
            return await self.response(tenant, response_id)
        except ResponseNotFound:
            raise PreviousNotFound(f"Previous response with id '{_short(response_id)}' not found.") from None

    async def _lookup(self, tenant: str, kind: str, name: str) -> str | None:
        if not name:
            return None
        if root_id := self._known.get((tenant, kind, name)):
            return root_id
        deletions = self.deletions
        rows = await self._views.fetch(_QUERIES[kind], (tenant, name))
        if not rows:
            return None
        if deletions == self.deletions:  # else it may be a name of what was deleted meanwhile
            self.learn(tenant, kind, name, rows[0][0])
        return str(rows[0][0])


def conversation_not_found(name: str) -> ConversationNotFound:
    """There is no such conversation for whoever asks."""
    return ConversationNotFound(f"Conversation with id '{_short(name)}' not found.")


def session_not_found(session_id: str) -> SessionNotFound:
    """The refusal, in the words of the older system."""
    return SessionNotFound(f"Session not found: {_short(session_id)}")


def run_not_found(run_id: str) -> RunNotFound:
    """There is no such run for whoever asks."""
    return RunNotFound(f"Run not found: {_short(run_id)}")


def run_not_at_work(run_id: str) -> RunNotFound:
    """There is nothing to stop."""
    return RunNotFound(f"Run not found at work: it has ended: {_short(run_id)}")


def completion_not_found(completion_id: str) -> CompletionNotFound:
    """There is no such stored completion for whoever asks."""
    return CompletionNotFound(f"Chat completion not found: {_short(completion_id)}")


def _short(name: str) -> str:
    """A name as it is said back to whoever sent it."""
    return name if len(name) <= SAID_BACK_CHARACTERS else name[:SAID_BACK_CHARACTERS] + "…"


def _agree(names: Names, by_session: str | None, root_id: str) -> None:
    if names.session_id and (by_session or names.session_id) != root_id:
        raise _mismatch(names)


def _mismatch(names: Names) -> SessionMismatch:
    other = _short(names.conversation or names.previous_response_id)
    return SessionMismatch(
        f"'{other}' belongs to another session than '{names.session_id}': send one name, or the right two"
    )
