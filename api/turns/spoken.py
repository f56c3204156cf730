"""Under which session keys what was said, as far as a recall must know: who else spoke, and when last.

A recall has to see all that was acknowledged before it. Waiting for the views to be level with the log would have it
wait for every turn of every user; it waits no longer than for the last turn that somebody else made under its key. A
key under which nobody else ever spoke needs no look into the index at all.

Bounded: of a key that was forgotten, and of one that is asked for for the first time, it is known up to which position
anything could have been said under it.
"""

from collections.abc import Collection, Sequence

from eventstore.events import ItemsAdded, TurnCompleted
from eventstore.log import Recorded
from projections.session import Session

KEYS_MAX = 10_000
SPEAKERS_MAX = 8  # of one key, the newest


class _Key:
    """What is known of one key: positions by root id, the newest last."""

    __slots__ = ("floor", "has_looked", "is_whole", "speakers")

    def __init__(self, floor: int) -> None:
        self.floor = floor  # of whoever is not among the speakers, nothing was said behind this
        self.has_looked = False  # in the index, for whether there is anybody else
        self.is_whole = False  # there is nobody else
        self.speakers: dict[str, int] = {}

    def speak(self, root_id: str, position: int) -> None:
        position = max(position, self.speakers.pop(root_id, 0))
        self.speakers[root_id] = position
        if len(self.speakers) > SPEAKERS_MAX:
            self.floor = max(self.floor, self.speakers.pop(next(iter(self.speakers))))
            self.is_whole = False

    @property
    def newest(self) -> int:
        return max(self.floor, *self.speakers.values(), 0)


class Spoken:
    """The keys of all tenants, of the turns that this process has recorded: the only one that records any."""

    def __init__(self) -> None:
        self._keys: dict[tuple[str, str], _Key] = {}  # the longest unused first
        self._floor = 0  # of a key that is not known, nothing was said behind this since the start

    def learn(self, session: Session, recorded: Sequence[Recorded]) -> None:
        """Take in what was just recorded of a session, which has taken it in."""
        for event in recorded:
            if isinstance(event.event, TurnCompleted | ItemsAdded) and session.started and session.newest:
                own = session.newest.started.session_key
                if key := session.started.session_key if own is None else own:
                    self._key(session.tenant, key).speak(session.root_id, event.position)

    def behind(self, tenant: str, key: str, left_out: Collection[str]) -> int | None:
        """The position up to which the views must have got, to know what others have said; None where none ever have.

        Others are all lineages but those of the roots `left_out`.
        """
        known = self._key(tenant, key)
        others = [position for root_id, position in known.speakers.items() if root_id not in left_out]
        if known.is_whole and not others:
            return None
        return max(known.floor, *others, 0)

    def may_be_alone(self, tenant: str, key: str, left_out: Collection[str]) -> bool:
        """Whether only the index can tell if others have ever said anything; asked once."""
        known = self._key(tenant, key)
        return not known.has_looked and known.speakers.keys() <= set(left_out)

    def looked(self, tenant: str, key: str, left_out: Collection[str], position: int, *, found: bool) -> None:
        """What the index, as of the position that it was to be `behind`, has said of others: found, or none.

        With none, those who are left out and those learned of are all; unless some were forgotten meanwhile.
        """
        known = self._key(tenant, key)
        if known.floor > position:
            return
        known.has_looked = True
        known.is_whole = not found
        for root_id in left_out if not found else ():
            known.speak(root_id, 0)

    def _key(self, tenant: str, key: str) -> _Key:
        known = self._keys.pop((tenant, key), None) or _Key(self._floor)
        self._keys[tenant, key] = known
        if len(self._keys) > KEYS_MAX:
            self._floor = max(self._floor, self._keys.pop(next(iter(self._keys))).newest)
        return known
