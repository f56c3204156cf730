"""What a view is: a name, a version, its tables, and a pure function from a recorded event to the rows it changes."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

from eventstore.events import Event
from eventstore.log import Recorded

# An SQL text with its parameters. The text is a constant: SQLite compiles it once.
Statement: TypeAlias = tuple[str, Sequence[object]]


class Deletion(NamedTuple):
    """A `SessionDeleted`, and what was in its stream before it."""

    recorded: Recorded
    earlier: Sequence[Recorded]


class View(NamedTuple):
    """A projection. Raise `version` with every change to `schema` or `apply`: the views are then rebuilt.

    `apply` is called with events of the types `of`, and with no others. What is dear and can be done for many events at
    once goes into `settle`: statements that end every transaction, where nobody waits for them. A view that keeps no
    text needs it again to take it out of an index: `forget` is handed the deleted lineage's past, before `settle`.
    """

    name: str
    version: int
    schema: str
    of: tuple[type[Event], ...]
    apply: Callable[[Recorded], Iterable[Statement]]
    settle: tuple[str, ...] = ()
    forget: Callable[[Deletion], Iterable[Statement]] | None = None
