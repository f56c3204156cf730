#!/usr/bin/env python3
"""Verify what a turnlog server proves, with nothing of turnlog but the log's public key.

    python3 verifier.py --key KEY proof.json                        what /api/audit/proof/POSITION answers, of an event
    python3 verifier.py --key KEY checkpoint.json --old kept.json   what /api/audit/checkpoint?since=SIZE answers

Says what is proven and exits 0, or what is wrong and exits 1. Needs Python 3.8 or newer, and nothing else: no network,
no other file. Read it before you believe it. What it relies on: SHA-256; Ed25519 (RFC 8032); Merkle trees (RFC 6962);
signed notes (c2sp.org/signed-note, c2sp.org/tlog-checkpoint); and turnlog's chain, in which the hash of an event is the
SHA-256 of the hash before it, its position, version, time and names, and the SHA-256 of its content.
"""

from __future__ import annotations

import argparse
import base64
import datetime
import hashlib
import json
import os
import re
import struct
import sys
from typing import Any, Tuple

FILE_BYTES_MAX = 100_000_000
SALT_BYTES = 16


class Wrong(Exception):
    """Something is not proven; says why."""


# Ed25519: RFC 8032, section 5.1. Points are (X, Y, Z, T) with x = X/Z, y = Y/Z, xy = T/Z.

Point = Tuple[int, int, int, int]
P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P


def plus(p: Point, q: Point) -> Point:
    """The sum of two points of the curve."""
    a, b = (p[1] - p[0]) * (q[1] - q[0]) % P, (p[1] + p[0]) * (q[1] + q[0]) % P
    c, d = 2 * p[3] * q[3] * D % P, 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def times(number: int, point: Point) -> Point:
    """A point, that many times."""
    total = (0, 1, 1, 0)
    while number:
        if number & 1:
            total = plus(total, point)
        point, number = plus(point, point), number >> 1
    return total


def point_of(encoded: bytes) -> Point:
    """The point that 32 bytes stand for."""
    y = int.from_bytes(encoded, "little")
    is_odd, y = y >> 255, y & (2**255 - 1)
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if y >= P or (x * x - square) % P or (x == 0 and is_odd):
        raise Wrong("a key or a signature holds no point of the curve")
    x = P - x if x & 1 != is_odd else x
    return (x, y, 1, x * y % P)


