"""Whether what was erased is what the facts say was erased."""

from collections.abc import Iterable, Sequence

from eventstore.verifying.diagnosis import Finding
from eventstore.verifying.stretch import Claim, Run


def malformed(claims: Iterable[Claim]) -> Finding | None:
    """The first fact that names positions that can not have been erased when it was recorded."""
    for claim in claims:
        for first, last in claim.runs:
            if not 1 <= first <= last < claim.position:
                reason = f"this SessionErased names positions {first} to {last}, where only earlier ones can be meant"
                return Finding(claim.position, reason)
    return None


def unclaimed(erased: Sequence[Run], claims: Iterable[Claim]) -> Finding | None:
    """The first event that was erased though no fact says so."""
    position = _first_outside(erased, merged(run for claim in claims for run in claim.runs))
    if not position:
        return None
    return Finding(position, "its content was taken out, and no SessionErased behind it says so")


def kept(erased: Sequence[Run], claims: Sequence[Claim], after_position: int) -> Finding | None:
    """The first event behind `after_position` that was not erased though a fact says so."""
    said = merged((max(first, after_position + 1), last) for claim in claims for first, last in claim.runs)
    position = _first_outside(said, erased)
    if not position:
        return None
    fact = next(claim.position for claim in claims if any(first <= position <= last for first, last in claim.runs))
    return still_there(position, fact)


def still_there(position: int, fact: int) -> Finding:
    """The content at a position was erased, as the fact says that was recorded at another one, and is there."""
    return Finding(position, f"its content was erased, says the SessionErased at position {fact}, and it is there")


def merged(runs: Iterable[Run]) -> list[Run]:
    """The same positions, each once, in order."""
    found: list[Run] = []
    for first, last in sorted(run for run in runs if run[0] <= run[1]):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found


def _first_outside(runs: Sequence[Run], cover: Sequence[Run]) -> int | None:
    """The first position of `runs` that is not in `cover`; both merged."""
    index = 0
    for first, last in runs:
        at = first
        while at <= last:
            while index < len(cover) and cover[index][1] < at:
                index += 1
            if index == len(cover) or cover[index][0] > at:
                return at
            at = cover[index][1] + 1
    return None
