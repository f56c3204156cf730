"""The verifier: alone with a public key, it believes what is true and nothing else."""

import base64
import functools
import hashlib
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from api.wire.audit import checkpoint_object, proof_object
from eventstore.events import TurnStarted
from eventstore.proofs.notary import Notary
from tests.support.audited import NOW_US, STREAM, a_log, change, notary_of, verify, written_anew
from tools.audit import verifier

# The first three of RFC 8032, section 7.1: private key, public key, message, signature.
RFC_8032 = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
            "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
            "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
]


def proof_of(notary: Notary, position: int) -> str:
    return msgspec.json.encode(proof_object(notary.proof(position, notary.sign(NOW_US)), notary.verifier)).decode()


def checkpoint_of(notary: Notary, since: int | None = None) -> str:
    made = notary.sign(NOW_US)
    continued = None if since is None else (since, *notary.consistency(since, made))
    return msgspec.json.encode(checkpoint_object(made, notary.verifier, continued)).decode()


async def _made(data: Path, events: int, make: Callable[[Notary], Any]) -> tuple[Any, str]:
    """What `make` makes of a log of so many events, and its public key."""
    await a_log(data, events)
    notary = notary_of(data)
    try:
        return make(notary), str(notary.verifier)
    finally:
        notary.close()


@pytest.mark.parametrize(("public", "message", "signature"), RFC_8032)
def test_its_ed25519_is_that_of_the_rfc(public: str, message: str, signature: str) -> None:
    of = bytes.fromhex
    assert verifier.is_signed(of(public), of(signature), of(message))
    assert not verifier.is_signed(of(public), of(signature), of(message) + b"x")


@settings(max_examples=25, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=300), st.integers(0, 511))
def test_its_ed25519_is_that_of_the_library(private: bytes, message: bytes, bit: int) -> None:
    key = Ed25519PrivateKey.from_private_bytes(private)
    public, signature = key.public_key().public_bytes_raw(), key.sign(message)
    assert verifier.is_signed(public, signature, message)
    changed = bytearray(signature)
    changed[bit // 8] ^= 1 << bit % 8
    assert not _believes(public, bytes(changed), message)
    over = (int.from_bytes(signature[32:], "little") + verifier.ORDER).to_bytes(32, "little")
    assert not verifier.is_signed(public, signature[:32] + over, message)
    assert not verifier.is_signed(public, signature[:-1], message)


def _believes(public: bytes, signature: bytes, message: bytes) -> bool:
    try:
        return verifier.is_signed(public, signature, message)
    except verifier.Wrong:
        return False


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=40), inner, max_size=20),
    max_leaves=20,
)


@settings(max_examples=40, deadline=None)
@given(_VALUES)
def test_its_messagepack_is_that_of_the_library(value: Any) -> None:
    packed = msgspec.msgpack.encode(value)
    assert verifier.unpacked(packed, 0) == (value, len(packed))


@given(st.binary(max_size=60))
def test_content_that_is_none_is_shown_all_the_same(data: bytes) -> None:
    assert verifier.content_of(bytes(16) + data)


def test_long_values_are_read_too() -> None:
    value = {"text": "ä" * 70_000, "list": list(range(70_000)), "map": {str(n): n for n in range(70_000)}}
    packed = msgspec.msgpack.encode(value)
    assert verifier.unpacked(packed, 0) == (value, len(packed))


async def test_it_says_what_is_proven_of_an_event_from_an_empty_directory(data: Path, tmp_path: Path) -> None:
    proof, key = await _made(data, 300, lambda notary: proof_of(notary, 5))
    done = verify(tmp_path, "--key", key, "-", piped=proof)
    assert (done.returncode, done.stderr) == (0, "")
    first, second, _, *content = done.stdout.splitlines()
    assert first.startswith("PROVEN: event 5 is in the log example.com/log of 300 events, which was signed for at 20")
    assert second.startswith(f'It is TurnStarted, version 5 of "{STREAM}", recorded at 20')
    shown = json.loads("\n".join(content))
    assert shown["items"] == [{"role": "user", "content": "hello 4"}]
    assert shown.keys() <= {"type", *TurnStarted.__struct_fields__}


async def test_an_erased_event_is_proven_without_its_content(data: Path, tmp_path: Path) -> None:
    def erased(notary: Notary) -> str:
        row = notary.row(2)
        assert row is not None
        digest = hashlib.sha256(row[5]).hexdigest()
        change(data, f"UPDATE events SET data = x'{digest}' WHERE position = 2")
        return proof_of(notary, 2)

    proof, key = await _made(data, 3, erased)
    assert json.loads(proof)["data"] is None
    done = verify(tmp_path, "--key", key, "-", piped=proof)
    assert done.returncode == 0
    assert f"Its content was erased: what is left of it is the digest {json.loads(proof)['digest']}" in done.stdout


