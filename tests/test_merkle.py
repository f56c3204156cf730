"""The Merkle tree against RFC 6962: Certificate Transparency's known vectors, and its own recursive definitions."""

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventstore.proofs.merkle import EMPTY_ROOT, LeavesChanged, Tree, is_consistent, is_included, leaf

# The eight leaves that Certificate Transparency's implementations are tested with, and the roots of 0 to 8 of them.
CT_LEAVES = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
CT_ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
CT_PATHS = {
    (0, 8): (
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ),
    (5, 8): (
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
    (2, 3): ("fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",),
    (1, 5): (
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ),
}
CT_CONSISTENCY: dict[tuple[int, int], tuple[str, ...]] = {
    (1, 1): (),
    (1, 8): (
        "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
    ),
    (6, 8): (
        "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    ),
    (2, 5): (
        "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    ),
}


def tree_of(hashes: Sequence[bytes]) -> Tree:
    tree = Tree(lambda first, end: hashes[first:end])
    for hash_ in hashes:
        tree.append(hash_)
    return tree


# RFC 6962, sections 2.1 to 2.1.2, word by word.


def _k(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def _mth(d: Sequence[bytes]) -> bytes:
    if not d:
        return hashlib.sha256().digest()
    if len(d) == 1:
        return hashlib.sha256(b"\x00" + d[0]).digest()
    k = _k(len(d))
    return hashlib.sha256(b"\x01" + _mth(d[:k]) + _mth(d[k:])).digest()


def _path(m: int, d: Sequence[bytes]) -> list[bytes]:
    if len(d) == 1:
        return []
    k = _k(len(d))
    return [*_path(m, d[:k]), _mth(d[k:])] if m < k else [*_path(m - k, d[k:]), _mth(d[:k])]


def _subproof(m: int, d: Sequence[bytes], b: bool) -> list[bytes]:
    if m == len(d):
        return [] if b else [_mth(d)]
    k = _k(len(d))
    if m <= k:
        return [*_subproof(m, d[:k], b), _mth(d[k:])]
    return [*_subproof(m - k, d[k:], False), _mth(d[:k])]


def test_the_roots_are_those_of_certificate_transparency() -> None:
    tree = tree_of(CT_LEAVES)
    assert [tree.root(size).hex() for size in range(9)] == CT_ROOTS
    assert [tree_of(CT_LEAVES[:size]).root().hex() for size in range(9)] == CT_ROOTS


@pytest.mark.parametrize(("index", "size"), CT_PATHS)
def test_inclusion_proofs_are_those_of_certificate_transparency(index: int, size: int) -> None:
    path = tree_of(CT_LEAVES).inclusion(index, size)
    assert tuple(step.hex() for step in path) == CT_PATHS[index, size]
    assert is_included(CT_LEAVES[index], index, size, path, bytes.fromhex(CT_ROOTS[size]))


@pytest.mark.parametrize(("first", "second"), CT_CONSISTENCY)
def test_consistency_proofs_are_those_of_certificate_transparency(first: int, second: int) -> None:
    path = tree_of(CT_LEAVES).consistency(first, second)
    assert tuple(step.hex() for step in path) == CT_CONSISTENCY[first, second]
    assert is_consistent(first, bytes.fromhex(CT_ROOTS[first]), second, bytes.fromhex(CT_ROOTS[second]), path)


HASHES = [hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(1_400)]
SIZES = st.integers(1, len(HASHES)) | st.sampled_from([1, 2, 255, 256, 257, 511, 512, 513, 768, 1_024, 1_025, 1_280])


@settings(max_examples=60, deadline=None)
@given(st.data(), SIZES)
def test_roots_and_proofs_are_those_of_the_rfcs_definitions(data: st.DataObject, size: int) -> None:
    hashes = HASHES[:size]
    tree = tree_of(hashes)
    smaller = data.draw(st.integers(1, size) | st.sampled_from([s for s in (1, 256, 512, size) if s <= size]))
    index = data.draw(st.integers(0, smaller - 1))
    assert tree.root() == _mth(hashes)
    assert tree.root(smaller) == _mth(hashes[:smaller])
    path = tree.inclusion(index, smaller)
    assert path == _path(index, hashes[:smaller])
    assert is_included(hashes[index], index, smaller, path, tree.root(smaller))
    steps = tree.consistency(smaller)
    assert steps == _subproof(smaller, hashes, True)
    assert is_consistent(smaller, tree.root(smaller), size, tree.root(), steps)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(2, 600))
def test_a_proof_of_anything_else_proves_nothing(data: st.DataObject, size: int) -> None:
    tree = tree_of(HASHES[:size])
    index = data.draw(st.integers(0, size - 1))
    path, root = tree.inclusion(index), tree.root()
    another = data.draw(st.integers(0, size - 1).filter(lambda i: i != index))
    assert not is_included(HASHES[another], index, size, path, root)
    assert not is_included(HASHES[index], another, size, path, root)
    assert not is_included(HASHES[index], index, size, path[:-1], root)
    assert not is_included(HASHES[index], index, size, [*path, path[0]], root)
    assert not is_included(HASHES[index], size, size, path, root)
    first = data.draw(st.integers(1, size - 1))
    steps, older = tree.consistency(first), tree.root(first)
    assert not is_consistent(first, leaf(older), size, root, steps)
    assert not is_consistent(first, older, size, leaf(root), steps)
    assert not is_consistent(first, older, size, root, steps[:-1])
    assert not is_consistent(first, older, size, root, [*steps, root])
    assert not is_consistent(size, root, first, older, steps)


def test_many_at_once_are_the_same_as_one_by_one() -> None:
    at_once = Tree()
    for begin, end in ((0, 3), (3, 3), (3, 300), (300, 1_400)):
        at_once.extend(HASHES[begin:end])
    assert (at_once.size, at_once.root()) == (1_400, tree_of(HASHES).root())


def test_nothing_is_a_beginning_of_everything() -> None:
    tree = tree_of(HASHES[:5])
    assert tree.consistency(0) == []
    assert is_consistent(0, EMPTY_ROOT, 5, tree.root(), [])
    assert not is_consistent(0, tree.root(1), 5, tree.root(), [])
    assert is_consistent(0, EMPTY_ROOT, 0, EMPTY_ROOT, [])


def test_what_is_asked_beyond_the_tree_is_refused() -> None:
    tree = tree_of(HASHES[:5])
    for wrong in (lambda: tree.root(6), lambda: tree.inclusion(5), lambda: tree.consistency(6), lambda: tree.root(-1)):
        with pytest.raises(ValueError, match="lea"):
            wrong()


def test_a_proof_reads_at_most_two_tiles_again_and_notices_what_changed_in_them() -> None:
    stored, asked = list(HASHES), []

    def reread(first: int, end: int) -> Sequence[bytes]:
        asked.append((first, end))
        return stored[first:end]

    tree = Tree(reread)
    tree.extend(HASHES)
    tree.inclusion(300, 1_000)
    assert set(asked) == {(256, 512), (768, 1_024)}
    stored[400] = HASHES[401]
    with pytest.raises(LeavesChanged, match="positions 257 to 512"):
        tree.inclusion(300)
    del stored[1_000:]
    with pytest.raises(LeavesChanged, match="positions 769 to 1024"):
        tree.inclusion(1_000)
