"""What a row of the log holds: the event in it, or what is wrong with it."""

import contextlib
from collections.abc import Iterable, Iterator

import msgspec

from eventstore.chain import DIGEST_BYTES, SALT_BYTES, BrokenChain, Row, is_erased
from eventstore.events import Erased, decode, why_not
from eventstore.log import LogDamaged, LogError, LogUnreadable, Recorded


def decoded(rows: Iterable[Row]) -> list[Recorded]:
    """The events in the rows; raises `LogUnreadable` or `LogDamaged` for the first that can not be read."""
    try:
        return [
            Recorded(
                *(position, stream, version, recorded_us),
                Erased(kind=type_) if len(data) == DIGEST_BYTES else decode(data[SALT_BYTES:]),
                hash_,
            )
            for position, stream, version, type_, recorded_us, data, hash_ in rows
        ]
    except (msgspec.DecodeError, TypeError):
        raise _unreadable(rows) from None


def _unreadable(rows: Iterable[Row]) -> LogError:
    """Which of the rows can not be read, and what it would take."""
    for position, _, _, type_, _, data, _ in rows:
        try:
            reason = None if is_erased(data) else why_not(type_, data[SALT_BYTES:])
        except TypeError:
            return LogDamaged(position, "the row does not hold an event")
        if reason:
            return LogUnreadable(position, reason)
    raise AssertionError("every row decodes, and one did not")


@contextlib.contextmanager
def undamaged() -> Iterator[None]:
    """A broken chain, as the log's error."""
    try:
        yield
    except BrokenChain as error:
        raise LogDamaged(error.position, error.reason) from error
