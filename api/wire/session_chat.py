"""A session's own chat on the wire: one message in, one answer or named events out."""

import time
from typing import Any, Literal

import msgspec

from api.models.model import NULL, Chunk
from api.problem import Problem
from api.turns.open_turn import LiveTurn
from api.turns.request import Names, TurnRequest
from api.wire.checks import Part, check_content
from api.wire.decode import body_of, digest_of, encode
from api.wire.frames import frame
from api.wire.headers import Continuity
from api.wire.items import string_of
from eventstore.events import TurnCompleted
from projections.messages import chat_content, fields
from projections.turn import Turn
from projections.usage import tokens_of


class SessionChatRequest(msgspec.Struct):
    """A turn's message. Whatever else a body holds is passed over, as the older system does."""

    message: msgspec.Raw = msgspec.field(default_factory=lambda: NULL)  # a default that can be described
    input: msgspec.Raw = msgspec.field(default_factory=lambda: NULL)
    system_message: Any = None
    instructions: Any = None
    model: str | None = None
    user: str | None = None


_decoder = msgspec.json.Decoder(SessionChatRequest)
_content_decoder = msgspec.json.Decoder(str | list[Part])
_decode_any = msgspec.json.Decoder().decode
_NOTHING = (b"null", b'""', b"[]")


def decode(body: bytes) -> SessionChatRequest:
    """The request in `body`; raises `Problem`."""
    return body_of(_decoder, body)


def turn_request(
    asked: SessionChatRequest, body: bytes, tenant: str, session_id: str, headers: Continuity, *, stream: bool
) -> TurnRequest:
    """The turn that a request asks for in the session of that id; raises `Problem`."""
    item = b'{"role":"user","content":%b}' % _content(asked)
    return TurnRequest(
        tenant=tenant,
        api="chat",
        route="session_chat",
        names=Names(session_id=session_id),
        must_exist=True,
        model=asked.model or "",
        items=(item,),
        opening=(item,),
        instructions=_instructions(asked),
        stream=stream,
        session_key=headers.session_key,
        identity=headers.identity,
        idempotency_key=headers.idempotency_key,
        body_digest=digest_of(body) if headers.idempotency_key else b"",
    )


def _content(asked: SessionChatRequest) -> bytes:
    for name, content in (("message", bytes(asked.message)), ("input", bytes(asked.input))):
        if content not in _NOTHING:
            checked = body_of(_content_decoder, content, name)
            check_content(checked, name, is_required=True)
            return content if isinstance(checked, str) else encode(chat_content(_decode_any(content)))
    raise Problem("Missing 'message' field", param="message", code="missing_message")


def _instructions(asked: SessionChatRequest) -> tuple[bytes, ...]:
    name = "system_message" if asked.system_message else "instructions"
    text = getattr(asked, name)
    if text is not None and not isinstance(text, str):
        raise Problem(f"{name} must be a string", param=name, code="invalid_system_message")
    return (encode({"role": "system", "content": text}),) if text else ()


class Usage(msgspec.Struct):
    """What the turn cost."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class SessionAnswer(msgspec.Struct):
    """A whole answer."""

    object: Literal["hermes.session.chat.completion"]
    session_id: str
    message: dict[str, Any]
    usage: Usage


def session_answer(turn: Turn, session_id: str) -> SessionAnswer:
    """A completed turn as the session's answer."""
    return SessionAnswer("hermes.session.chat.completion", session_id, _said(turn), _usage(turn))


def _said(turn: Turn) -> dict[str, Any]:
    """What the model said, in words that every client can show; with the tools that it wants called, if any."""
    done = turn.ended
    message = fields(done.output[0]) if isinstance(done, TurnCompleted) and done.output else {}
    said: dict[str, Any] = {"role": "assistant", "content": _words(message.get("content"))}
    calls = message.get("tool_calls")
    return said | {"tool_calls": calls} if calls else said


def _words(content: Any) -> str:
    if isinstance(content, list):
        return "".join(string_of(part.get("text")) for part in content if isinstance(part, dict))
    return string_of(content)


def _usage(turn: Turn) -> Usage:
    tokens = tokens_of(turn.ended.usage if isinstance(turn.ended, TurnCompleted) else b"")
    return Usage(tokens.input, tokens.output, tokens.input + tokens.output)


class SessionStream:
    """Writes the named events of one turn. Each tells its session, its run, its number from 1, and when it was sent."""

    def __init__(self, opened: LiveTurn) -> None:
        self._turn = opened.turn
        self._session_id = opened.session_id
        self._message_id = f"msg_{opened.turn.turn_id}"
        self._seq = 0

    def opening(self) -> bytes:
        """The two events that come before any output."""
        user_message = {"role": "user", "content": fields(self._turn.started.items[0]).get("content")}
        started = self._event("run.started", user_message=user_message)
        return started + self._event("message.started", message={"id": self._message_id, "role": "assistant"})

    def piece(self, chunk: Chunk) -> bytes:
        """What the next chunk of the model's answer brings: its text. Tools are told of when they are whole."""
        texts = (string_of(choice.delta.get("content")) for choice in chunk.choices if choice.index == 0)
        return b"".join(
            self._event("assistant.delta", message_id=self._message_id, delta=text) for text in texts if text
        )

    def ending(self, turn: Turn) -> bytes:
        """The end of a turn that is durable."""
        said = _said(turn)
        calls = said.get("tool_calls")
        tools = (
            b"".join(self._tool(call) for call in calls if isinstance(call, dict)) if isinstance(calls, list) else b""
        )
        how = {"completed": True, "partial": turn.status == "incomplete", "interrupted": False}
        completed = self._event("assistant.completed", message_id=self._message_id, content=said["content"], **how)
        run = {"message_id": self._message_id, "completed": True, "messages": [said], "usage": _usage(turn)}
        return tools + completed + self._event("run.completed", **run) + self._event("done")

    def failing(self, problem: Problem) -> bytes:
        """The end of one that failed after the stream had begun."""
        return self._event("error", message=problem.message, code=problem.code) + self._event("done")

    def _tool(self, call: dict[str, Any]) -> bytes:
        """A tool that the model wants called; whether it is, and what comes of it, is the client's."""
        called = call.get("function") or call.get("custom")
        called = called if isinstance(called, dict) else {}
        text = string_of(called.get("arguments")) or string_of(called.get("input"))
        args = fields(text.encode(errors="replace")) or None
        name = string_of(called.get("name"))
        return self._event("tool.started", message_id=self._message_id, tool_name=name, preview=text or None, args=args)

    def _event(self, name: str, **payload: Any) -> bytes:
        self._seq += 1
        run_id = f"run_{self._turn.turn_id}"
        stamp = {"session_id": self._session_id, "run_id": run_id, "seq": self._seq, "ts": time.time()}
        return frame(payload | stamp, name)
