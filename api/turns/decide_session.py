"""Every decision about a session as a thing: made, named, annotated, ended, deleted, forked.

Pure, as `decide.py` is: the current session and a command in, new facts or a refusal out.
"""

import msgspec

from api.turns.directory import session_not_found
from api.turns.refusals import SessionExists
from eventstore.events import (
    Event,
    ForkPoint,
    Identity,
    SessionAnnotated,
    SessionDeleted,
    SessionEnded,
    SessionRenamed,
    SessionStarted,
    TurnCancelled,
)
from projections.session import Session


class NewSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session to be made. An empty id is for the server to choose; `metadata` is a JSON object, empty for none."""

    tenant: str
    session_id: str = ""
    title: str = ""
    model: str = ""
    system_prompt: str = ""
    source: str = ""
    metadata: bytes = b""
    session_key: str = ""
    identity: Identity = Identity()


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """What is to change of a session; None leaves as it is."""

    title: str | None = None
    metadata: bytes | None = None
    end_reason: str | None = None


def create(session: Session, wanted: NewSession) -> list[Event]:
    """The session starts, unless it has."""
    _ensure_free(session)
    started = SessionStarted(
        session_id=session.root_id,
        session_key=wanted.session_key,
        identity=wanted.identity,
        source=wanted.source,
        title=wanted.title,
        model=wanted.model,
        system_prompt=wanted.system_prompt,
    )
    return [started, SessionAnnotated(metadata=wanted.metadata)] if wanted.metadata else [started]


def change(session: Session, wanted: Change) -> list[Event]:
    """Only what is different becomes a fact; of two reasons to end, the first counts."""
    _ensure_there(session)
    events: list[Event] = []
    if wanted.title is not None and wanted.title != session.title:
        events.append(SessionRenamed(title=wanted.title))
    if wanted.metadata is not None and wanted.metadata != session.metadata:
        events.append(SessionAnnotated(metadata=wanted.metadata))
    if wanted.end_reason and not session.end_reason:
        events.append(SessionEnded(reason=wanted.end_reason))
    return events


def delete(session: Session) -> list[Event]:
    """The lineage goes; a turn that is still open goes first."""
    _ensure_there(session)
    if session.open:
        return [TurnCancelled(turn_id=session.open.turn_id, reason="client"), SessionDeleted()]
    return [SessionDeleted()]


def fork(session: Session, forked_from: ForkPoint, source: SessionStarted, title: str) -> list[Event]:
    """A lineage starts that inherits; whatever held for all turns of its source holds for its own."""
    _ensure_free(session)
    started = msgspec.structs.replace(source, session_id=session.root_id, forked_from=forked_from, title=title)
    return [started]


def _ensure_free(session: Session) -> None:
    if session.started:
        raise SessionExists(f"Session already exists: {session.root_id}")


def _ensure_there(session: Session) -> None:
    if session.started is None:
        raise session_not_found(session.root_id)
