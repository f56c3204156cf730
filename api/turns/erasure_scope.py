"""What an erasure takes in: which lineages are meant, and which events of theirs, their names and their queued turns.

Pure: recorded events in, places in the log out. A lineage is meant as a whole, with all lives of its id: whoever has
said something in a session has said it to all who read it.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Literal, NamedTuple, TypeAlias, get_args

from eventstore.events import (
    CompressionRotated,
    ConversationCreated,
    ConversationDeleted,
    Erased,
    Event,
    SessionDeleted,
    SessionErased,
    SessionRenamed,
    SessionStarted,
    TurnQueued,
    TurnStarted,
    parse_stream,
)
from eventstore.log import Recorded

Kind: TypeAlias = Literal["session", "conversation", "user", "session_key"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_RESPONSE = "resp_"  # before a turn's id, in that of its response
_WITHOUT_CONTENT = (Erased, SessionErased, SessionDeleted, ConversationDeleted)


class Selection(NamedTuple):
    """Whose words are to be erased: those of a session, a conversation, a user or a session key."""

    kind: Kind
    value: str

    def __str__(self) -> str:
        return f"{self.kind.replace('_', ' ')} '{self.value}'"


class Meant:
    """The lineages of a tenant that a selection means, by their roots; and queued turns that it means by themselves."""

    def __init__(self, tenant: str, selection: Selection) -> None:
        self.roots: dict[str, None] = {}
        self.queued: dict[str, None] = {}
        self._tenant = tenant
        self._kind, self._value = selection

    def take(self, recorded: Recorded) -> None:
        """Take in the log's next event."""
        category, tenant, name = parse_stream(recorded.stream)
        event = recorded.event
        if tenant != self._tenant or isinstance(event, _WITHOUT_CONTENT):
            return
        if isinstance(event, ConversationCreated):
            if self._value == {"conversation": event.name, "session": event.session_id}.get(self._kind):
                self.roots[event.session_id] = None
        elif category == "lineage" and self._is_meant(name, event):
            self.roots[name] = None
        elif isinstance(event, TurnQueued) and self._value in _said_by(self._kind, event):
            self.queued[event.turn_id] = None

    def _is_meant(self, root_id: str, event: Event) -> bool:
        if self._kind == "session":
            is_rotated = isinstance(event, CompressionRotated) and event.session_id == self._value
            return root_id == self._value or is_rotated
        return isinstance(event, SessionStarted | TurnStarted) and self._value in _said_by(self._kind, event)


def _said_by(kind: Kind, event: SessionStarted | TurnStarted | TurnQueued) -> tuple[str, ...]:
    """Who the event says is speaking, as the selection asks for it."""
    if kind == "user":
        return (event.identity.user_id,) if event.identity else ()
    return (event.session_key or "",) if kind == "session_key" else ()


class Lineage:
    """A lineage that is meant: what it is called, and which of its events hold something."""

    def __init__(self, root_id: str, events: Iterable[Recorded]) -> None:
        self.root_id = root_id
        self.title = ""
        self.session_ids = {root_id: None}
        self.turn_ids: set[str] = set()
        self.positions: list[int] = []
        self.version = 0
        for recorded in events:
            self.version = recorded.version
            self._take(recorded)

    def _take(self, recorded: Recorded) -> None:
        event = recorded.event
        if isinstance(event, _WITHOUT_CONTENT):
            return
        self.positions.append(recorded.position)
        match event:
            case SessionStarted(title=title) | SessionRenamed(title=title):
                self.title = title
            case CompressionRotated(title=title, session_id=session_id):
                self.title = title
                self.session_ids[session_id] = None
            case TurnStarted(turn_id=turn_id):
                self.turn_ids.add(turn_id)
            case _:
                pass


