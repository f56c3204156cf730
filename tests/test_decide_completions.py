"""What may be done to a stored completion: given(events).when(command).then(events)."""

from functools import partial

import msgspec
import pytest

from api.turns import decide_completions
from api.turns.refusals import CompletionNotFound
from eventstore.events import Event, ResponseAnnotated, ResponseEvicted, SessionDeleted, TurnFailed
from projections.turn import Turn
from tests.support.facts import completed, session_started, started
from tests.support.spec import given

STORED = started("t1", parameters=b'{"store":true}')
THERE: tuple[Event, ...] = (session_started(), STORED, completed("t1"))
DELETED = ResponseEvicted(turn_id="t1", reason="deleted")
ANNOTATED = ResponseAnnotated(turn_id="t1", metadata=b'{"a":"1"}')
FOUND = Turn(STORED, 1, completed("t1"), 2)

delete = partial(decide_completions.delete, turn=FOUND)
annotate = partial(decide_completions.annotate, turn=FOUND, metadata=b'{"a":"1"}')


def test_a_completion_is_annotated_and_deleted() -> None:
    given(*THERE).when(annotate).then(ANNOTATED)
    given(*THERE, ANNOTATED).when(delete).then(DELETED)


def test_one_behind_a_rotation_is_taken_as_it_was_found() -> None:
    given(session_started(), started("t2"), completed("t2")).when(delete).then(DELETED)


@pytest.mark.parametrize("since", [DELETED, SessionDeleted()])
def test_what_was_deleted_meanwhile_is_refused(since: Event) -> None:
    given(*THERE, since).when(delete).then_refused(CompletionNotFound)
    given(*THERE, since).when(annotate).then_refused(CompletionNotFound)


def test_only_a_stored_turn_that_completed_can_be_named() -> None:
    replace = msgspec.structs.replace
    assert decide_completions.is_addressable(FOUND)
    failed = TurnFailed(turn_id="t1", code="x", message="y", status=0)
    plain, response = started("t1"), replace(STORED, api="responses")
    for change in (
        {"ended": None},
        {"ended": failed},
        {"evicted": "deleted"},
        {"started": plain},
        {"started": response},
    ):
        assert not decide_completions.is_addressable(replace(FOUND, **change))
