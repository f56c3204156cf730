"""Every decision about a turn, as given/when/then."""

from functools import partial
from typing import Any

from msgspec import structs

from api.models.model import Answer
from api.turns import decide, history
from api.turns.decide import Begin, Failure, Fork, Rotate, Said
from api.turns.history import Scope
from api.turns.refusals import NothingNew, ResponseInProgress, ResponseNotFound, TurnInProgress, TurnNotOpen
from api.turns.request import Names, TurnRequest
from eventstore.events import (
    CompressionRotated,
    ConversationAdvanced,
    Event,
    ForkPoint,
    Identity,
    ItemRemoved,
    ItemsAdded,
    ResponseEvicted,
    SessionDeleted,
    SessionRenamed,
    TurnCancelled,
    TurnFailed,
)
from projections.generation import Inherited
from projections.turn import Turn
from tests.support.facts import T0_US, assistant, completed, session_started, started, user
from tests.support.spec import Decision, given

SESSION = session_started()
OPENING = (user("old"), assistant("older"), user("new"))
WITH_HISTORY = structs.replace(started("t9"), items=OPENING)


def begin(
    turn_id: str = "t9", *, now_us: int = T0_US, gone: bool = False, fork: Fork | None = None, **request: Any
) -> Decision:
    """The command to open a turn with one new message, `new`, of a body that also holds older ones."""
    defaults: dict[str, Any] = {
        "tenant": "acme",
        "api": "chat",
        "names": Names(),
        "model": "m",
        "items": (user("new"),),
        "opening": OPENING,
    }
    command = Begin(
        request=TurnRequest(**(defaults | request)),
        turn_id=turn_id,
        session_id="s1",
        owner="me",
        lease_ms=60_000,
        now_us=now_us,
        is_gone=lambda _turn: gone,
        fork=fork,
    )
    return partial(decide.begin, command=command)


DIGEST = history.extended(history.beginning(Scope()), (user("hello"), assistant("hi")))


def complete(turn_id: str, **answer: Any) -> Decision:
    defaults: dict[str, Any] = {"message": assistant("hi"), "finish_reason": "stop", "model": "m"}
    return partial(decide.complete, turn_id=turn_id, answer=Answer(**(defaults | answer)))


def test_a_first_turn_starts_the_session_and_takes_in_the_bodys_history() -> None:
    given().when(begin()).then(SESSION, WITH_HISTORY)


def test_a_later_turn_takes_only_what_is_new() -> None:
    given(SESSION, started("t1"), completed("t1")).when(begin()).then(started("t9", "new"))


def test_a_turn_after_a_failed_first_one_takes_in_the_bodys_history_again() -> None:
    failed = TurnFailed(turn_id="t1", code="x", message="y", status=0)
    given(SESSION, started("t1"), failed).when(begin()).then(WITH_HISTORY)


def test_a_fork_inherits_and_so_takes_only_what_is_new() -> None:
    point = ForkPoint(session_id="s0", root_id="s0", turn_id="t1")
    source = session_started("s0", title="first", model="other", system_prompt="be kind", source="web")
    inherited = (Turn(started("t1"), T0_US, completed("t1"), T0_US),)
    began = session_started(forked_from=point, title="boat #2", model="other", system_prompt="be kind", source="web")
    command = begin(fork=Fork(point, source, "boat"))
    given(inherited=Inherited(turns=inherited)).when(command).then(began, started("t9", "new"))


def test_a_turn_without_anything_new_is_refused() -> None:
    given(SESSION, started("t1"), completed("t1")).when(begin(items=())).then_refused(NothingNew)


def test_an_open_turn_locks_its_lineage() -> None:
    given(SESSION, started("t1")).when(begin()).then_refused(TurnInProgress)


def test_an_open_turn_whose_owner_is_gone_is_cancelled_by_whoever_comes_next() -> None:
    crashed = TurnCancelled(turn_id="t1", reason="crash")
    given(SESSION, started("t1")).when(begin(gone=True)).then(crashed, WITH_HISTORY)


def test_an_open_turn_expires_with_its_lease() -> None:
    lease_ends_us = T0_US + 2 * 1_000_000 + 60_000 * 1_000  # begun at version 2, two seconds after T0
    given(SESSION, started("t1")).when(begin(now_us=lease_ends_us - 1)).then_refused(TurnInProgress)
    given(SESSION, started("t1")).when(begin(now_us=lease_ends_us)).then(
        TurnCancelled(turn_id="t1", reason="crash"), WITH_HISTORY
    )


def test_identity_and_session_key_are_recorded_once_and_again_only_where_they_differ() -> None:
    ada, bob = Identity(user_id="ada"), Identity(user_id="bob")
    session = session_started(session_key="k", identity=ada)
    given(session, started("t1"), completed("t1")).when(begin(session_key="k", identity=ada)).then(started("t9", "new"))
    given(session, started("t1"), completed("t1")).when(begin(session_key="l", identity=bob)).then(
        started("t9", "new", session_key="l", identity=bob)
    )


def test_an_answer_completes_the_turn() -> None:
    given(SESSION, started("t1")).when(complete("t1")).then(completed("t1", history_digest=DIGEST))


def test_an_answer_moves_the_conversation_that_the_turn_was_asked_by() -> None:
    advanced = ConversationAdvanced(conversation="slug", session_id="s1", turn_id="t1")
    given(SESSION, started("t1", conversation="slug")).when(complete("t1")).then(
        completed("t1", history_digest=DIGEST), advanced
    )


def test_the_model_that_answered_is_recorded_where_it_is_not_the_one_asked() -> None:
    dated = completed("t1", model="m-2026", history_digest=DIGEST)
    given(SESSION, started("t1")).when(complete("t1", model="m-2026")).then(dated)


