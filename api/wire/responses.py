"""Responses on the wire: what a request holds."""

import msgspec

from api.problem import Problem
from api.turns.request import Names, TurnRequest
from api.wire.decode import body_of, digest_of, encode, rest_of
from api.wire.headers import CHARACTERS_MAX, UNPRINTABLE, Continuity
from api.wire.item_checks import InputItem, items_of
from api.wire.parameters import ContextManagement, Parameters, check_parameters
from api.wire.unpacked import Unpacked


class ConversationRef(msgspec.Struct):
    """A conversation, named as an object."""

    id: str


class ResponsesRequest(Parameters, kw_only=True):
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


_decoder = msgspec.json.Decoder(ResponsesRequest)
OURS = frozenset(
    {
        *("input", "model", "instructions", "previous_response_id", "conversation", "conversation_history"),
        *("store", "stream", "background"),
    }
)


def decode(body: bytes) -> ResponsesRequest:
    """The request in `body`; raises `Problem`."""
    request = body_of(_decoder, body)
    if request.background and request.store is False:
        raise Problem(
            "A background response is always stored: that is how it is found again. Leave 'store' out.",
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
    check_parameters(request, streams=bool(request.stream))


def turn_request(request: ResponsesRequest, body: bytes, tenant: str, headers: Continuity) -> TurnRequest:
    """The turn that a Responses request asks for; raises `Problem`.

    With a session header, what is new is what stands behind the input's last item from a model, as in a chat; without
    any name, what stands behind the last such item of all that is sent, and the rest is a history that may be known. By
    the other names the whole input is new: that is what they are for.
    """
    if isinstance(request.input, str) and not request.input.strip():
        raise Problem("input must not be empty.", param="input", code="empty_message")
    unpacked = Unpacked()
    items = items_of(request.input, "input", unpacked)
    if all(item.type == "reasoning" for _, item in items):
        raise Problem("No user message found in input.", param="input", code="empty_input")
    history = items_of(request.conversation_history or [], "conversation_history", unpacked)
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
        background=bool(request.background),
        compact_threshold_tokens=_compact_threshold(request.context_management),
        session_key=headers.session_key,
        identity=headers.identity,
        uses_memory=headers.uses_memory,
        idempotency_key=headers.idempotency_key,
        body_digest=digest_of(body) if headers.idempotency_key else b"",
        history=len(opening) - len(new) if is_nameless and new else 0,
    )


def checked_items(items: list[msgspec.Raw], param: str) -> tuple[bytes, ...]:
    """Items as they are stored, whichever route they came by; raises `Problem`."""
    return tuple(data for data, _ in items_of(items, param))


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


def _behind_model(items: list[tuple[bytes, InputItem]]) -> list[tuple[bytes, InputItem]]:
    from_model = [index for index, (_, item) in enumerate(items) if item.is_from_model]
    return items[from_model[-1] + 1 :] if from_model else items
