"""Servers to compare with. Started by its path, with what it should be; each says its address as turnlog does.

`bare`      a handler on aiohttp and uvloop that decodes a small JSON body and encodes a small JSON answer
`turnlog`   the same handler as a route of turnlog's own server: request ids, keys, log lines, and no turn
`appends`   a bare handler that makes two durable appends to the log and nothing else: what two commits cost
`model`     a model server that streams the same answer at once, as fast as it can
"""

import asyncio
import contextlib
import gc
import os
import signal
import sys
from functools import partial
from pathlib import Path

import click
import msgspec
import uvloop
from aiohttp import web

from api.app import make_app
from api.connections import Runner
from api.ids import new_id
from api.settings import Settings
from eventstore.events import TurnCompleted, TurnStarted
from eventstore.log import EventLog
from eventstore.sqlite import SqliteLog
from tools import logs
from tools.options import GC_THRESHOLD


class _Message(msgspec.Struct):
    role: str
    content: str


class _Request(msgspec.Struct):
    model: str
    messages: list[_Message]


class _Answer(msgspec.Struct):
    model: str
    said: str


PATH = "/bench/nothing"
MODEL_PATH = "/v1/chat/completions"
WORDS = 10
_versions: dict[str, int] = {}

_decode = msgspec.json.Decoder(_Request).decode
_encode = msgspec.json.Encoder().encode


async def handle(request: web.Request) -> web.Response:
    """Say what was said."""
    asked = _decode(await request.read())
    return web.Response(body=_encode(_Answer(asked.model, asked.messages[-1].content)), content_type="application/json")


async def handle_with_two_appends(log: EventLog, request: web.Request) -> web.Response:
    """Record what was said, and that it was answered, to a stream of its own connection."""
    body = await request.read()
    stream = f"lineage/bench/{id(request.transport)}"
    version = _versions.get(stream, 0)
    turn_id = new_id()
    item = msgspec.json.encode(_decode(body).messages[-1])
    started = TurnStarted(turn_id=turn_id, api="chat", model="m", items=(item,), owner="bench", lease_ms=1)
    await log.append(stream, version, (started,))
    await log.append(stream, version + 1, (TurnCompleted(turn_id=turn_id, output=(item,), finish_reason="stop"),))
    _versions[stream] = version + 2
    return await handle(request)


async def handle_as_model(request: web.Request) -> web.StreamResponse:
    """Stream an answer, a word a chunk."""
    await request.read()
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for _ in range(WORDS):
        await response.write(_chunk({"delta": {"content": "word "}}))
    await response.write(_chunk({"delta": {}, "finish_reason": "stop"}) + b"data: [DONE]\n\n")
    return response


def _chunk(choice: dict[str, object]) -> bytes:
    chunk = {
        "id": "c",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0} | choice],
    }
    return b"data: " + _encode(chunk) + b"\n\n"


async def serve(what: str, data: Path) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with contextlib.AsyncExitStack() as parts:
        runner = await _runner(what, data, parts)
        await runner.setup()
        parts.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        click.echo(f"{what} serves http://{host}:{port}")
        await stop.wait()


async def _runner(what: str, data: Path, parts: contextlib.AsyncExitStack) -> web.AppRunner:
    if what == "turnlog":
        logs.configure()
        app = make_app(Settings(data=data, api_key=os.environ["TURNLOG_API_KEY"], default_model="m"))
        app.router.add_post(PATH, handle)
        return Runner(app, access_log=None, handler_cancellation=True)
    app = web.Application()
    if what == "appends":
        log = await SqliteLog.open(data)
        parts.push_async_callback(log.close)
        app.router.add_post(PATH, partial(handle_with_two_appends, log))
    elif what == "model":
        app.router.add_post(MODEL_PATH, handle_as_model)
    else:
        app.router.add_post(PATH, handle)
    return web.AppRunner(app, access_log=None)


if __name__ == "__main__":
    gc.set_threshold(GC_THRESHOLD)
    uvloop.run(serve(sys.argv[1], Path(sys.argv[2])))
