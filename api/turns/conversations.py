"""The use cases of a conversation as a thing: made, read, annotated, deleted, and its items.

A conversation is a name that leads to a lineage, and its items are what was said there. Adding and removing items waits
for the lineage's turn, as all does that changes a transcript: so none comes between a turn and its end.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias

import msgspec

from api.ids import new_id, new_session_id
from api.turns import decide_conversation
from api.turns.decide_conversation import Hand, Named, item_not_found
from api.turns.decide_items import check_ids
from api.turns.directory import SERVER_MADE, conversation_not_found
from api.turns.lineages import CONFLICTS_MAX, Lineages
from api.turns.refusals import DuplicateAdded, DuplicateItem, LineageBusy
from api.turns.request import Names
from api.turns.service import Turns
from eventstore.events import ConversationCreated, Event, Identity, TurnCompleted, conversation_stream, lineage_stream
from eventstore.log import EventLog, VersionConflict
from projections import conversations
from projections.conversations import ConversationRow
from projections.messages import fields
from projections.session import Session
from projections.turn import Turn

# The turn, of these, that holds the item of an id as a client is shown it.
Find: TypeAlias = Callable[[Sequence[Turn], str], Turn | None]


class Speaker(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, and the session that they say they are in; a lineage that starts is theirs."""

    tenant: str
    session_id: str = ""
    session_key: str = ""
    identity: Identity = Identity()


class NewConversation(NamedTuple):
    """A conversation to be made: its first items, and its client's notes, a JSON object."""

    items: tuple[bytes, ...] = ()
    metadata: bytes = decide_conversation.NO_NOTES


