"""A Responses server's events as chat chunks, and its whole response as if it had been streamed.

Nothing is held back: what says something is passed on as it comes. Servers differ in how much of a response they
stream; what was not said by deltas is said when its item is done, and what by no item, at the end.
"""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import msgspec

from api.models.model import Choice, Chunk, ModelBroke, ModelGarbage
from api.models.response_parts import annotation_of, failure, finish_reason, logprobs_of, objects, texts_in, usage_of

_encode = msgspec.json.Encoder().encode

BETWEEN_MESSAGES = "\n\n"  # several messages of a response are one message in a chat


class Response(msgspec.Struct):
    """What is read of a response."""

    output: list[Any] | None = None
    status: Any = None
    error: Any = None
    incomplete_details: Any = None
    usage: Any = None
    model: Any = None
    service_tier: Any = None
    moderation: Any = None


class Event(msgspec.Struct):
    """What is read of an event."""

    type: str = ""
    delta: Any = None
    logprobs: Any = None
    output_index: int = 0
    content_index: int = 0
    summary_index: int = 0
    item: Any = None
    annotation: Any = None
    response: Response | None = None
    error: Any = None
    code: Any = None
    message: Any = None
    param: Any = None


class _Open(msgspec.Struct):
    """An item that has begun: the number of its call, what was said of it, where its parts begin in the text."""

    call: int = -1
    custom: bool = False
    said: set[str] = set()
    parts: dict[int, int] = {}
    annotations: int = 0


