"""How much is measured, and where: what all suites share."""

from collections.abc import Callable
from pathlib import Path

import msgspec

from tools.bench import generate


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """How long and how much. The defaults are those of a whole run."""

    events: int = 200_000
    rounds: int = 3
    append_s: float = 2.0
    reads: int = 2_000
    turns_warm_up_s: float = 1.0
    turns_s: float = 4.0
    streams: int = 1_000
    session_turns: int = 1_000
    sessions: int = 20_000
    rotations: int = 5
    searched_turns: int = 100_000
    searches: int = 200


def quick(*, events: int | None, rounds: int | None) -> Sizes:
    """A smoke test: every measure, none of them long enough to be quoted."""
    return Sizes(
        events=events or 5_000,
        rounds=rounds or 1,
        append_s=0.2,
        reads=200,
        turns_warm_up_s=0.1,
        turns_s=0.3,
        streams=50,
        session_turns=120,
        sessions=500,
        rotations=1,
        searched_turns=2_000,
        searches=20,
    )


def whole(*, events: int | None, rounds: int | None) -> Sizes:
    """A run to be quoted."""
    return Sizes(events=events or Sizes().events, rounds=rounds or Sizes().rounds)


class Plan:
    """One run: its sizes, a directory to work in, and the generated log that several suites read."""

    def __init__(self, directory: Path, sizes: Sizes, tell: Callable[[str], None]) -> None:
        self.sizes = sizes
        self._directory = directory
        self._tell = tell
        self._generated: Path | None = None

    def rounds(self, suite: str) -> range:
        """The rounds of a suite; whoever watches is told of the suite as they begin."""
        self._tell(suite)
        return range(self.sizes.rounds)

    def empty(self, name: str) -> Path:
        """A directory that is not there yet."""
        return self._directory / name

    def generated(self) -> Path:
        """The data directory of a log of about `sizes.events` events, made when it is first asked for."""
        if self._generated is None:
            self._tell("generating a log")
            self._generated = self.empty("generated")
            generate.make_log(self._generated, self.sizes.events)
        return self._generated
