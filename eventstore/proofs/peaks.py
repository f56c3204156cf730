"""A Merkle tree that only grows, with what it takes to go on and nothing else: the roots of its whole subtrees."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from eventstore.proofs.merkle import EMPTY_ROOT, TILE_LEAVES, node

Peak: TypeAlias = tuple[int, bytes]  # so many leaves, and the root over them

_TILE_LEVELS = TILE_LEAVES.bit_length() - 1
_sha256 = hashlib.sha256


class Peaks:
    """The tree of `merkle.py` over the first `size` events, as its peaks, largest first: at most one for each bit."""

    def __init__(self, peaks: Iterable[Peak] = ()) -> None:
        self.peaks: list[Peak] = list(peaks)
        self.size = sum(leaves for leaves, _ in self.peaks)

    def add(self, leaves: int, root: bytes) -> None:
        """Take in the next whole subtree; it begins where one of its size does."""
        self.peaks.append((leaves, root))
        self.size += leaves
        while len(self.peaks) > 1 and self.peaks[-2][0] == self.peaks[-1][0]:
            (leaves, left), (_, right) = self.peaks[-2:]
            self.peaks[-2:] = [(2 * leaves, node(left, right))]

    def root(self) -> bytes:
        """The root over all of them."""
        if not self.peaks:
            return EMPTY_ROOT
        *rest, (_, root) = self.peaks
        for _, left in reversed(rest):
            root = node(left, root)
        return root


def subtrees(size: int, hashes: Sequence[bytes]) -> list[Peak]:
    """What `Peaks` of that size are to take in for the next events: whole tiles, and leaves before and behind them."""
    begin = min(-size % TILE_LEAVES, len(hashes))
    end = begin + (len(hashes) - begin) // TILE_LEAVES * TILE_LEAVES
    nodes = [_sha256(b"\x00" + hash_).digest() for hash_ in hashes]
    tiles = nodes[begin:end]
    for _ in range(_TILE_LEVELS):
        halves = iter(tiles)
        tiles = [_sha256(b"\x01" + left + right).digest() for left, right in zip(halves, halves, strict=True)]
    return [
        *((1, node_) for node_ in nodes[:begin]),
        *((TILE_LEAVES, tile) for tile in tiles),
        *((1, node_) for node_ in nodes[end:]),
    ]
