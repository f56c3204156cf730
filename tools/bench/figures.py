"""What a suite hands over: named figures, each with its value in every round and the target it has, if any."""

import math
from collections.abc import Iterable, Sequence
from typing import Literal, TypeAlias

import msgspec

Bound: TypeAlias = Literal[">=", "<=", "<"]


class Target(msgspec.Struct, frozen=True):
    """What the median is meant to be; in the unit of its figure."""

    bound: Bound
    value: float

    def is_met_by(self, value: float) -> bool:
        """Whether `value` is within the bound."""
        match self.bound:
            case ">=":
                return value >= self.value
            case "<=":
                return value <= self.value
            case "<":
                return value < self.value


class Figure(msgspec.Struct, frozen=True):
    """One thing that was measured. `rounds` holds its value of each round, in `unit`."""

    suite: str
    name: str
    unit: str
    rounds: tuple[float, ...]
    target: Target | None = None

    @property
    def median(self) -> float:
        """The figure that counts."""
        return median(self.rounds)

    @property
    def is_met(self) -> bool | None:
        """Whether the median is as it is meant to be; None where there is no target."""
        return self.target.is_met_by(self.median) if self.target else None


class Figures:
    """The figures of one suite while its rounds go on; in the order in which they were first met."""

    def __init__(self, suite: str) -> None:
        self._suite = suite
        self._known: dict[str, Figure] = {}

    def add(self, name: str, value: float, unit: str, bound: Bound | None = None, target: float = 0) -> None:
        """One round's value of the figure called `name`."""
        known = self._known.get(name)
        rounds = (*known.rounds, value) if known else (value,)
        meant = Target(bound, target) if bound else None
        self._known[name] = Figure(self._suite, name, unit, rounds, meant)

    def all(self) -> list[Figure]:
        """Everything that was added."""
        return list(self._known.values())


class NothingMeasured(Exception):
    """There is not one sample: the measure was too short."""


def percentile(samples: Iterable[float], percent: float) -> float:
    """The nearest-rank percentile: the smallest sample that at least `percent` of all do not exceed."""
    ordered = sorted(samples)
    if not ordered:
        raise NothingMeasured("no sample was taken: measure for longer")
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def median(samples: Sequence[float]) -> float:
    """The middle sample, or the mean of the middle two."""
    ordered = sorted(samples)
    if not ordered:
        raise NothingMeasured("no sample was taken: measure for longer")
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
