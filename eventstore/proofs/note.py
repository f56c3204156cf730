"""Signed notes, as transparency logs sign their checkpoints: https://c2sp.org/signed-note.

    <text, of lines that each end in a newline>
    <an empty line>
    — <name> <base64 of key id ‖ Ed25519 signature of the text>

    key id       = the first 4 bytes of SHA-256(name ‖ newline ‖ 0x01 ‖ public key)
    verifier key = name+<key id in hexadecimal>+<base64 of 0x01 ‖ public key>
    signer key   = PRIVATE+KEY+name+<key id in hexadecimal>+<base64 of 0x01 ‖ private key>

Others may have signed the same text in further lines: those of unknown keys are passed over.
"""

import base64
import binascii
import hashlib
import re

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

NOTE_CHARACTERS_MAX = 100_000
NAME_CHARACTERS_MAX = 128
KEY_BYTES = 32

_ED25519 = b"\x01"
_PRIVATE = "PRIVATE+KEY+"
_LINE = re.compile(r"— (\S+) (\S+)")
_NAME = re.compile(r"[!-*,-~]+")  # printable ASCII without "+"


class NoteInvalid(Exception):
    """A note, or a key for notes, is not what it should be; says why."""


class VerifierKey(msgspec.Struct, frozen=True):
    """Whose signature is believed: a name and a public key."""

    name: str
    public: bytes

    @classmethod
    def parse(cls, text: str) -> "VerifierKey":
        """The key that `text` spells; raises `NoteInvalid`."""
        name, key_id, public = _key_parts(text)
        key = cls(name, public)
        if key.id.hex() != key_id.lower():
            raise NoteInvalid(f"the id in the verifier key of '{name}' is not that of its key: it was altered")
        return key

    @property
    def id(self) -> bytes:
        """The four bytes that a signature names its key by."""
        return hashlib.sha256(self.name.encode() + b"\n" + _ED25519 + self.public).digest()[:4]

    def __str__(self) -> str:
        return f"{self.name}+{self.id.hex()}+{base64.b64encode(_ED25519 + self.public).decode()}"

    def open(self, note: str) -> str:
        """The text of `note`, which this key has signed; raises `NoteInvalid`."""
        text, signatures = _split(note)
        ours = [signature for name, signature in signatures if name == self.name and signature[:4] == self.id]
        if not ours:
            raise NoteInvalid(f"{self.name} has not signed the note with the key {self.id.hex()}")
        try:
            for signature in ours:
                Ed25519PublicKey.from_public_bytes(self.public).verify(signature[4:], text.encode())
        except InvalidSignature:
            raise NoteInvalid(f"the signature of {self.name} is not that of the note's text: it was altered") from None
        return text


class SignerKey(msgspec.Struct, frozen=True):
    """Who signs: a name and a private key."""

    name: str
    private: bytes

    @classmethod
    def parse(cls, text: str) -> "SignerKey":
        """The key that `text` spells; raises `NoteInvalid`, which tells nothing of the key."""
        if not text.startswith(_PRIVATE):
            raise NoteInvalid("expected one line that begins with PRIVATE+KEY+")
        name, key_id, private = _key_parts(text.removeprefix(_PRIVATE))
        key = cls(name, private)
        if key.verifier.id.hex() != key_id.lower():
            raise NoteInvalid(f"the id in the signer key of '{name}' is not that of its key: it was altered")
        return key

    @property
    def verifier(self) -> VerifierKey:
        """The public half."""
        return VerifierKey(self.name, self._key.public_key().public_bytes_raw())

    def __str__(self) -> str:
        secret = base64.b64encode(_ED25519 + self.private).decode()
        return f"{_PRIVATE}{self.name}+{self.verifier.id.hex()}+{secret}"

    def __repr__(self) -> str:
        return f"SignerKey({self.name!r})"  # nothing secret gets into a log line

    def sign(self, text: str) -> str:
        """The note of `text`, which ends in a newline."""
        signature = base64.b64encode(self.verifier.id + self._key.sign(text.encode())).decode()
        return f"{text}\n— {self.name} {signature}\n"

    @property
    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.private)


def check_name(name: str) -> str:
    """`name`, if keys can be called so; raises `NoteInvalid`."""
    if len(name) > NAME_CHARACTERS_MAX or not _NAME.fullmatch(name):
        raise NoteInvalid(
            f"'{name[:NAME_CHARACTERS_MAX]}': expected 1 to {NAME_CHARACTERS_MAX} printable ASCII characters without "
            "spaces and '+', such as example.com/chat-log"
        )
    return name


def decode_base64(text: str) -> bytes:
    """The bytes that `text` spells, in the one way that there is; raises `NoteInvalid`."""
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        decoded = None
    if decoded is None or base64.b64encode(decoded).decode() != text:
        raise NoteInvalid(f"'{text[:100]}' is no base64")
    return decoded


def _key_parts(text: str) -> tuple[str, str, bytes]:
    parts = text.split("+", 2)
    if len(parts) != 3:
        raise NoteInvalid("a key has three parts with '+' between them: name, id, base64")
    name, key_id, encoded = parts
    try:
        key = decode_base64(encoded)
    except NoteInvalid:
        raise NoteInvalid("the last part of the key is no base64") from None
    if key[:1] != _ED25519 or len(key) != 1 + KEY_BYTES:
        raise NoteInvalid("expected an Ed25519 key: 33 bytes, the first of them 0x01")
    return check_name(name), key_id, key[1:]


def _split(note: str) -> tuple[str, list[tuple[str, bytes]]]:
    """The text of a note, and who says to have signed it, how."""
    text, gap, signed = note.rpartition("\n\n")
    if len(note) > NOTE_CHARACTERS_MAX or not gap or not text or not signed.endswith("\n"):
        raise NoteInvalid("expected a text, an empty line, and lines of signatures")
    if any(character < " " and character != "\n" for character in note):
        raise NoteInvalid("a note has no control characters")
    signatures = []
    for line in signed[:-1].split("\n"):
        if not (found := _LINE.fullmatch(line)):
            raise NoteInvalid(f"'{line[:100]}' is no signature: expected '— NAME BASE64'")
        signatures.append((found[1], decode_base64(found[2])))
    return text + "\n", signatures
