"""The Merkle tree over the log: one root for all events, and short proofs that an event, or an older root, is in it.

    leaf    = SHA-256(0x00 ‖ the event's hash in the chain)       the event at position p is the leaf p - 1
    node    = SHA-256(0x01 ‖ left ‖ right)
    split   = the largest power of two that is smaller than the number of leaves
    the root of no leaves is SHA-256 of nothing

That is RFC 6962, section 2.1, so that every verifier of its proofs is one of ours. A `Tree` keeps no leaves but the
newest: every 256 of them are a tile, of which only the root stays, and the complete nodes above. A proof asks for the
leaves of the few tiles that it goes through again, and notices where they are not what they were.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeAlias

HASH_BYTES = 32
TILE_LEAVES = 256
EMPTY_ROOT = hashlib.sha256().digest()

# Reads the events' hashes of the leaves from the first index up to, and without, the second.
Reread: TypeAlias = Callable[[int, int], Sequence[bytes]]
Range: TypeAlias = tuple[int, int]

_sha256 = hashlib.sha256


class LeavesChanged(Exception):
    """The hashes of the events at these positions are not those that the tree was made of."""

    def __init__(self, first: int, last: int) -> None:
        super().__init__(f"the events at positions {first} to {last} are not those that were recorded there")
        self.first = first
        self.last = last


def leaf(hash_: bytes) -> bytes:
    """The leaf of an event with that hash in the chain."""
    return _sha256(b"\x00" + hash_).digest()


def node(left: bytes, right: bytes) -> bytes:
    """The node above two others."""
    return _sha256(b"\x01" + left + right).digest()


def no_leaves(first: int, end: int) -> Sequence[bytes]:
    """For a tree that nobody asks for proofs."""
    raise ValueError(f"this tree can not read its leaves {first} to {end} again")


class Tree:
    """A growing Merkle tree; it takes 64 bytes for 256 events. `reread` is for proofs, and roots of older sizes."""

    def __init__(self, reread: Reread = no_leaves) -> None:
        self._reread = reread
        self._levels: list[bytearray] = [bytearray()]  # the roots of tiles, of two tiles, of four ...
        self._last: list[bytes] = []  # the leaves behind the last whole tile
        self._sealed = 0

    @property
    def size(self) -> int:
        """How many leaves there are: the position of the newest event."""
        return self._sealed + len(self._last)

    def append(self, hash_: bytes) -> None:
        """Take in the next event's hash."""
        self._last.append(_sha256(b"\x00" + hash_).digest())
        if len(self._last) == TILE_LEAVES:
            self._seal()

    def extend(self, hashes: Iterable[bytes]) -> None:
        """Take in the hashes of the next events: twice as fast as one by one."""
        rest = iter(hashes)
        while more := [_sha256(b"\x00" + hash_).digest() for hash_ in islice(rest, TILE_LEAVES - len(self._last))]:
            self._last += more
            if len(self._last) == TILE_LEAVES:
                self._seal()

    def root(self, size: int | None = None) -> bytes:
        """The root of the first `size` leaves, of all of them where it is None. Raises `LeavesChanged`."""
        size = self._within(self.size if size is None else size)
        return self._hash(0, size) if size else EMPTY_ROOT

    def inclusion(self, index: int, size: int | None = None) -> list[bytes]:
        """The proof that the leaf at `index` is in the tree of the first `size` leaves. Raises `LeavesChanged`."""
        size = self._within(self.size if size is None else size)
        if not 0 <= index < size:
            raise ValueError(f"there is no leaf {index} among the first {size}")
        return [self._hash(*beside) for beside in _beside(index, size)]

    def consistency(self, first: int, second: int | None = None) -> list[bytes]:
        """The proof that the tree of the first `first` leaves is a beginning of that of `second`.

        Raises `LeavesChanged`. Nothing needs no proof to be a beginning of everything.
        """
        second = self._within(self.size if second is None else second)
        if not 0 <= first <= second:
            raise ValueError(f"the first {first} leaves are not among the first {second}")
        return [self._hash(*part) for part in _parts(first, second)] if 0 < first < second else []

    def _within(self, size: int) -> int:
        if not 0 <= size <= self.size:
            raise ValueError(f"the tree has {self.size} leaves, not {size}")
        return size

    def _seal(self) -> None:
        """The last tile is whole: keep its root, and what became whole above."""
        top = _fold(self._last)
        self._last = []
        self._sealed += TILE_LEAVES
        tiles = self._sealed // TILE_LEAVES
        level = 0
        self._levels[0] += top
        while tiles % 2 == 0:
            top = node(bytes(self._levels[level][-2 * HASH_BYTES : -HASH_BYTES]), top)
            level, tiles = level + 1, tiles // 2
            if level == len(self._levels):
                self._levels.append(bytearray())
            self._levels[level] += top

    def _hash(self, start: int, end: int) -> bytes:
        """The hash over the leaves from `start` up to `end`, a range that the tree's splits make."""
        width = end - start
        if width >= TILE_LEAVES and width & (width - 1) == 0:
            at = start // width * HASH_BYTES
            return bytes(self._levels[(width // TILE_LEAVES).bit_length() - 1][at : at + HASH_BYTES])
        if width < TILE_LEAVES:
            first = start - start % TILE_LEAVES
            return _fold(self._tile(first)[start - first : end - first])
        middle = start + _split(width)
        return node(self._hash(start, middle), self._hash(middle, end))

    def _tile(self, first: int) -> Sequence[bytes]:
        if first == self._sealed:
            return self._last
        leaves = [leaf(hash_) for hash_ in self._reread(first, first + TILE_LEAVES)]
        if len(leaves) != TILE_LEAVES or _fold(leaves) != self._hash(first, first + TILE_LEAVES):
            raise LeavesChanged(first + 1, first + TILE_LEAVES)
        return leaves


def is_included(hash_: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Whether `path` proves that the event with that hash is the leaf `index` under `root` (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    at, last, found = index, size - 1, leaf(hash_)
    for beside in path:
        if last == 0:
            return False
        if at % 2 or at == last:
            found = node(beside, found)
            while at % 2 == 0 and at:
                at, last = at >> 1, last >> 1
        else:
            found = node(found, beside)
        at, last = at >> 1, last >> 1
    return last == 0 and found == root


def is_consistent(first: int, first_root: bytes, second: int, second_root: bytes, path: Sequence[bytes]) -> bool:
    """Whether `path` proves that the first tree is a beginning of the second (RFC 9162, 2.1.4.2)."""
    if first == second:
        return not path and first_root == second_root
    if first == 0:
        return not path and first_root == EMPTY_ROOT and second > 0
    steps = list(path) if first & (first - 1) else [first_root, *path]
    if not 0 < first < second or not steps:
        return False
    at, last = first - 1, second - 1
    while at % 2:
        at, last = at >> 1, last >> 1
    older = newer = steps[0]
    for beside in steps[1:]:
        if last == 0:
            return False
        if at % 2 or at == last:
            older, newer = node(beside, older), node(beside, newer)
            while at % 2 == 0 and at:
                at, last = at >> 1, last >> 1
        else:
            newer = node(newer, beside)
        at, last = at >> 1, last >> 1
    return last == 0 and older == first_root and newer == second_root


def _split(width: int) -> int:
    return 1 << (width - 1).bit_length() - 1


def _fold(level: Sequence[bytes]) -> bytes:
    """The root of some leaves: neighbours in pairs, and one without a neighbour moves up as it is."""
    while len(level) > 1:
        above = [_sha256(b"\x01" + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=False)]
        level = [*above, level[-1]] if len(level) % 2 else above
    return level[0]


def _beside(index: int, size: int) -> list[Range]:
    """The ranges of leaves whose hashes are the path from a leaf to the root, lowest first."""
    start, end = 0, size
    path: list[Range] = []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((start, middle))
            start = middle
    return path[::-1]


def _parts(first: int, second: int) -> Iterator[Range]:
    """The ranges of leaves whose hashes prove a beginning, lowest first: RFC 6962's SUBPROOF, from the bottom."""
    start, end, is_whole = 0, second, True
    path: list[Range] = []
    while end != first:
        middle = start + _split(end - start)
        if first <= middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((start, middle))
            start, is_whole = middle, False
    if not is_whole:
        yield start, end
    yield from reversed(path)