def test_an_answer_that_comes_after_the_turn_was_ended_by_somebody_else_is_refused() -> None:
    crashed = TurnCancelled(turn_id="t1", reason="crash")
    given(SESSION, started("t1"), crashed).when(complete("t1")).then_refused(TurnNotOpen)
    given(SESSION, started("t1"), crashed, started("t2")).when(complete("t1")).then_refused(TurnNotOpen)


def test_a_failure_and_a_cancellation_keep_what_was_said_so_far() -> None:
    said = Said((assistant("half"),), (2, 2))
    fail = partial(decide.fail, turn_id="t1", failure=Failure("upstream_timeout", "slow", 0), said=said)
    given(SESSION, started("t1")).when(fail).then(
        TurnFailed(
            turn_id="t1", code="upstream_timeout", message="slow", status=0, output=said.output, delta_lengths=(2, 2)
        )
    )
    cancel = partial(decide.cancel, turn_id="t1", reason="disconnect", said=said)
    given(SESSION, started("t1")).when(cancel).then(
        TurnCancelled(turn_id="t1", reason="disconnect", output=said.output, delta_lengths=(2, 2))
    )


def test_only_an_ended_turns_response_can_be_evicted_and_only_once() -> None:
    evict = partial(decide.evict, turn_id="t1", reason="deleted")
    evicted = ResponseEvicted(turn_id="t1", reason="deleted")
    given(SESSION, started("t1"), completed("t1")).when(evict).then(evicted)
    given(SESSION, started("t1")).when(evict).then_refused(ResponseInProgress)
    given(SESSION, started("t1"), completed("t1"), evicted).when(evict).then_refused(ResponseNotFound)
    given(SESSION).when(evict).then_refused(ResponseNotFound)


ROTATED = CompressionRotated(
    old_session_id="s1",
    session_id="s2",
    summary=assistant("so far"),
    head=0,
    tail=0,
    trigger="threshold",
    tokens_before=2,
    tokens_after=1,
    summariser="m",
)


def test_a_rotation_is_recorded_of_the_session_that_it_was_made_for() -> None:
    events: list[Event] = [SESSION, started("t1"), completed("t1")]
    given(*events).when(partial(decide.rotate, command=Rotate(messages=2, rotated=ROTATED))).then(ROTATED)


def test_a_session_renamed_while_it_was_summarised_goes_on_under_its_new_title() -> None:
    events: list[Event] = [SESSION, started("t1"), completed("t1"), SessionRenamed(title="boat")]
    expected = structs.replace(ROTATED, title="boat #2")
    given(*events).when(partial(decide.rotate, command=Rotate(messages=2, rotated=ROTATED))).then(expected)


def test_a_session_deleted_while_it_was_summarised_is_not_rotated() -> None:
    events: list[Event] = [SESSION, started("t1"), completed("t1"), SessionDeleted()]
    given(*events).when(partial(decide.rotate, command=Rotate(messages=2, rotated=ROTATED))).then()


def test_a_rotation_of_a_session_that_has_moved_on_is_nothing() -> None:
    events: list[Event] = [SESSION, started("t1"), completed("t1"), started("t2"), completed("t2")]
    given(*events).when(partial(decide.rotate, command=Rotate(messages=2, rotated=ROTATED))).then()


def test_a_session_that_lost_an_item_while_it_was_summarised_is_not_rotated() -> None:
    added = ItemsAdded(turn_id="t2", items=(user("two"),))
    events: list[Event] = [SESSION, started("t1"), completed("t1"), ItemRemoved(turn_id="t1", item_id="msg_t1"), added]
    given(*events).when(partial(decide.rotate, command=Rotate(messages=2, rotated=ROTATED))).then()
    now = Rotate(messages=2, removed_position=4, rotated=ROTATED)
    given(*events).when(partial(decide.rotate, command=now)).then(ROTATED)


def test_a_rotation_never_comes_between_a_turn_and_its_end() -> None:
    given(SESSION, started("t1")).when(partial(decide.rotate, command=Rotate(messages=0, rotated=ROTATED))).then()


def test_a_fork_can_begin_compressed() -> None:
    command = Rotate(messages=0, rotated=ROTATED, started=SESSION)
    given().when(partial(decide.rotate, command=command)).then(SESSION, ROTATED)


def test_of_several_responses_those_that_have_ended_are_evicted_once() -> None:
    def turn(turn_id: str, **state: Any) -> Turn:
        return Turn(started(turn_id), T0_US, **state)

    behind_a_rotation = turn("t0", ended=completed("t0"))
    evict = partial(decide.evict_ended, turns=[behind_a_rotation, turn("t1"), turn("t2"), turn("t3")], reason="lru")
    gone = ResponseEvicted(turn_id="t1", reason="deleted")
    events = (started("t1"), completed("t1"), gone, started("t2"), completed("t2"), started("t3"))
    evicted = (ResponseEvicted(turn_id="t0", reason="lru"), ResponseEvicted(turn_id="t2", reason="lru"))
    given(SESSION, *events).when(evict).then(*evicted)


def test_a_response_behind_a_rotation_can_be_evicted_unless_it_was() -> None:
    for earlier, events in (
        (Turn(started("t0"), T0_US, ended=completed("t0")), (ResponseEvicted(turn_id="t0", reason="deleted"),)),
        (Turn(started("t0"), T0_US, ended=completed("t0"), evicted="lru"), None),
    ):
        case = given(SESSION).when(partial(decide.evict, turn_id="t0", reason="deleted", earlier=earlier))
        case.then(*events) if events else case.then_refused(ResponseNotFound)
