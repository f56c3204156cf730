"""The lines of an export: a header, then one event a line, as JSON.

{"turnlog_export":1,"after":0,"previous_hash":"00…","until":2,"hash":"9f…"}
{"position":1,"stream":"lineage/default/s1","version":1,"type":"SessionStarted","recorded_us":1763…,"data":"…",
 "hash":"5a…","event":{"session_id":"s1",…}}

`data` are the stored bytes in Base64: 16 random bytes and the event's MessagePack, or, where it was erased, the 32
bytes of their digest. They and the other columns are the event: `event` says the same for people and `jq`, and is not
read again. The header tells what the lines follow and where they end, so that a file that was cut short is known.
"""

from typing import Annotated, Any

import msgspec

from api.wire.recorded import fields_of
from eventstore.chain import Row, is_erased
from eventstore.events import parse_stream, type_name
from eventstore.log import Head, LogUnreadable
from eventstore.rows import decoded

FORMAT = 1
LINE_BYTES_MAX = 512_000_000  # some four times what the largest answer of a model server makes
HEADER_BYTES_MAX = 1_000
INTEGER_MAX = 2**63 - 1
YEAR_9999_US = 253_402_300_799_999_999  # what RFC 3339 can show

_Integer = Annotated[int, msgspec.Meta(ge=0, le=INTEGER_MAX)]
_Hash = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the events of the file follow, and which is the last."""

    turnlog_export: int
    after: _Integer
    previous_hash: _Hash
    until: _Integer
    hash: _Hash

    @classmethod
    def of(cls, after: Head, until: Head) -> "Header":
        """The header of the events after one up to another."""
        return cls(FORMAT, after.position, after.hash.hex(), until.position, until.hash.hex())

    @property
    def follows(self) -> Head:
        """The event that the first of the file comes after."""
        return Head(self.after, bytes.fromhex(self.previous_hash))


class Excerpt(msgspec.Struct, frozen=True):
    """The header of one session's events: for reading, since a chain can not go on from a part of it."""

    turnlog_export: int
    tenant: str
    session: str


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """An event."""

    position: Annotated[int, msgspec.Meta(ge=1, le=INTEGER_MAX)]
    stream: str
    version: Annotated[int, msgspec.Meta(ge=1, le=INTEGER_MAX)]
    type: str
    recorded_us: Annotated[int, msgspec.Meta(ge=0, le=YEAR_9999_US)]
    data: bytes
    hash: _Hash
    event: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Shown(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A line as it is written; without `event` where nothing is shown of it."""

    position: int
    stream: str
    version: int
    type: str
    recorded_us: int
    data: bytes
    hash: str
    event: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET


class NotALine(Exception):
    """What stands in the file is not what should stand there."""


# What msgspec raises of bytes that are not JSON, not as expected, no text, or nested without end.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_encoder = msgspec.json.Encoder()
_lines = msgspec.json.Decoder(Line)


def encoded(row: Row, *, bare: bool) -> bytes:
    """The row as a line. Raises `LogUnreadable` where a newer turnlog stored it, unless it is `bare`."""
    position, stream, version, type_, recorded_us, data, hash_ = row
    event = msgspec.UNSET if bare or is_erased(data) else fields_of(decoded([row])[0])
    return _encoder.encode(_Shown(position, stream, version, type_, recorded_us, data, hash_.hex(), event)) + b"\n"


def encode_header(header: Header | Excerpt) -> bytes:
    """The first line."""
    return _encoder.encode(header) + b"\n"


def decode_header(line: bytes) -> Header:
    """What the first line says; raises `NotALine`."""
    try:
        found = msgspec.json.decode(line)
        format_ = found.get("turnlog_export") if isinstance(found, dict) else None
        if format_ is None:
            raise NotALine("not the header of a 'turnlog export'")
        if format_ != FORMAT:
            raise NotALine(f"an export of format {format_!r}; this turnlog reads {FORMAT}: use a newer turnlog")
        if "session" in found:
            raise NotALine("an excerpt of one session, for reading: export the log without --session to import it")
        return msgspec.convert(found, Header)
    except _UNREADABLE as error:
        raise NotALine(f"not the header of a 'turnlog export': {error}") from None


def decode(line: bytes) -> Row:
    """The row that a line holds; raises `NotALine` where it is none, or none that this turnlog can read."""
    try:
        found = _lines.decode(line)
    except _UNREADABLE as error:
        raise NotALine(f"not an event: {error}") from None
    row: Row = (
        *(found.position, found.stream, found.version, found.type, found.recorded_us, found.data),
        bytes.fromhex(found.hash),
    )
    _ensure_content(row)
    return row


def _ensure_content(row: Row) -> None:
    """Raise `NotALine` unless the row holds an event, under the name of its type and in a stream that can be."""
    stream, type_ = row[1], row[3]
    try:
        parse_stream(stream)
        event = decoded([row])[0].event
    except ValueError:
        raise NotALine(f"stream '{stream[:100]}': expected CATEGORY/TENANT/NAME") from None
    except LogUnreadable as error:
        raise NotALine(error.reason) from None
    if type_name(event) != type_:
        raise NotALine(f"type '{type_}', but the data holds a {type_name(event)}")