class Attached:
    """The conversations that lead to lineages, and the turns that were queued for them, by the lineages' roots.

    `meant` are queued turns that are meant by themselves, whether or not they ever came to be of a lineage.
    """

    def __init__(self, tenant: str, lineages: Collection[Lineage], meant: Collection[str]) -> None:
        self.conversations: dict[str, list[str]] = {}  # by name, the roots that it has led to, one after the other
        self._tenant = tenant
        self._roots = {lineage.root_id for lineage in lineages}
        self._by_session = {id_: lineage.root_id for lineage in lineages for id_ in lineage.session_ids}
        self._by_turn = {id_: lineage.root_id for lineage in lineages for id_ in lineage.turn_ids}
        self._meant = meant
        self._queued: dict[str, str] = {}
        self._names: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._begun_elsewhere: set[str] = set()

    def take(self, recorded: Recorded) -> None:
        """Take in the log's next event."""
        event = recorded.event
        if not isinstance(event, ConversationCreated | TurnQueued | TurnStarted):
            return
        if parse_stream(recorded.stream).tenant != self._tenant:
            return
        match event:
            case ConversationCreated(name=name, session_id=root_id) if root_id in self._roots:
                self.conversations.setdefault(name, []).append(root_id)
                self._names[root_id][name] = None
            case TurnQueued(turn_id=turn_id):
                if (root := self._root_of(event)) is not None:
                    self._queued[turn_id] = root
            case TurnStarted(background=True, turn_id=turn_id) if turn_id not in self._by_turn:
                self._begun_elsewhere.add(turn_id)
            case _:
                pass

    def named(self, root_id: str) -> Collection[str]:
        """The conversations that lead to the lineage, or have led to it."""
        return self._names[root_id]

    @property
    def queued(self) -> dict[str, str]:
        """The queued turns, each with the root of its lineage, empty where it has none.

        One that has begun is of the lineage that it began in, whatever it was asked for.
        """
        return {turn_id: root for turn_id, root in self._queued.items() if turn_id not in self._begun_elsewhere}

    def _root_of(self, event: TurnQueued) -> str | None:
        """The lineage that the turn began in, or else was asked for; None where it is not meant."""
        found = (
            self._by_turn.get(event.turn_id)
            or (event.root_id if event.root_id in self._roots else None)
            or self._by_session.get(event.session_id)
            or self._by_turn.get(event.previous_response_id.removeprefix(_RESPONSE))
            or (None if event.root_id else self.conversations.get(event.conversation, [None])[-1])
        )
        return found or ("" if event.turn_id in self._meant else None)


def is_alive(events: Iterable[Recorded]) -> bool:
    """Whether a lineage that its stream's events have begun has not been deleted."""
    is_there = False
    for recorded in events:
        is_there = isinstance(recorded.event, SessionStarted) or (
            is_there and not isinstance(recorded.event, SessionDeleted)
        )
    return is_there


def held(events: Iterable[Recorded]) -> list[int]:
    """The positions of the events that hold something."""
    return [recorded.position for recorded in events if not isinstance(recorded.event, _WITHOUT_CONTENT)]


def named(events: Iterable[Recorded], root_id: str) -> list[int]:
    """The positions of what a conversation's stream holds from the time that it led to the lineage."""
    positions, leads_to = [], ""
    for recorded in events:
        if isinstance(recorded.event, ConversationCreated):
            leads_to = recorded.event.session_id
        if leads_to == root_id and not isinstance(recorded.event, _WITHOUT_CONTENT):
            positions.append(recorded.position)
    return positions


def leads_to(events: Iterable[Recorded]) -> str:
    """The lineage that a conversation's stream leads to in the end; empty where its name is free."""
    root_id = ""
    for recorded in events:
        if isinstance(recorded.event, ConversationCreated):
            root_id = recorded.event.session_id
        elif isinstance(recorded.event, ConversationDeleted):
            root_id = ""
    return root_id


def ranges(positions: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """The positions as runs, each with its first and its last."""
    runs: list[tuple[int, int]] = []
    for position in sorted(positions):
        if runs and runs[-1][1] == position - 1:
            runs[-1] = (runs[-1][0], position)
        else:
            runs.append((position, position))
    return tuple(runs)