class Chunks:
    """Turns the events of one response into chunks; `has_ended` once the last of them came."""

    def __init__(self) -> None:
        self.has_ended = False
        self._model = ""
        self._has_begun = False
        self._open: dict[int, _Open] = {}
        self._calls = 0
        self._thoughts = 0
        self._summaries: dict[tuple[int, int], int] = {}
        self._characters = 0

    def of(self, event: Event) -> Iterator[Chunk]:
        """The chunks of the next event, which may be none. Raises `ModelError` where it is a failure."""
        handle = self._HANDLERS.get(event.type)
        if handle:
            yield from handle(self, event)
        elif event.error:
            raise failure(event.error)
        elif not event.type:
            raise ModelGarbage("the model server's stream holds what is not an event of a response")

    def whole(self, response: Response) -> Iterator[Chunk]:
        """The chunks of a response that came at once."""
        if not isinstance(response.output, list) and not response.error:
            raise ModelGarbage("the model server's answer is not a response: it has no output")
        return self._ended(Event(response=response))

    def _began(self, event: Event) -> Iterator[Chunk]:
        if event.response and isinstance(event.response.model, str):
            self._model = event.response.model
        return iter(())

    def _chunk(self, delta: dict[str, Any], finish: str | None = None, logprobs: Any = None) -> Chunk:
        if not self._has_begun:
            self._has_begun = True
            delta = {"role": "assistant"} | delta
        return Chunk(choices=[Choice(0, delta, finish, logprobs)], model=self._model)

    def _item(self, index: int) -> _Open:
        return self._open.setdefault(index, _Open(said=set(), parts={}))

    # What is said by deltas

    def _text(self, event: Event) -> Iterator[Chunk]:
        return self._say(event.output_index, event.content_index, _text_in(event), event.logprobs)

    def _say(self, index: int, part: int, text: str, logprobs: Any) -> Iterator[Chunk]:
        item = self._item(index)
        if self._characters and not item.parts:
            self._characters += len(BETWEEN_MESSAGES)
            yield self._chunk({"content": BETWEEN_MESSAGES})
        item.parts.setdefault(part, self._characters)
        item.said.add("content")
        self._characters += len(text)
        yield self._chunk({"content": text}, logprobs=logprobs_of(logprobs))

    def _refusal(self, event: Event) -> Iterator[Chunk]:
        self._item(event.output_index).said.add("refusal")
        yield self._chunk({"refusal": _text_in(event)})

    def _thought(self, event: Event) -> Iterator[Chunk]:
        self._item(event.output_index).said.add("thought")
        yield self._chunk({"reasoning_content": _text_in(event)})

    def _summary(self, event: Event) -> Iterator[Chunk]:
        yield self._summarised(event.output_index, event.summary_index, _text_in(event))

    def _summarised(self, index: int, part: int, text: str) -> Chunk:
        self._item(index).said.add("summary")
        place = self._summaries.setdefault((index, part), len(self._summaries))
        return self._chunk({"reasoning_summary": [{"index": place, "text": text}]})

    def _input(self, event: Event) -> Iterator[Chunk]:
        item = self._item(event.output_index)
        if item.call >= 0:  # of one that was not announced, all is said when it is done
            yield self._called(item, _text_in(event))

    def _called(self, item: _Open, text: str) -> Chunk:
        item.said.add("input")
        piece = {"custom": {"input": text}} if item.custom else {"function": {"arguments": text}}
        return self._chunk({"tool_calls": [{"index": item.call, **piece}]})

    def _annotated(self, event: Event) -> Iterator[Chunk]:
        item = self._item(event.output_index)
        item.annotations += 1
        annotation = annotation_of(event.annotation, item.parts.get(event.content_index, self._characters))
        if annotation:
            yield self._chunk({"annotations": [annotation]})

    # Items

    def _added(self, event: Event) -> Iterator[Chunk]:
        if isinstance(event.item, dict):
            yield from self._opened(self._item(event.output_index), event.item)

    def _opened(self, item: _Open, said: dict[str, Any]) -> Iterator[Chunk]:
        if item.call >= 0 or said.get("type") not in ("function_call", "custom_tool_call"):
            return
        item.custom = said["type"] == "custom_tool_call"
        item.call, self._calls = self._calls, self._calls + 1
        kind, text = ("custom", "input") if item.custom else ("function", "arguments")
        called = {kind: {"name": _string(said.get("name")), text: ""}}
        call_id = _string(said.get("call_id") or said.get("id"))
        yield self._chunk({"tool_calls": [{"index": item.call, "id": call_id, "type": kind, **called}]})

    def _done(self, event: Event) -> Iterator[Chunk]:
        if not isinstance(event.item, dict):
            return
        match event.item.get("type"):
            case "message":
                yield from self._message_done(event.output_index, event.item)
            case "reasoning":
                yield from self._reasoning_done(event.output_index, event.item)
            case "function_call" | "custom_tool_call":
                item = self._item(event.output_index)
                yield from self._opened(item, event.item)
                text = _string(event.item.get("input" if item.custom else "arguments"))
                if text and "input" not in item.said:
                    yield self._called(item, text)

    def _message_done(self, index: int, said: dict[str, Any]) -> Iterator[Chunk]:
        item = self._item(index)
        was_said, annotations = frozenset(item.said), 0
        for place, part in enumerate(objects(said.get("content"))):
            text, refused = _string(part.get("text")), _string(part.get("refusal"))
            if text and "content" not in was_said:
                yield from self._say(index, place, text, part.get("logprobs"))
            if refused and "refusal" not in was_said:
                yield self._chunk({"refusal": refused})
            for annotation in objects(part.get("annotations")):
                annotations += 1
                if annotations > item.annotations:
                    yield from self._annotated(Event(output_index=index, content_index=place, annotation=annotation))

    def _reasoning_done(self, index: int, said: dict[str, Any]) -> Iterator[Chunk]:
        was_said = frozenset(self._item(index).said)
        for text in texts_in(said.get("content")) if "thought" not in was_said else ():
            yield self._chunk({"reasoning_content": text})
        for part, text in enumerate(texts_in(said.get("summary"))) if "summary" not in was_said else ():
            yield self._summarised(index, part, text)
        place, self._thoughts = self._thoughts, self._thoughts + 1
        yield self._chunk({"reasoning_items": [{"index": place, **said}]})

    # The end

    def _ended(self, event: Event) -> Iterator[Chunk]:
        self.has_ended = True
        response = event.response or Response()
        status = response.status or event.type.removeprefix("response.")
        if response.error or status == "failed":
            raise failure(response.error or "it gave no reason")
        if status in ("cancelled", "queued", "in_progress"):
            raise ModelBroke(f"the model server left its response {status}")
        yield from self._began(event)
        if not self._open:
            for index, item in enumerate(response.output or ()):
                yield from self._done(Event(output_index=index, item=item))
        last = self._chunk({}, finish_reason(status, response.incomplete_details, has_calls=self._calls > 0))
        last.service_tier = _string(response.service_tier) or None
        last.moderation = response.moderation
        yield last
        if usage := usage_of(response.usage):
            yield Chunk(usage=msgspec.Raw(_encode(usage)), model=self._model)

    def _failed(self, event: Event) -> Iterator[Chunk]:
        response = event.response or Response()
        raise failure(response.error or event.error or (event.message and _told(event)) or "it gave no reason")

    _HANDLERS: ClassVar[dict[str, Callable[["Chunks", Event], Iterator[Chunk]]]] = {
        "response.created": _began,
        "response.in_progress": _began,
        "response.output_text.delta": _text,
        "response.output_text.annotation.added": _annotated,
        "response.refusal.delta": _refusal,
        "response.reasoning_text.delta": _thought,
        "response.reasoning_summary_text.delta": _summary,
        "response.function_call_arguments.delta": _input,
        "response.custom_tool_call_input.delta": _input,
        "response.output_item.added": _added,
        "response.output_item.done": _done,
        "response.completed": _ended,
        "response.incomplete": _ended,
        "response.failed": _failed,
        "response.cancelled": _failed,
        "error": _failed,
    }


def _told(event: Event) -> dict[str, Any]:
    return {"message": event.message, "code": event.code, "param": event.param}


def _text_in(event: Event) -> str:
    if not isinstance(event.delta, str):
        raise ModelGarbage("the model server's stream holds a delta that is no text")
    return event.delta


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""
