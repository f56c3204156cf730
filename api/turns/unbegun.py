"""Responses that ended before they began: cancelled or refused in the queue. No turn tells of them, only this does."""

from typing import TypeAlias

from api.turns.run import Run

UNBEGUN_MAX = 1_000
UNBEGUN_MAX_BYTES = 16_000_000

Name: TypeAlias = tuple[str, str]  # tenant, response id


class Unbegun:
    """The newest of them, no more than `UNBEGUN_MAX` of `UNBEGUN_MAX_BYTES`; the last one in any case."""

    def __init__(self) -> None:
        self._kept: dict[Name, tuple[Run, int]] = {}  # oldest first; with the weight it was kept at
        self._weight_bytes = 0

    def get(self, name: Name) -> Run | None:
        """The one of that name, while it is kept."""
        run, _ = self._kept.get(name, (None, 0))
        return run

    def keep(self, name: Name, run: Run) -> None:
        """Put in the newest; older ones make room."""
        self.drop(name)
        weight = run.turn.weight_bytes
        self._kept[name] = run, weight
        self._weight_bytes += weight
        while len(self._kept) > 1 and (len(self._kept) > UNBEGUN_MAX or self._weight_bytes > UNBEGUN_MAX_BYTES):
            self.drop(next(iter(self._kept)))

    def drop(self, name: Name) -> None:
        """It was deleted."""
        _, weight = self._kept.pop(name, (None, 0))
        self._weight_bytes -= weight
