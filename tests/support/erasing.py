"""A session that holds every kind of content, each with a needle of its own; and a scan for needles in a directory."""

import re
from pathlib import Path
from typing import Any

import msgspec

from eventstore.events import CompressionRotated
from tests.support.api import call, record
from tests.support.server import Server
from tests.support.upstream import Upstream, calls, says

TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
KINDS = (
    *("input", "output", "instructions", "metadata", "title", "renamed", "systemprompt", "arguments", "tooloutput"),
    *("conversationnotes", "queued", "partial", "summary", "idempotency", "user", "username", "key", "responsenotes"),
    *("added", "unheard"),
)


def needle(kind: str, tag: str) -> str:
    """The word that stands for a kind of content of the session with that tag, and occurs nowhere else."""
    return f"Zq{kind.capitalize()}{tag.capitalize()}"


def needles(tag: str) -> set[str]:
    """All of them."""
    return {needle(kind, tag) for kind in KINDS}


def found(directory: Path, tag: str) -> set[str]:
    """Those that some file in the directory holds, in whatever case."""
    contents = [file.read_bytes().lower() for file in directory.rglob("*") if file.is_file()]
    wanted = {word.lower().encode(): word for word in needles(tag)}
    return {word for low, word in wanted.items() if any(re.search(low, content) for content in contents)}


def headers(tag: str) -> dict[str, str]:
    """Of all its turns."""
    return {
        "X-Hermes-Session-Id": tag,
        "X-Hermes-Session-Key": needle("key", tag),
        "X-Hermes-User-Id": needle("user", tag),
        "X-Hermes-User-Name": needle("username", tag),
    }


async def fill(server: Server, upstream: Upstream, tag: str) -> None:
    """A session called `tag`, its conversation `slug-TAG`, and everything that can be said in it."""

    def word(kind: str) -> str:
        return needle(kind, tag)

    async def chat(*messages: dict[str, Any], more: dict[str, str] | None = None, **body: Any) -> None:
        body = {"model": "m", "messages": messages} | body
        await call(server, "POST", "/v1/chat/completions", 200, json=body, headers=headers(tag) | (more or {}))

    made = {
        "id": tag,
        "title": word("title"),
        "system_prompt": word("systemprompt"),
        "metadata": {"k": word("metadata")},
    }
    await call(
        server, "POST", "/api/sessions", 201, json=made, headers={k: v for k, v in headers(tag).items() if "Key" in k}
    )
    upstream.script = lambda _: says(word("output"))
    system, user = {"role": "system", "content": word("instructions")}, {"role": "user", "content": word("input")}
    await chat(
        system, user, more={"Idempotency-Key": word("idempotency")}, store=True, metadata={"r": word("responsenotes")}
    )
    upstream.script = lambda _: calls("look", msgspec.json.encode({"at": word("arguments")}).decode())
    await chat({"role": "user", "content": "look it up"}, tools=TOOLS)
    upstream.script = lambda _: says("found")
    await chat({"role": "tool", "tool_call_id": "call_1", "content": word("tooloutput")}, tools=TOOLS)
    await call(server, "PATCH", f"/api/sessions/{tag}", 200, json={"title": word("renamed")})
    await _partial(server, upstream, tag)
    await _converse(server, upstream, tag)
    rotated = CompressionRotated(
        old_session_id=tag,
        session_id=f"{tag}-2",
        summary=msgspec.json.encode({"role": "user", "content": word("summary")}),
        head=1,
        tail=1,
        trigger="manual",
        tokens_before=9,
        tokens_after=1,
        summariser="m",
    )
    await record(server, tag, [rotated])


async def _partial(server: Server, upstream: Upstream, tag: str) -> None:
    """A turn whose client hangs up in the middle."""
    upstream.script = lambda _: says(f"{needle('partial', tag)} two three four")
    upstream.stream_gate_after = 3
    upstream.gate.clear()
    body = {"model": "m", "messages": [{"role": "user", "content": needle("unheard", tag)}], "stream": True}
    async with server.http.post("/v1/chat/completions", json=body, headers=headers(tag)) as response:
        received = b""
        while b'" two"' not in received:
            received += await response.content.readline()
    upstream.gate.set()
    upstream.stream_gate_after = None


async def _converse(server: Server, upstream: Upstream, tag: str) -> None:
    """A conversation of the session with notes and added items; and a response that was queued and never began."""
    upstream.script = lambda _: says("yes")
    slug = f"slug-{tag}"
    body = {"model": "m", "input": "hello", "conversation": slug}
    await call(server, "POST", "/v1/responses", 200, json=body, headers=headers(tag))
    notes = {"metadata": {"c": needle("conversationnotes", tag)}}
    await call(server, "POST", f"/v1/conversations/{slug}", 200, json=notes)
    items = {"items": [{"type": "message", "role": "user", "content": needle("added", tag)}]}
    await call(server, "POST", f"/v1/conversations/{slug}/items", 200, json=items)
    upstream.gate.clear()
    requests = len(upstream.requests)
    first = await call(server, "POST", "/v1/responses", 200, json=body | {"background": True})
    await upstream.wait_for_requests(requests + 1)
    behind = body | {"background": True, "input": needle("queued", tag)}
    queued = await call(server, "POST", "/v1/responses", 200, json=behind)
    assert queued["status"] == "queued"
    await call(server, "POST", f"/v1/responses/{queued['id']}/cancel", 200)
    upstream.gate.set()
    while (await server.get(f"/v1/responses/{first['id']}"))["status"] != "completed":
        pass
