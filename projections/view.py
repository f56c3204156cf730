"""What a view is: a name, a version, its tables, and a pure function from a recorded event to the rows it changes."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

from eventstore.events import Event
from eventstore.log import Recorded

# An SQL text with its parameters. The text is a constant: SQLite compiles it once.
Statement: TypeAlias = tuple[str, Sequence[object]]


class Deletion(NamedTuple):
    """A `SessionDeleted` or an `ItemRemoved`, and what was in its stream before it."""

    recorded: Recorded
    earlier: Sequence[Recorded]


class View(NamedTuple):
    """A projection. Raise `version` with every change to `schema` or `apply`: the views are then rebuilt.

    `apply` is called with events of the types `of`, and with no others. Those of its statements that are in `gathered`
    wait for each other, and are executed many rows at a time, in the order of `gathered`: before any other statement of
    the view, or else as the transaction ends, where nobody waits for them. Each has one row of parameters behind
    `VALUES`. What is dear and can be done for many events at once goes into `settle`: statements that end every
    transaction. A view that keeps no text needs it again to take it out of an index: `forget` is handed the past
    of a lineage that was deleted, or has lost an item, before `settle`.
    """

    name: str
    version: int
    schema: str
    of: tuple[type[Event], ...]
    apply: Callable[[Recorded], Iterable[Statement]]
    gathered: tuple[str, ...] = ()
    settle: tuple[str, ...] = ()
    forget: Callable[[Deletion], Iterable[Statement]] | None = None
