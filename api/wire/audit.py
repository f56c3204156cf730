"""Checkpoints and proofs as JSON: all that `verifier.py` needs, and no more, in one way of writing it."""

import base64
from collections.abc import Mapping
from typing import Literal

import msgspec

from api.problem import Problem
from api.wire.query import SAID_BACK_MAX, Parameter
from eventstore.chain import Row, digest, is_erased
from eventstore.proofs.checkpoint import Checkpoint
from eventstore.proofs.notary import Proof
from eventstore.proofs.note import VerifierKey

DIGITS_MAX = 18  # what SQLite and every JSON reader for whole numbers take

_NUMBER = {"type": "integer", "minimum": 0, "maximum": 10**DIGITS_MAX - 1}
SINCE = Parameter(
    "since", "A size; the answer then proves that the checkpoint continues the log of that size.", _NUMBER
)
SIZE = Parameter("size", "The size of the checkpoint to prove it by; the newest, where it lacks.", _NUMBER)


class Continuation(msgspec.Struct, frozen=True):
    """The proof that the log of an earlier size, and root, is the beginning of a checkpoint's."""

    size: int
    root: str
    path: list[str]


class CheckpointObject(msgspec.Struct, frozen=True, kw_only=True):
    """A signed checkpoint. Only the `note` is signed; the rest says the same for people, and is checked against it."""

    object: Literal["audit.checkpoint"] = "audit.checkpoint"
    size: int
    root: str
    timestamp: str
    key: str
    note: str
    since: Continuation | None


class ProofObject(msgspec.Struct, frozen=True, kw_only=True):
    """An event, and its path to the root of a signed checkpoint. `data` is what the log stores of it, in base64: 16
    random bytes and MessagePack. It is null where the content was erased.
    """

    object: Literal["audit.proof"] = "audit.proof"
    position: int
    stream: str
    version: int
    type: str
    recorded_us: int
    erased: bool
    data: str | None
    digest: str
    previous_hash: str
    hash: str
    path: list[str]
    size: int
    key: str
    checkpoint: str


def checkpoint_object(
    checkpoint: Checkpoint, key: VerifierKey, since: tuple[int, bytes, list[bytes]] | None = None
) -> CheckpointObject:
    """A checkpoint as it is told; `since` is a size, its root, and the proof that the checkpoint continues it."""
    return CheckpointObject(
        size=checkpoint.size,
        root=checkpoint.root.hex(),
        timestamp=checkpoint.signed_at,
        key=str(key),
        note=checkpoint.note,
        since=Continuation(since[0], since[1].hex(), [step.hex() for step in since[2]]) if since else None,
    )


def proof_object(proof: Proof, key: VerifierKey) -> ProofObject:
    """A proof as it is told."""
    position, stream, version, type_, recorded_us, data, hash_ = proof.row
    return ProofObject(
        position=position,
        stream=stream,
        version=version,
        type=type_,
        recorded_us=recorded_us,
        erased=is_erased(data),
        data=_content(proof.row),
        digest=digest(data).hex(),
        previous_hash=proof.previous.hex(),
        hash=hash_.hex(),
        path=[step.hex() for step in proof.path],
        size=proof.checkpoint.size,
        key=str(key),
        checkpoint=proof.checkpoint.note,
    )


def number_in(query: Mapping[str, str], parameter: Parameter) -> int | None:
    """The number that was sent, None where none was; raises `Problem`."""
    text = query.get(parameter.name)
    return None if text is None else whole_number(text, parameter.name)


def whole_number(text: str, name: str) -> int:
    """`text` as a number of events; raises `Problem`."""
    if not text.isascii() or not text.isdigit() or len(text) > DIGITS_MAX:
        raise Problem(
            f"{name} must be a whole number from 0, of at most {DIGITS_MAX} digits, got '{text[:SAID_BACK_MAX]}'.",
            param=name,
            code="invalid_value",
        )
    return int(text)


def _content(row: Row) -> str | None:
    return None if is_erased(row[5]) else base64.b64encode(row[5]).decode()
