"""Signed notes and their keys: those of the field's other implementations, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventstore.proofs.note import NoteInvalid, SignerKey, VerifierKey, check_name

# The example of golang.org/x/mod/sumdb/note, whose notes ours are.
SIGNER = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
VERIFIER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
NOTE = (
    f"{TEXT}\n— PeterNeumann "
    "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
KEY = SignerKey("example.com/log", bytes(range(32)))


def test_notes_and_keys_are_those_of_gos_implementation() -> None:
    signer, verifier = SignerKey.parse(SIGNER), VerifierKey.parse(VERIFIER)
    assert (str(signer), str(verifier), signer.verifier) == (SIGNER, VERIFIER, verifier)
    assert signer.sign(TEXT) == NOTE
    assert verifier.open(NOTE) == TEXT


def test_a_note_that_others_have_signed_too_is_still_ours() -> None:
    another = SignerKey("witness.example", bytes(32))
    note = KEY.sign(TEXT) + another.sign(TEXT).rpartition("\n\n")[2]
    assert KEY.verifier.open(note) == another.verifier.open(note) == TEXT


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_note_with_one_byte_changed_is_refused(at: int, flip: int) -> None:
    note = bytearray(KEY.sign(TEXT).encode())
    note[at % len(note)] ^= flip
    with pytest.raises((NoteInvalid, UnicodeDecodeError)):
        KEY.verifier.open(note.decode())


@pytest.mark.parametrize(
    ("note", "said"),
    [
        ("", "expected a text"),
        (TEXT, "expected a text"),
        (f"{TEXT}\n— PeterNeumann x08g\n", "has not signed"),
        (f"{TEXT}\n— PeterNeumann ****\n", "no base64"),
        (f"{TEXT}\nPeterNeumann x08g\n", "no signature"),
        (NOTE.replace("then", "\tthen"), "control characters"),
        (NOTE.removesuffix("\n"), "expected a text"),
        (KEY.sign(TEXT), "PeterNeumann has not signed"),
    ],
)
def test_what_is_no_note_of_ours_is_refused_in_a_sentence(note: str, said: str) -> None:
    with pytest.raises(NoteInvalid, match=said):
        VerifierKey.parse(VERIFIER).open(note)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "three parts"),
        ("a+b", "three parts"),
        (VERIFIER.replace("c74f", "c74e"), "the id in the verifier key"),
        (VERIFIER.replace("Peter", "Otter"), "the id in the verifier key"),
        (VERIFIER + "=", "no base64"),
        ("a+00000000+AA==", "expected an Ed25519 key"),
        ("a b" + VERIFIER, "printable ASCII"),
    ],
)
def test_what_is_no_key_is_refused_in_a_sentence(text: str, said: str) -> None:
    with pytest.raises(NoteInvalid, match=said):
        VerifierKey.parse(text)
    with pytest.raises(NoteInvalid, match=r"PRIVATE\+KEY"):
        SignerKey.parse(text)


def test_a_key_shows_nothing_secret_of_itself() -> None:
    assert "Bgc" not in repr(KEY)
    assert repr(KEY) == "SignerKey('example.com/log')"


@pytest.mark.parametrize("name", ["", "a b", "a+b", "ä", "a\n", "x" * 129])
def test_a_log_is_called_something_that_fits_into_a_note(name: str) -> None:
    with pytest.raises(NoteInvalid, match="printable ASCII"):
        check_name(name)
