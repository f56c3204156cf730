"""given(events).when(command).then(events): how decisions are specified."""

from collections.abc import Callable, Sequence

from eventstore.events import Event
from projections.generation import NOTHING, Inherited
from projections.session import Session
from tests.support.facts import STREAM, recorded

Decision = Callable[[Session], Sequence[Event]]


class Given:
    """A session to which events have happened, and what is decided on it."""

    def __init__(self, events: Sequence[Event], inherited: Inherited = NOTHING) -> None:
        self._session = Session.fold(STREAM, recorded(events), inherited)
        self._decision: Decision | None = None

    def when(self, decision: Decision) -> "Given":
        self._decision = decision
        return self

    def then(self, *events: Event) -> None:
        assert self._decision is not None
        assert list(self._decision(self._session)) == list(events)

    def then_refused(self, refusal: type[Exception]) -> None:
        assert self._decision is not None
        try:
            decided = self._decision(self._session)
        except refusal:
            return
        raise AssertionError(f"expected {refusal.__name__}, got {decided}")


def given(*events: Event, inherited: Inherited = NOTHING) -> Given:
    """A session to which `events` have happened."""
    return Given(events, inherited)
