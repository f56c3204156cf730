"""Which of the original's sessions are one lineage: those that compression made out of one another.

A rotation ends a session with reason `compression` and makes a child. Which child it goes on in, where there are
several, is decided as the original does it (`get_compression_tip`): one that was compressed itself, else one that is
still open, else the one that was spoken in last. Branches, subagents and tools' sessions are never followed.
"""

from collections.abc import Iterator

from tools.hermes.rows import Notes, Original, Session


def chains(original: Original, notes: Notes) -> list[list[Session]]:
    """Every session once, each lineage from its root to its tip, in the order in which they began."""
    following = _following(original)
    followers = {child.session_id for child in following.values()}
    ordered = sorted(original.sessions.values(), key=lambda session: (session.started_us, session.session_id))
    seen: set[str] = set()
    found = [list(_chain(session, following, seen)) for session in ordered if session.session_id not in followers]
    for session in ordered:
        if session.session_id not in seen:
            notes.note(f"session {session.session_id!r} is its own ancestor: taken as the beginning of its lineage")
            found.append(list(_chain(session, following, seen)))
    return found


def is_continuation(child: Session, parent: Session) -> bool:
    """Whether a rotation of its parent made the child."""
    is_another = child.branched_from or child.delegated_from or child.source == "tool"
    return parent.end_reason == "compression" and not is_another


def _following(original: Original) -> dict[str, Session]:
    """Of each session that was compressed, the one that it goes on in."""
    children: dict[str, list[Session]] = {}
    for session in original.sessions.values():
        parent = original.sessions.get(session.parent_id)
        if parent and is_continuation(session, parent):
            children.setdefault(parent.session_id, []).append(session)
    return {parent_id: max(found, key=lambda child: _rank(child, original)) for parent_id, found in children.items()}


def _rank(child: Session, original: Original) -> tuple[int, int, int, str]:
    state = 2 if child.end_reason == "compression" else 1 if not child.ended_us else 0
    spoken = max((message.at_us for message in original.messages.get(child.session_id, ())), default=child.started_us)
    return state, spoken, child.started_us, child.session_id


def _chain(session: Session | None, following: dict[str, Session], seen: set[str]) -> Iterator[Session]:
    while session and session.session_id not in seen:
        seen.add(session.session_id)
        yield session
        session = following.get(session.session_id)
