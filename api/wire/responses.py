"""Responses on the wire: what a request holds."""

from typing import Any, Literal

import msgspec

from api.problem import Problem
from api.turns.request import Names, TurnRequest
from api.wire.checks import Count, Metadata, NamedTool, Part, Share, Temperature, Tool, TopLogprobs, check_content
from api.wire.decode import body_of, digest_of, encode, rest_of
from api.wire.headers import CHARACTERS_MAX, UNPRINTABLE, Continuity
from projections import compaction


class ConversationRef(msgspec.Struct):
    """A conversation, named as an object."""

    id: str


class ContextManagement(msgspec.Struct):
    """What is to be done when the context grows long: compaction, at so many tokens."""

    type: Literal["compaction"]
    compact_threshold: Count | None = None


class ResponsesRequest(msgspec.Struct):
    """The fields that are read or checked here. Whatever else a body holds is stored and passed on as it is."""

    input: str | list[msgspec.Raw]
    model: str | None = None
    instructions: str | None = None
    previous_response_id: str | None = None
    conversation: str | ConversationRef | None = None
    conversation_history: list[msgspec.Raw] | None = None
    store: bool | None = None
    stream: bool | None = False
    background: bool | None = False
    user: str | None = None
    metadata: Metadata | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    max_output_tokens: Count | None = None
    max_tool_calls: Count | None = None
    top_logprobs: TopLogprobs | None = None
    parallel_tool_calls: bool | None = None
    tools: list[Tool] | None = None
    tool_choice: str | NamedTool | None = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    truncation: str | None = None
    context_management: list[ContextManagement] | None = None
    service_tier: str | None = None


class _Item(msgspec.Struct):
    type: str = "message"
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[Part] | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    input: str | None = None
    output: str | list[Part] | None = None
    encrypted_content: str | None = None

    @property
    def is_from_model(self) -> bool:
        """Whether a model said it, as opposed to the client."""
        return self.role == "assistant" or self.type in ("function_call", "custom_tool_call", "reasoning", "compaction")


_decoder = msgspec.json.Decoder(ResponsesRequest)
_item_decoder = msgspec.json.Decoder(_Item)
OURS = frozenset(
    {
        *("input", "model", "instructions", "previous_response_id", "conversation", "conversation_history"),
        *("store", "stream", "background"),
    }
)
# What an item must have besides its type.
_REQUIRED = {
    "message": ("role", "content"),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
    "custom_tool_call": ("call_id", "name", "input"),
    "custom_tool_call_output": ("call_id", "output"),
    "reasoning": (),
    "compaction": ("encrypted_content",),
}
_TOOLS = ("function", "custom")


def decode(body: bytes) -> ResponsesRequest:
    """The request in `body`; raises `Problem`."""
    request = body_of(_decoder, body)
    if request.background:
        raise Problem(
            "Background responses are not available on this server: send background=false.",
            param="background",
            code="unsupported_parameter",
        )
    check(request)
    return request


def check(request: ResponsesRequest) -> None:
    """Refuse what a body can not ask for, whichever route it came by; raises `Problem`."""
    if request.conversation and request.previous_response_id:
        raise Problem(
            "Cannot use both 'conversation' and 'previous_response_id': send the one that names where to go on.",
            param="conversation",
            code="mutually_exclusive_parameters",
        )
    for index, tool in enumerate(request.tools or ()):
        if tool.type not in _TOOLS:
            raise Problem(
                f"Tools of type '{tool.type}' are not available here; use {' or '.join(_TOOLS)} tools.",
                param=f"tools[{index}].type",
                code="unsupported_tool",
            )


