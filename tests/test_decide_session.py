"""Every decision about a session as a thing, as given/when/then."""

from functools import partial
from typing import Any

from api.turns import decide_session
from api.turns.decide_session import Change, NewSession
from api.turns.refusals import SessionExists, SessionNotFound
from eventstore.events import (
    ForkPoint,
    Identity,
    SessionAnnotated,
    SessionDeleted,
    SessionEnded,
    SessionRenamed,
    TurnCancelled,
)
from tests.support.facts import completed, session_started, started
from tests.support.spec import Decision, given

SESSION = session_started()
POINT = ForkPoint(session_id="s0", root_id="s0", turn_id="t0")


def create(**wanted: Any) -> Decision:
    return partial(decide_session.create, wanted=NewSession(tenant="acme", **wanted))


def change(**wanted: Any) -> Decision:
    return partial(decide_session.change, wanted=Change(**wanted))


def fork(**source: Any) -> Decision:
    return partial(decide_session.fork, forked_from=POINT, source=session_started("s0", **source), title="T #2")


def test_a_session_starts_with_what_was_wanted() -> None:
    told: dict[str, Any] = {"title": "T", "model": "m9", "system_prompt": "Be brief.", "source": "cli"}
    who: dict[str, Any] = {"session_key": "k", "identity": Identity(user_id="ada")}
    given().when(create(**told, **who)).then(session_started(**told, **who))


def test_a_session_starts_with_its_metadata() -> None:
    given().when(create(metadata=b'{"a":"b"}')).then(SESSION, SessionAnnotated(metadata=b'{"a":"b"}'))


def test_a_session_that_is_there_is_not_made_again() -> None:
    given(SESSION).when(create()).then_refused(SessionExists)
    given(SESSION).when(fork()).then_refused(SessionExists)


def test_the_id_of_a_deleted_session_is_free() -> None:
    given(SESSION, SessionDeleted()).when(create()).then(SESSION)
    given(SESSION, SessionDeleted()).when(fork()).then(session_started(forked_from=POINT, title="T #2"))


def test_only_what_differs_changes() -> None:
    before = (SESSION, SessionRenamed(title="T"), SessionAnnotated(metadata=b"{}"))
    given(*before).when(change(title="T", metadata=b"{}")).then()
    given(*before).when(change()).then()
    given(*before).when(change(title="U", metadata=b'{"a":"b"}', end_reason="done")).then(
        SessionRenamed(title="U"), SessionAnnotated(metadata=b'{"a":"b"}'), SessionEnded(reason="done")
    )
    given(*before).when(change(title="")).then(SessionRenamed(title=""))


def test_of_two_reasons_to_end_the_first_counts() -> None:
    ended = (SESSION, SessionEnded(reason="done"))
    given(*ended).when(change(end_reason="other")).then()
    reopened = (*ended, started("t1"), completed("t1"))
    given(*reopened).when(change(end_reason="other")).then(SessionEnded(reason="other"))


def test_what_is_not_there_is_neither_changed_nor_deleted() -> None:
    for events in ((), (SESSION, SessionDeleted())):
        given(*events).when(change(title="T")).then_refused(SessionNotFound)
        given(*events).when(decide_session.delete).then_refused(SessionNotFound)


def test_a_deleted_sessions_open_turn_is_cancelled_first() -> None:
    given(SESSION, started("t1"), completed("t1")).when(decide_session.delete).then(SessionDeleted())
    given(SESSION, started("t1")).when(decide_session.delete).then(
        TurnCancelled(turn_id="t1", reason="client"), SessionDeleted()
    )


def test_a_fork_takes_what_held_for_all_turns_of_its_source() -> None:
    held = {"model": "m9", "system_prompt": "Be brief.", "session_key": "k", "source": "cli"}
    who = Identity(user_id="ada")
    given().when(fork(**held, identity=who, title="T")).then(
        session_started(forked_from=POINT, title="T #2", **held, identity=who)
    )
