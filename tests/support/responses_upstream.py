"""A model server for tests that speaks the Responses API: scripted like the other one, with the same replies.

What a reply's `message` says as a chat message, it says as items; where a test wants items and events of its own, it
gives `output` or `events`.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec

from tests.support.upstream import Message, Reply, Upstream, running

Item = dict[str, Any]

_STATUSES = {"length": "incomplete", "content_filter": "incomplete"}
_REASONS = {"length": "max_output_tokens", "content_filter": "content_filter"}


class Scripted(Reply, kw_only=True):
    """A reply in items: `output` as they are, or the `events` that a stream is to be, without their numbers."""

    output: Sequence[Item] | None = None
    events: Sequence[dict[str, Any]] | None = None


class ResponsesUpstream(Upstream):
    """The scripted server."""

    path = "/v1/responses"

    def messages_in(self, body: dict[str, Any]) -> list[Message]:
        """The input's items as chat messages, as far as they are text."""
        return [_message(item) for item in body["input"]]

    def answer_of(self, body: dict[str, Any], reply: Reply) -> dict[str, Any]:
        """A whole response."""
        return response(body, output_of(reply), reply)

    def frames_of(self, body: dict[str, Any], reply: Reply) -> tuple[list[bytes], bytes]:
        """What comes before the first delta of a stream, each delta, and what follows the last."""
        if isinstance(reply, Scripted) and reply.events is not None:
            return [sse(event) for event in reply.events], b""
        events = list(_events(body, reply))
        last_delta = max((at for at, event in enumerate(events) if event["type"].endswith(".delta")), default=0)
        pieces = [b""]
        for event in events[: last_delta + 1]:
            if event["type"].endswith(".delta"):
                pieces.append(b"")
            pieces[-1] += sse(event)
        return pieces, b"".join(map(sse, events[last_delta + 1 :]))


def scripted_responses_upstream() -> AbstractAsyncContextManager[ResponsesUpstream]:
    """A running scripted server."""
    return running(ResponsesUpstream())


def thinks(text: str, encrypted: str = "gAAA", item_id: str = "rs_1") -> Item:
    """A reasoning item."""
    summary = [{"type": "summary_text", "text": text}]
    return {"type": "reasoning", "id": item_id, "summary": summary, "encrypted_content": encrypted}


def speaks(text: str, item_id: str = "msg_1", **part: Any) -> Item:
    """A message item."""
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []} | part]
    return {"type": "message", "id": item_id, "role": "assistant", "status": "completed", "content": content}


def wants(name: str, arguments: str, call_id: str = "call_1") -> Item:
    """A function call."""
    call = {"type": "function_call", "id": f"fc_{call_id}", "call_id": call_id, "name": name, "arguments": arguments}
    return call | {"status": "completed"}


def response(body: dict[str, Any], output: Sequence[Item], reply: Reply) -> dict[str, Any]:
    """A response object."""
    reason = _REASONS.get(reply.finish_reason)
    return {
        "id": "resp_up",
        "object": "response",
        "created_at": 1,
        "model": body["model"],
        "status": _STATUSES.get(reply.finish_reason, "completed"),
        "incomplete_details": {"reason": reason} if reason else None,
        "error": None,
        "output": list(output),
        "usage": _usage(reply),
    }


def sse(event: Any) -> bytes:
    """A server-sent event; bytes are its payload as they are."""
    payload = event if isinstance(event, bytes) else msgspec.json.encode(event)
    return b"data: " + payload + b"\n\n"


def output_of(reply: Reply) -> list[Item]:
    """A reply's items."""
    if isinstance(reply, Scripted) and reply.output is not None:
        return list(reply.output)
    calls = [
        wants(call["function"]["name"], call["function"]["arguments"], call["id"])
        for call in reply.message.get("tool_calls") or ()
    ]
    text = reply.message.get("content")
    return ([speaks(text)] if text else []) + calls


def _events(body: dict[str, Any], reply: Reply) -> Iterator[dict[str, Any]]:
    output = output_of(reply)
    begun = response(body, [], reply) | {"status": "in_progress", "usage": None}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for index, item in enumerate(output):
        yield from ({"output_index": index, "item_id": item["id"]} | event for event in _item_events(item))
    whole = response(body, output, reply)
    yield {"type": f"response.{whole['status']}", "response": whole}
    yield {"type": "keepalive"}


def _item_events(item: Item) -> Iterator[dict[str, Any]]:
    opened: dict[str, Item] = {
        "message": {"content": []},
        "function_call": {"arguments": ""},
        "reasoning": {"summary": []},
    }
    yield {"type": "response.output_item.added", "item": item | opened[item["type"]] | {"status": "in_progress"}}
    if item["type"] == "message":
        text = item["content"][0]["text"]
        for number, word in enumerate(text.split(" ")):
            delta = f" {word}" if number else word
            yield {"type": "response.output_text.delta", "content_index": 0, "delta": delta, "logprobs": []}
        yield {"type": "response.output_text.done", "content_index": 0, "text": text}
    elif item["type"] == "function_call":
        half = len(item["arguments"]) // 2
        for part in (item["arguments"][:half], item["arguments"][half:]):
            yield {"type": "response.function_call_arguments.delta", "delta": part}
    else:
        for number, part in enumerate(item["summary"]):
            kind = "response.reasoning_summary_text.delta"
            yield {"type": kind, "summary_index": number, "delta": part["text"]}
    yield {"type": "response.output_item.done", "item": item}


def _usage(reply: Reply) -> dict[str, Any] | None:
    if reply.usage is None:
        return None
    return {
        "input_tokens": reply.usage["prompt_tokens"],
        "input_tokens_details": {"cached_tokens": 3},
        "output_tokens": reply.usage["completion_tokens"],
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": reply.usage["total_tokens"],
    }


def _message(item: Item) -> Message:
    content = item.get("content", item.get("output"))
    if isinstance(content, list):
        content = "".join(part.get("text") or "" for part in content)
    return {"role": item.get("role", item["type"]), "content": content}
