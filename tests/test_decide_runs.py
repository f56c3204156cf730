"""What becomes of runs that their owner has left, as given/when/then; and where runs are found."""

from functools import partial
from pathlib import Path

from api.turns import decide_runs
from api.turns.refusals import TurnNotOpen
from eventstore.events import SessionDeleted, TurnCancelled, TurnRestarted
from tests.support.facts import completed, session_started, started
from tests.support.spec import given
from tests.test_views import given as given_facts

SESSION = session_started()
RUN = started("t1", api="runs", background=True)
RESTARTED = TurnRestarted(turn_id="t1", owner="me2", lease_ms=5)
restart = partial(decide_runs.restart, turn_id="t1", owner="me2", lease_ms=5)


def test_an_open_run_is_started_again() -> None:
    given(SESSION, RUN).when(restart).then(RESTARTED)


def test_a_run_is_started_again_only_once() -> None:
    given(SESSION, RUN, RESTARTED).when(restart).then_refused(TurnNotOpen)


def test_a_turn_whose_client_is_gone_is_not_started_again() -> None:
    given(SESSION, started("t1")).when(restart).then_refused(TurnNotOpen)


def test_a_run_that_has_ended_is_not_started_again() -> None:
    given(SESSION, RUN, completed("t1")).when(restart).then_refused(TurnNotOpen)
    given(SESSION, RUN, TurnCancelled(turn_id="t1", reason="client")).when(restart).then_refused(TurnNotOpen)
    given(SESSION).when(restart).then_refused(TurnNotOpen)


def test_another_turn_is_not_started_again_in_its_place() -> None:
    given(SESSION, started("t2", background=True)).when(restart).then_refused(TurnNotOpen)


def test_only_runs_are_found_as_runs(tmp_path: Path) -> None:
    facts = (SESSION, RUN, completed("t1"), started("t2", api="responses"), completed("t2"))
    given_facts(tmp_path, *facts).then_rows("runs", ("t1", "acme", "s1"))


def test_a_deleted_session_has_no_runs(tmp_path: Path) -> None:
    given_facts(tmp_path, SESSION, RUN, completed("t1"), SessionDeleted()).then_rows("runs")
