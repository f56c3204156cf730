"""Every decision about a conversation: its notes, its end, and the items that join its transcript or leave it.

Pure, as `decide.py` is: a folded stream and a command in, new facts or a refusal out. A conversation is a name: its
stream tells of that, and its items are those of the lineage that it leads to.
"""

from collections.abc import Callable, Iterable

import msgspec

from api.turns import decide
from api.turns.directory import conversation_not_found
from api.turns.refusals import ItemNotFound
from eventstore.events import (
    ConversationCreated,
    ConversationDeleted,
    ConversationUpdated,
    Event,
    Identity,
    ItemRemoved,
    ItemsAdded,
    SessionStarted,
)
from eventstore.log import Recorded
from projections.items import whole_id, without
from projections.session import Session
from projections.turn import Turn

NO_NOTES = b"{}"


class Named(msgspec.Struct):
    """A conversation's stream, folded: whether the name is taken, and its client's notes."""

    is_there: bool = False
    metadata: bytes = NO_NOTES


class Hand(msgspec.Struct, frozen=True, kw_only=True):
    """Who reaches into a lineage, and when: `is_gone` tells of an open turn whether nobody works on it any more."""

    now_us: int
    is_gone: Callable[[Turn], bool]
    session_key: str = ""
    identity: Identity = Identity()


def named(events: Iterable[Recorded]) -> Named:
    """The conversation that its stream's events lead to."""
    state = Named()
    for recorded in events:
        match recorded.event:
            case ConversationCreated(metadata=metadata):
                state = Named(is_there=True, metadata=metadata or NO_NOTES)
            case ConversationUpdated(metadata=metadata):
                state.metadata = metadata
            case ConversationDeleted():
                state = Named()
            case _:
                pass  # of no conversation
    return state


def update(state: Named, name: str, metadata: bytes) -> list[Event]:
    """Other notes take the place of those there are; raises `ConversationNotFound`."""
    _ensure_there(state, name)
    return [] if metadata == state.metadata else [ConversationUpdated(metadata=metadata)]


def delete(state: Named, name: str) -> list[Event]:
    """The name leads nowhere any more; raises `ConversationNotFound`. What it led to goes on, a turn of it too."""
    _ensure_there(state, name)
    return [ConversationDeleted()]


def add(session: Session, items: tuple[bytes, ...], turn_id: str, hand: Hand) -> list[Event]:
    """Items join the transcript's end; a session that lacks starts first. Raises `TurnInProgress`."""
    events = decide.closed(session, hand.now_us, hand.is_gone)
    if session.started is None:
        started = SessionStarted(session_id=session.root_id, session_key=hand.session_key, identity=hand.identity)
        events.append(started)
    return [*events, ItemsAdded(turn_id=turn_id, items=items)]


def remove(session: Session, turn: Turn, item_id: str, hand: Hand) -> list[Event]:
    """An item leaves the transcript, and what a rotation kept of it. `turn` is the one it came in with, as that is now.
    Raises `ItemNotFound`, `TurnInProgress`.
    """
    item_id = whole_id(item_id, turn.turn_id)
    if item_id in turn.removed:
        raise item_not_found(item_id)
    events = decide.closed(session, hand.now_us, hand.is_gone)
    for place, message in enumerate(session.current.base):
        if message[1].turn_id == turn.turn_id and (left := without(message, item_id)) is not message:
            rest = left[0] if left else b""
            return [*events, ItemRemoved(turn_id=turn.turn_id, item_id=item_id, base=place, rest=rest)]
    return [*events, ItemRemoved(turn_id=turn.turn_id, item_id=item_id)]


def item_not_found(item_id: str) -> ItemNotFound:
    """The conversation has no such item, or none any more."""
    return ItemNotFound(f"Item with id '{item_id}' not found.")


def _ensure_there(state: Named, name: str) -> None:
    if not state.is_there:
        raise conversation_not_found(name)
