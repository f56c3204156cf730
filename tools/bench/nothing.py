"""A server that does nothing: the most that a handler on aiohttp and uvloop could ever reach on this machine.

It decodes a small JSON body and encodes a small JSON answer. Started by its path; says its address as turnlog does.
"""

import asyncio
import signal

import click
import msgspec
import uvloop
from aiohttp import web


class _Message(msgspec.Struct):
    role: str
    content: str


class _Request(msgspec.Struct):
    model: str
    messages: list[_Message]


class _Answer(msgspec.Struct):
    model: str
    said: str


_decode = msgspec.json.Decoder(_Request).decode
_encode = msgspec.json.Encoder().encode


async def handle(request: web.Request) -> web.Response:
    """Say what was said."""
    asked = _decode(await request.read())
    return web.Response(body=_encode(_Answer(asked.model, asked.messages[-1].content)), content_type="application/json")


async def serve() -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    click.echo(f"nothing serves http://{host}:{port}")
    await stop.wait()
    await runner.cleanup()


if __name__ == "__main__":
    uvloop.run(serve())