class Conversations:
    """The conversations of all tenants."""

    def __init__(self, log: EventLog, lineages: Lineages, turns: Turns) -> None:
        self._log = log
        self._lineages = lineages
        self._turns = turns

    async def create(self, speaker: Speaker, wanted: NewConversation) -> ConversationRow:
        """Make a conversation, of the speaker's session where they are in one. Its items are recorded before its name,
        so that it is found whole or not at all. Raises `DuplicateAdded`, `LineageBusy`, `TurnInProgress`.
        """
        name, root_id = SERVER_MADE + new_id(), await self._root_for(speaker)
        if wanted.items:
            async with self._lineages.held(lineage_stream(speaker.tenant, root_id)) as session:
                await self._add(session, speaker, wanted.items)
        created = ConversationCreated(name=name, session_id=root_id, metadata=wanted.metadata)
        (recorded,) = await self._log.append(conversation_stream(speaker.tenant, name), 0, (created,))
        return ConversationRow(name, root_id, recorded.recorded_us, wanted.metadata.decode(), recorded.position)

    async def get(self, tenant: str, name: str) -> ConversationRow:
        """The conversation of that name; raises `ConversationNotFound`."""
        rows = await self._lineages.views.fetch(conversations.GET, (tenant, name))
        if not rows:
            raise conversation_not_found(name)
        return ConversationRow(*rows[0])

    async def page(self, tenant: str, after: int | None, rows_max: int, *, newest_first: bool) -> list[ConversationRow]:
        """The conversations that were made before, or else behind, the position `after`."""
        start = conversations.END if newest_first else 0
        sql = conversations.NEWEST if newest_first else conversations.OLDEST
        rows = await self._lineages.views.fetch(sql, (tenant, start if after is None else after, rows_max))
        return [ConversationRow(*row) for row in rows]

    async def annotate(self, tenant: str, name: str, metadata: bytes) -> ConversationRow:
        """Replace its client's notes; raises `ConversationNotFound`."""
        await self._decide(tenant, name, partial(decide_conversation.update, name=name, metadata=metadata))
        return await self.get(tenant, name)

    async def delete(self, tenant: str, name: str) -> None:
        """Have the name lead nowhere; raises `ConversationNotFound`. Its session goes on, with all that was said."""
        await self._turns.record_late()
        await self._decide(tenant, name, partial(decide_conversation.delete, name=name))
        self._lineages.directory.forget_conversation(tenant, name)

    async def tip(self, row: ConversationRow, tenant: str) -> str:
        """The id of the conversation's newest session."""
        return (await self._lineages.sessions.get(lineage_stream(tenant, row.root_id))).session_id

    async def said(self, speaker: Speaker, name: str) -> tuple[Session, list[Turn]]:
        """All that is part of the conversation, in turns, oldest first; raises `ConversationNotFound`."""
        root_id = await self._lineages.directory.conversation(speaker.tenant, name, speaker.session_id)
        session = await self._lineages.sessions.get(lineage_stream(speaker.tenant, root_id))
        return session, await self._turns_of(session)

    async def add(self, speaker: Speaker, name: str, items: tuple[bytes, ...]) -> tuple[Session, Turn]:
        """Add items to the transcript's end: the turn that they are. Raises `ConversationNotFound`, `DuplicateAdded`,
        `LineageBusy`, `TurnInProgress`.
        """
        return await self._in_lineage(speaker, name, partial(self._add, speaker=speaker, items=items))

    async def remove(self, speaker: Speaker, name: str, item_id: str, find: Find) -> Session:
        """Take an item out of the transcript; `find` tells which turn holds it. Raises `ConversationNotFound`,
        `ItemNotFound`, `LineageBusy`, `TurnInProgress`.
        """

        async def take_out(session: Session) -> tuple[Session, Turn]:
            turn = find(await self._turns_of(session), item_id)
            if turn is None:
                raise item_not_found(item_id)
            removal = partial(decide_conversation.remove, turn=turn, item_id=item_id, hand=self._hand(speaker))
            await self._lineages.commit(session, removal)
            return session, turn

        session, _ = await self._in_lineage(speaker, name, take_out)
        return session

    async def _in_lineage(
        self, speaker: Speaker, name: str, change: Callable[[Session], Awaitable[tuple[Session, Turn]]]
    ) -> tuple[Session, Turn]:
        """Change the lineage that the conversation leads to, once it is its turn; it may lead elsewhere by then."""
        await self._turns.record_late()
        conversation = partial(self._lineages.directory.conversation, speaker.tenant, name, speaker.session_id)
        while True:
            root_id = await conversation()
            async with self._lineages.held(lineage_stream(speaker.tenant, root_id)) as session:
                if await conversation() == root_id:
                    return await change(session)

    async def _add(self, session: Session, speaker: Speaker, items: tuple[bytes, ...]) -> tuple[Session, Turn]:
        try:
            check_ids(session, map(fields, items))
        except DuplicateItem as error:
            raise DuplicateAdded(str(error)) from None
        turn_id = new_id()
        decision = partial(decide_conversation.add, items=items, turn_id=turn_id, hand=self._hand(speaker))
        await self._lineages.commit(session, decision)
        self._lineages.directory.learn(session.tenant, "session", session.session_id, session.root_id)
        turn = session.find(turn_id)
        assert turn is not None  # noqa: S101 (it was just recorded)
        return session, turn

    async def _turns_of(self, session: Session) -> list[Turn]:
        whole = await self._lineages.reader.whole(session)
        return [turn for _, turn in whole.said if isinstance(turn.ended, TurnCompleted)]

    async def _root_for(self, speaker: Speaker) -> str:
        """The lineage of a new conversation: that of the session that its client is in, else a new one."""
        names = Names(session_id=speaker.session_id)
        place = await self._lineages.directory.find(speaker.tenant, names)
        return place.root_id if place else speaker.session_id or new_session_id()

    async def _decide(self, tenant: str, name: str, decision: Callable[[Named], Sequence[Event]]) -> None:
        """Record what `decision` makes of the conversation; where another was first, decide again on what is now."""
        await self._lineages.directory.conversation(tenant, name)
        stream = conversation_stream(tenant, name)
        for _ in range(CONFLICTS_MAX):
            recorded = await self._log.read(stream)
            events = decision(decide_conversation.named(recorded))
            if not events:
                return
            try:
                await self._log.append(stream, len(recorded), events)
            except VersionConflict:
                continue
            return
        raise LineageBusy("too many others write to this conversation at once")

    def _hand(self, speaker: Speaker) -> Hand:
        return Hand(
            now_us=time.time_ns() // 1_000,
            is_gone=self._turns.work.is_gone,
            session_key=speaker.session_key,
            identity=speaker.identity,
        )