def bytes_of(point: Point) -> bytes:
    """The 32 bytes that stand for a point."""
    inverse = pow(point[2], P - 2, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    encoded: int = y | (x & 1) << 255
    return encoded.to_bytes(32, "little")


BASE = point_of((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def is_signed(public: bytes, signature: bytes, text: bytes) -> bool:
    """Whether the owner of the public key has signed the text."""
    if len(public) != 32 or len(signature) != 64:
        return False
    first, s = signature[:32], int.from_bytes(signature[32:], "little")
    k = int.from_bytes(hashlib.sha512(first + public + text).digest(), "little") % ORDER
    x, y, z, t = times(k, point_of(public))
    return s < ORDER and bytes_of(plus(times(s, BASE), (P - x, y, z, P - t))) == first


# Signed notes and checkpoints


def base64_of(text: str) -> bytes:
    """The bytes, which can be spelt in one way only."""
    decoded = base64.b64decode(text, validate=True)
    if base64.b64encode(decoded).decode() != text:
        raise Wrong("some base64 is not written as it should be")
    return decoded


def key_of(text: str) -> tuple[str, bytes, bytes]:
    """A verifier key's name, id and public key."""
    try:
        name, key_id, encoded = text.strip().split("+", 2)
        typed = base64_of(encoded)
    except (Wrong, ValueError):
        raise Wrong("the key is not of the form NAME+ID+BASE64") from None
    if typed[:1] != b"\x01" or len(typed) != 33 or key_id != id_of(name, typed).hex():
        raise Wrong("the key is no Ed25519 key, or its parts do not belong together")
    return name, id_of(name, typed), typed[1:]


def id_of(name: str, typed: bytes) -> bytes:
    """The first bytes of what a name and a public key hash to."""
    return hashlib.sha256(name.encode() + b"\n" + typed).digest()[:4]


def checkpoint_of(note: str, key: str) -> tuple[str, int, bytes, str]:
    """Whose log, of what size, with what root, when: of a note that the key has signed."""
    name, key_id, public = key_of(key)
    text, gap, signed = note.rpartition("\n\n")
    lines = text.split("\n")
    if not gap or not signed.endswith("\n") or len(lines) < 3 or not re.fullmatch("0|[1-9][0-9]{0,18}", lines[1]):
        raise Wrong("there is no checkpoint where one should be")
    found = [re.fullmatch(r"— (\S+) (\S+)", line) for line in signed[:-1].split("\n")]
    signatures = [base64_of(match[2]) for match in found if match and match[1] == name]
    ours = [signature[4:] for signature in signatures if signature[:4] == key_id]
    if not all(found) or not ours or not all(is_signed(public, one, (text + "\n").encode()) for one in ours):
        raise Wrong(f"the checkpoint is not signed by {name} with the given key, or it was altered")
    if lines[0] != name:
        raise Wrong(f"the checkpoint is of another log, '{lines[0]}'")
    when = [line[5:] for line in lines[3:] if line.startswith("time ")]
    return name, int(lines[1]), base64_of(lines[2]), when[0] if when else "an unknown time"


# Merkle trees: RFC 6962, section 2.1; the ways up are those of RFC 9162, sections 2.1.3.2 and 2.1.4.2


def node(left: bytes, right: bytes) -> bytes:
    """What two nodes hash to."""
    return hashlib.sha256(b"\x01" + left + right).digest()


def check_included(hash_: bytes, index: int, size: int, path: list[bytes], root: bytes) -> None:
    """Raise `Wrong` unless the path leads from the leaf to the root."""
    at, last, found = index, size - 1, hashlib.sha256(b"\x00" + hash_).digest()
    for beside in path:
        if last == 0:
            raise Wrong("the path is too long for the tree")
        if at & 1 or at == last:
            found = node(beside, found)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            found = node(found, beside)
        at, last = at >> 1, last >> 1
    if not 0 <= index < size or last or found != root:
        raise Wrong("the path does not lead from the event to the signed root: the event or the path was altered")


def check_continued(size: int, root: bytes, later: int, later_root: bytes, path: list[bytes]) -> None:
    """Raise `Wrong` unless the path shows that the tree is the beginning of the later one."""
    wrong = Wrong(f"the log of {later} events does not continue the one of {size}: its past was changed")
    if size in (0, later):
        expected = later_root if size else hashlib.sha256().digest()
        if path or root != expected:
            raise wrong
        return
    steps = path if size & (size - 1) else [root, *path]
    if not 0 < size < later or not steps:
        raise wrong
    at, last = size - 1, later - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    old = new = steps[0]
    for beside in steps[1:]:
        if last == 0:
            raise wrong
        if at & 1 or at == last:
            old, new = node(beside, old), node(beside, new)
            while not at & 1 and at:
                at, last = at >> 1, last >> 1
        else:
            new = node(new, beside)
        at, last = at >> 1, last >> 1
    if last or old != root or new != later_root:
        raise wrong


# MessagePack, as much of it as events are made of

HEADS: dict[int, tuple[str, str]] = {
    **{0xC4 + i: ("bytes", form) for i, form in enumerate((">B", ">H", ">I"))},
    **{
        0xCA + i: ("number", form)
        for i, form in enumerate((">f", ">d", ">B", ">H", ">I", ">Q", ">b", ">h", ">i", ">q"))
    },
    **{0xD9 + i: ("text", form) for i, form in enumerate((">B", ">H", ">I"))},
    **{0xDC + i: ("list", form) for i, form in enumerate((">H", ">I"))},
    **{0xDE + i: ("map", form) for i, form in enumerate((">H", ">I"))},
}


def unpacked(data: bytes, at: int) -> tuple[Any, int]:
    """The value that begins there, and where the next one does."""
    head, at = data[at], at + 1
    if head < 0x80 or head >= 0xE0:
        return (head if head < 0x80 else head - 0x100), at
    if 0xC0 <= head <= 0xC3 and head != 0xC1:
        return {0xC0: None, 0xC2: False, 0xC3: True}[head], at
    if head < 0xC0:
        kind = "map" if head < 0x90 else "list" if head < 0xA0 else "text"
        count: Any = head & (0x1F if kind == "text" else 0x0F)
    else:
        kind, form = HEADS[head]
        (count,) = struct.unpack_from(form, data, at)
        at += struct.calcsize(form)
    if kind == "number":
        return count, at
    if kind in ("text", "bytes"):
        if at + count > len(data):
            raise ValueError("it ends too early")
        part = data[at : at + count]
        return (part.decode() if kind == "text" else shown(part)), at + count
    values = []
    for _ in range(count * (2 if kind == "map" else 1)):
        value, at = unpacked(data, at)
        values.append(value)
    return (dict(zip(values[::2], values[1::2])) if kind == "map" else values), at


def shown(part: bytes) -> Any:
    """Bytes as the JSON that they are, or in hexadecimal."""
    try:
        return json.loads(part)
    except ValueError:
        return part.hex()


def content_of(data: bytes) -> str:
    """What an event says, for people."""
    try:
        value, end = unpacked(data, SALT_BYTES)
        if end == len(data):
            text = json.dumps(value, indent=2, ensure_ascii=False)
            return re.sub("[\x7f-\x9f]", lambda found: f"\\u{ord(found[0]):04x}", text)
    except (ValueError, KeyError, IndexError, TypeError, struct.error, RecursionError):
        pass
    return f"{len(data) - SALT_BYTES} bytes that are no MessagePack: {data[SALT_BYTES:].hex()}"


# Files

HEX = re.compile("[0-9a-f]{64}")
PROOF = {
    "object": str, "position": int, "stream": str, "version": int, "type": str, "recorded_us": int, "erased": bool,
    "data": (str, type(None)), "digest": bytes, "previous_hash": bytes, "hash": bytes, "path": list, "size": int,
    "key": str, "checkpoint": str,
}  # fmt: skip
CHECKPOINT = {
    "object": str, "size": int, "root": bytes, "timestamp": str, "key": str, "note": str, "since": (dict, type(None)),
}  # fmt: skip
SINCE = {"size": int, "root": bytes, "path": list}


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON in which no name comes twice."""
    if len(dict(pairs)) != len(pairs):
        raise Wrong("a name comes twice in the file")
    return dict(pairs)


def fields(value: Any, kinds: dict[str, Any]) -> dict[str, Any]:
    """The value, if it has these fields and no others; hashes as bytes."""
    if not isinstance(value, dict) or value.keys() != kinds.keys():
        raise Wrong(f"expected an object of these fields and no others: {', '.join(kinds)}")
    for name, kind in kinds.items():
        found = value[name]
        if kind is bytes:
            value[name] = hash_of(found, name)
        elif not isinstance(found, kind) or (kind is int and (isinstance(found, bool) or not 0 <= found < 2**63)):
            raise Wrong(f"'{name}' is not what it should be")
    if "path" in value:
        value["path"] = [hash_of(step, "path") for step in value["path"]]
    return value


def hash_of(value: Any, name: str) -> bytes:
    """A hash in hexadecimal."""
    if not isinstance(value, str) or not HEX.fullmatch(value):
        raise Wrong(f"'{name}' is no hash of 64 hexadecimal digits")
    return bytes.fromhex(value)


def read(path: str) -> str:
    """A file's text; of `-`, what is piped in."""
    with open(0 if path == "-" else path, "rb") as file:
        content = file.read(FILE_BYTES_MAX + 1)
    if len(content) > FILE_BYTES_MAX:
        raise Wrong(f"{path} is larger than {FILE_BYTES_MAX} bytes")
    return content.decode()


# What is proven


def event(value: Any, key: str) -> str:
    """What the proof of an event proves."""
    proof = fields(value, PROOF)
    log, size, root, when = checkpoint_of(proof["checkpoint"], key)
    if (size, key_of(proof["key"])) != (proof["size"], key_of(key)):
        raise Wrong("the proof names another size or another key than its checkpoint")
    data = None if proof["data"] is None else base64_of(proof["data"])
    if (data is None) != proof["erased"]:
        raise Wrong("the proof does not agree with itself whether the content was erased")
    if data is not None and hashlib.sha256(data).digest() != proof["digest"]:
        raise Wrong("the content is not the one that was recorded: its digest is another")
    stream, type_ = proof["stream"].encode(), proof["type"].encode()
    head = struct.pack(">QQQHH", proof["position"], proof["version"], proof["recorded_us"], len(stream), len(type_))
    chained = hashlib.sha256(proof["previous_hash"] + head + stream + type_ + proof["digest"]).digest()
    if chained != proof["hash"]:
        raise Wrong("the event is not the one that was recorded: its hash is another")
    check_included(proof["hash"], proof["position"] - 1, size, proof["path"], root)
    moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=proof["recorded_us"])
    said = (
        f"PROVEN: event {proof['position']} is in the log {log} of {size} events, which was signed for at {when}.\n"
        f"It is {proof['type']}, version {proof['version']} of {json.dumps(proof['stream'])}, recorded at "
        f"{moment.isoformat(timespec='microseconds')}Z by the server's clock.\n"
    )
    if data is None:
        return f"{said}Its content was erased: what is left of it is the digest {proof['digest'].hex()}."
    return f"{said}Its content:\n{content_of(data)}"


def log(value: Any, key: str, old: str | None) -> str:
    """What a checkpoint proves, alone and beside an older one."""
    found = fields(value, CHECKPOINT)
    name, size, root, when = checkpoint_of(found["note"], key)
    told = (found["size"], found["root"], found["timestamp"], key_of(found["key"]))
    if told != (size, root, when, key_of(key)):
        raise Wrong("what stands beside the signed note does not agree with it")
    since = None if found["since"] is None else fields(found["since"], SINCE)
    if since:
        check_continued(since["size"], since["root"], size, root, since["path"])
    said = f"PROVEN: {name} has signed at {when} for a log of {size} events with the root {root.hex()}."
    if old is None:
        beginning = f"{since['size']} events with the root {since['root'].hex()}" if since else ""
        return f"{said}\nIt continues the log of {beginning}; give --old FILE to compare." if since else said
    _, old_size, old_root, old_when = checkpoint_of(old, key)
    if old_size == size and old_root == root:
        return f"{said}\nIt is the log of the checkpoint of {old_when}, with nothing added."
    if since is None or since["size"] != old_size:
        raise Wrong(f"the checkpoint holds no proof that it continues one of {old_size}: ask for ?since={old_size}")
    if since["root"] != old_root:
        raise Wrong(
            f"the first {old_size} events are not those that were signed for at {old_when}: the past was changed"
        )
    return (
        f"{said}\nIt continues the log that was signed for at {old_when}: nothing of its {old_size} events was changed."
    )


def note_in(text: str) -> str:
    """A checkpoint's note, of a file that is one, or holds one."""
    if not text.lstrip().startswith("{"):
        return text
    value = json.loads(text)
    note = value.get("note") or value.get("checkpoint")
    if not isinstance(note, str):
        raise Wrong("the old file holds no checkpoint")
    return note


def proven(value: Any, key: str, old: str | None) -> str:
    """What a file proves, beside an older checkpoint where there is one."""
    kind = value.get("object") if isinstance(value, dict) else None
    if kind == "audit.checkpoint":
        return log(value, key, old)
    if kind != "audit.proof":
        raise Wrong("expected the JSON of an audit.proof or an audit.checkpoint")
    if old is not None:
        raise Wrong("--old goes with a checkpoint, not with the proof of an event")
    return event(value, key)


def main() -> int:
    """Verify a file, and say what it proves."""
    parser = argparse.ArgumentParser(description="Verify a proof or a checkpoint of a turnlog server.")
    parser.add_argument("--key", required=True, help="the log's public key, NAME+ID+BASE64, from a source you trust")
    parser.add_argument("--old", help="a checkpoint that you have kept, which the new one must continue")
    parser.add_argument("file", help="what was answered; - for standard input")
    given = parser.parse_args()
    for stream in (sys.stdout, sys.stderr):
        getattr(stream, "reconfigure", lambda **_: None)(encoding="utf-8", errors="backslashreplace")
    try:
        value = json.loads(read(given.file), object_pairs_hook=once)
        said = proven(value, given.key, note_in(read(given.old)) if given.old else None)
    except (Wrong, OSError, ValueError, RecursionError, OverflowError, struct.error) as error:
        print(f"NOT PROVEN: {error}", file=sys.stderr)
        return 1
    try:
        print(said, flush=True)
    except BrokenPipeError:  # whoever reads has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