def turn_request(request: ResponsesRequest, body: bytes, tenant: str, headers: Continuity) -> TurnRequest:
    """The turn that a Responses request asks for; raises `Problem`.

    With a session header, what is new is what stands behind the input's last item from a model, as in a chat; without
    any name, what stands behind the last such item of all that is sent, and the rest is a history that may be known. By
    the other names the whole input is new: that is what they are for.
    """
    if isinstance(request.input, str) and not request.input.strip():
        raise Problem("input must not be empty.", param="input", code="empty_message")
    items = _items(request.input, "input")
    if all(item.type == "reasoning" for _, item in items):
        raise Problem("No user message found in input.", param="input", code="empty_input")
    history = _items(request.conversation_history or [], "conversation_history")
    names = Names(
        session_id=headers.session_id,
        conversation=_conversation(request.conversation),
        previous_response_id=request.previous_response_id or "",
    )
    is_nameless = names == Names()
    opening = [*history, *items]
    new = _behind_model(opening if is_nameless else items) if headers.session_id or is_nameless else items
    return TurnRequest(
        tenant=tenant,
        api="responses",
        names=names,
        model=request.model or "",
        items=tuple(data for data, _ in new),
        opening=tuple(data for data, _ in opening),
        instructions=_instructions(request.instructions),
        parameters=rest_of(body, OURS),
        stream=bool(request.stream),
        compact_threshold_tokens=_compact_threshold(request.context_management),
        session_key=headers.session_key,
        identity=headers.identity,
        uses_memory=headers.uses_memory,
        idempotency_key=headers.idempotency_key,
        body_digest=digest_of(body) if headers.idempotency_key else b"",
        history=len(opening) - len(new) if is_nameless and new else 0,
    )


def _compact_threshold(asked: list[ContextManagement] | None) -> int:
    """The least of the thresholds that the request names, in tokens; 0 where it names none."""
    return min((entry.compact_threshold for entry in asked or () if entry.compact_threshold), default=0)


def _conversation(conversation: str | ConversationRef | None) -> str:
    name = conversation.id if isinstance(conversation, ConversationRef) else conversation or ""
    if len(name) > CHARACTERS_MAX or UNPRINTABLE.search(name):
        raise Problem(
            f"conversation must be at most {CHARACTERS_MAX} characters, without control characters.",
            param="conversation",
            code="invalid_conversation",
        )
    return name


def _instructions(text: str | None) -> tuple[bytes, ...]:
    return (encode({"role": "system", "content": text}),) if text else ()


def _behind_model(items: list[tuple[bytes, _Item]]) -> list[tuple[bytes, _Item]]:
    from_model = [index for index, (_, item) in enumerate(items) if item.is_from_model]
    return items[from_model[-1] + 1 :] if from_model else items


def _items(input_: str | list[msgspec.Raw], param: str) -> list[tuple[bytes, _Item]]:
    raws = [msgspec.Raw(encode(input_))] if isinstance(input_, str) else input_
    return [_item(bytes(raw), f"{param}[{index}]") for index, raw in enumerate(raws) if raw != b'""']


def _item(data: bytes, where: str) -> tuple[bytes, _Item]:
    if data.startswith(b'"'):
        data = encode({"type": "message", "role": "user", "content": msgspec.Raw(data)})
    item = body_of(_item_decoder, data, where)
    required = _REQUIRED.get(item.type)
    if required is None:
        raise Problem(
            f"Items of type '{item.type}' are not taken here; known are {', '.join(_REQUIRED)}.",
            param=f"{where}.type",
            code="unsupported_item",
        )
    for field in required:
        if getattr(item, field) is None:
            raise Problem(
                f"Missing required parameter: '{where}.{field}'.",
                param=f"{where}.{field}",
                code="missing_required_parameter",
            )
    if item.type == "compaction" and not compaction.opened(item.encrypted_content):
        raise Problem(
            "This compaction was not made by turnlog, or did not arrive whole: send it as POST /v1/responses/compact "
            "gave it, or the conversation itself.",
            param=f"{where}.encrypted_content",
            code="invalid_encrypted_content",
        )
    check_content(item.content, f"{where}.content", is_required=item.role == "user")
    return data, item
