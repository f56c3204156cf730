"""What a view is: a name, a version, its tables, and a pure function from a recorded event to the rows it changes."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

from eventstore.events import Event
from eventstore.log import Recorded

# An SQL text with its parameters. The text is a constant: SQLite compiles it once.
Statement: TypeAlias = tuple[str, Sequence[object]]


class View(NamedTuple):
    """A projection. Raise `version` with every change to `schema` or `apply`: the views are then rebuilt.

    `apply` is called with events of the types `of`, and with no others.
    """

    name: str
    version: int
    schema: str
    of: tuple[type[Event], ...]
    apply: Callable[[Recorded], Iterable[Statement]]