async def test_a_checkpoint_that_continues_a_kept_one_is_told_from_one_that_does_not(
    data: Path, tmp_path: Path
) -> None:
    kept, key = await _made(data, 5, checkpoint_of)
    (tmp_path / "kept.json").write_text(kept)
    (tmp_path / "kept.txt").write_text(json.loads(kept)["note"])
    await a_log(data, 9, after=5)
    notary = notary_of(data)
    new, alone = checkpoint_of(notary, 5), checkpoint_of(notary)
    notary.close()
    for old in ("kept.json", "kept.txt"):
        done = verify(tmp_path, "--key", key, "--old", old, "-", piped=new)
        assert (done.returncode, "nothing of its 5 events was changed" in done.stdout) == (0, True)
    assert "give --old FILE to compare" in verify(tmp_path, "--key", key, "-", piped=new).stdout
    assert "ask for ?since=5" in verify(tmp_path, "--key", key, "--old", "kept.txt", "-", piped=alone).stderr
    same = verify(tmp_path, "--key", key, "--old", "kept.json", "-", piped=kept)
    assert "with nothing added" in same.stdout
    # Whoever has the key can sign another past; not one that continues what was kept.
    await written_anew(data, 9)
    (data / "checkpoints.jsonl").unlink()
    notary = notary_of(data)
    forged = checkpoint_of(notary, 5)
    notary.close()
    done = verify(tmp_path, "--key", key, "--old", "kept.json", "-", piped=forged)
    assert (done.returncode, "the past was changed" in done.stderr) == (1, True)


@pytest.mark.parametrize("kind", ["proof", "checkpoint"])
async def test_every_byte_of_a_file_that_is_changed_is_noticed(
    data: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    make = functools.partial(proof_of, position=3) if kind == "proof" else functools.partial(checkpoint_of, since=3)
    text, key = await _made(data, 5, make)
    monkeypatch.setattr(verifier, "is_signed", functools.cache(verifier.is_signed))  # asked a thousand times the same
    assert _is_proven(text.encode(), key)
    chance = random.Random(1)  # noqa: S311
    for at in range(len(text)):
        for flip in {1 << at % 8, chance.randrange(1, 256)}:
            changed = bytearray(text.encode())
            changed[at] ^= flip
            assert not _is_proven(bytes(changed), key), (at, bytes(changed[max(0, at - 20) : at + 20]))


def _is_proven(content: bytes, key: str) -> bool:
    try:
        verifier.proven(json.loads(content.decode(), object_pairs_hook=verifier.once), key, None)
    except (verifier.Wrong, ValueError, OverflowError):
        return False
    return True


@pytest.mark.parametrize(
    ("change_it", "said"),
    [
        (lambda p: p | {"extra": 1}, "of these fields and no others"),
        (lambda p: p | {"position": True}, "'position' is not what it should be"),
        (lambda p: p | {"position": 2**70}, "'position' is not what it should be"),
        (lambda p: p | {"position": 4}, "the event is not the one that was recorded"),
        (lambda p: p | {"recorded_us": 2**62}, "the event is not the one that was recorded"),
        (lambda p: p | {"data": None}, "whether the content was erased"),
        (lambda p: p | {"data": base64.b64encode(os.urandom(40)).decode()}, "the content is not the one"),
        (lambda p: p | {"size": 4}, "another size"),
        (lambda p: p | {"path": p["path"][:-1]}, "does not lead"),
        (lambda p: p | {"path": p["path"] * 30}, "too long"),
        (lambda p: p | {"path": ["x"]}, "'path' is no hash"),
        (lambda p: p | {"stream": "\ud800"}, "surrogates"),
        (lambda p: p | {"checkpoint": ""}, "there is no checkpoint"),
        (lambda p: p | {"object": "audit.something"}, "expected the JSON"),
        (lambda p: [p], "expected the JSON"),
        (lambda _: "x", "expected the JSON"),
    ],
)
async def test_what_is_wrong_with_a_proof_is_said(
    data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, change_it: Any, said: str
) -> None:
    text, key = await _made(data, 5, lambda notary: proof_of(notary, 3))
    (data / "proof.json").write_text(json.dumps(change_it(json.loads(text))))
    monkeypatch.setattr("sys.argv", ["verifier.py", "--key", key, str(data / "proof.json")])
    assert verifier.main() == 1
    told = capsys.readouterr()
    assert (said in told.err, told.out) == (True, "")


async def test_bad_input_is_refused_in_a_sentence(data: Path, tmp_path: Path) -> None:
    proof, key = await _made(data, 3, lambda notary: proof_of(notary, 3))
    (tmp_path / "deep").write_text("[" * 100_000)
    (tmp_path / "binary").write_bytes(b"\xff\x00")
    for arguments, piped, said in (
        (("--key", "x", "-"), proof, "NAME+ID+BASE64"),
        (("--key", key[:-1], "-"), proof, "NAME+ID+BASE64"),
        (("--key", key.replace("example", "exemple"), "-"), proof, "do not belong together"),
        (("--key", "turnlog/x+d492ab97+Adtl5/A9C5+5cQKC2zSC/a0QudrVF7uWNHTMp2TsJZKW", "-"), proof, "belong together"),
        (("--key", key, "-"), "", "Expecting value"),
        (("--key", key, "-"), '{"object": 1, "object": 2}', "a name comes twice"),
        (("--key", key, "nowhere"), "", "No such file"),
        (("--key", key, "deep"), "", "NOT PROVEN"),
        (("--key", key, "binary"), "", "NOT PROVEN"),
        (("--key", key, "-", "--old", "nowhere"), proof, "No such file"),
        (("--key", key, "-", "--old", "binary"), proof, "NOT PROVEN"),
        (("-",), proof, "--key"),
    ):
        done = verify(tmp_path, *arguments, piped=piped)
        assert (done.returncode in (1, 2), said in done.stderr, done.stdout) == (True, True, ""), done
        assert "Traceback" not in done.stderr
