"""Server-sent events, read: bytes in as they come, whole `data` payloads out.

Source: the event stream format of the HTML standard, of which model servers use the `data` field alone.
"""

from collections.abc import Iterator

EVENT_BYTES_MAX = 8_000_000


class EventTooLong(Exception):
    """An event that does not end."""


class EventReader:
    """Cuts a byte stream into the data of its events."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The data of every event that `piece` completes; raises `EventTooLong`."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in (line.removesuffix(b"\r") for line in lines):
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                yield b"\n".join(self._data)
                self._data.clear()
        if len(self._rest) + sum(map(len, self._data)) > EVENT_BYTES_MAX:
            raise EventTooLong(f"an event of more than {EVENT_BYTES_MAX} bytes")
