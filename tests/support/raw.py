"""Requests byte for byte: what aiohttp's client would not send."""

import asyncio
from collections.abc import Iterable
from typing import NamedTuple

from tests.support.server import KEY, Server

WAIT_S = 10.0
AUTHORIZATION = ("authorization", f"Bearer {KEY}".encode())


class RawAnswer(NamedTuple):
    """An answer; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


async def raw(
    server: Server, method: str, path: str, headers: Iterable[tuple[str, bytes]] = (), body: bytes = b""
) -> RawAnswer:
    """Send a request with our key on a connection of its own. Raises `TimeoutError` where the server hangs."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    length = ("content-length", b"%d" % len(body))
    named = (("host", b"x"), ("connection", b"close"), AUTHORIZATION, length, *headers)
    head = b"".join(b"%b: %b\r\n" % (name.encode(), value) for name, value in named)
    reader, writer = await asyncio.open_connection(host, int(port), limit=50_000_000)
    try:
        async with asyncio.timeout(WAIT_S):
            writer.write(f"{method} {path} HTTP/1.1\r\n".encode() + head + b"\r\n" + body)
            return _parsed(await reader.read())
    finally:
        writer.close()


def _parsed(data: bytes) -> RawAnswer:
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return RawAnswer(int(first.split()[1]), headers, body)
