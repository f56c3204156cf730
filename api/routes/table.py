"""Every route of the server: one row each. What is not here is neither served nor described."""

from aiohttp import hdrs

from api.models.model import ModelInfo
from api.routes import (
    aside,
    audit,
    background_responses,
    chat,
    compress,
    conversation_items,
    conversations,
    description,
    desk,
    erasure,
    feed,
    prompts,
    response_items,
    responses,
    runs,
    search,
    service,
    session_chat,
    sessions,
    socket,
    stored_completions,
)
from api.routes.route import SWITCHED, Route
from api.wire import audit as audit_wire
from api.wire import chat as chat_wire
from api.wire import compress as compress_wire
from api.wire import conversations as conversations_wire
from api.wire import erasure as erasure_wire
from api.wire import feed as feed_wire
from api.wire import search as search_wire
from api.wire import session_chat as session_chat_wire
from api.wire import session_list, session_requests
from api.wire import sessions as sessions_wire
from api.wire import stored_completions as stored_wire
from api.wire.background_stream import STARTING_AFTER, STREAM
from api.wire.compaction import CompactedResponse, CompactRequest
from api.wire.headers import SESSION_ID
from api.wire.includes import INCLUDE
from api.wire.input_tokens import InputTokens, InputTokensRequest
from api.wire.item_list import PAGE, ItemList, Shown
from api.wire.lineage import LineageObject
from api.wire.moment import AS_OF
from api.wire.prompts import PromptObject
from api.wire.query import Parameter
from api.wire.response import ResponseObject
from api.wire.responses import ResponsesRequest
from api.wire.run_stream import LAST_EVENT_ID
from api.wire.runs import RunAnswer, RunRequest, RunStatus
from api.wire.service import Capabilities, Deleted, Health, ModelList

GET, POST, PATCH, DELETE = hdrs.METH_GET, hdrs.METH_POST, hdrs.METH_PATCH, hdrs.METH_DELETE

_AFTER_EVENT = Parameter(
    LAST_EVENT_ID, "The id of the last event that was seen.", {"type": "integer", "minimum": 0}, "header"
)
_OF_SESSION = Parameter(SESSION_ID, "The session that it belongs to.", {"type": "string", "maxLength": 256}, "header")

CHAT, RESPONSES, CONVERSATIONS = "Chat Completions", "Responses", "Conversations"
RUNS, SESSIONS, LOG, AUDIT, SERVICE = "Runs", "Sessions", "The log", "Audit", "The server"

_ITEMS = "/v1/conversations/{conversation_id}/items"

ROUTES: tuple[Route, ...] = (
    Route(SERVICE, GET, "/health", service.health, "health", answer=Health, is_open=True),
    Route(SERVICE, GET, "/v1/health", service.health, "health_v1", answer=Health, is_open=True),
    Route(SERVICE, GET, "/v1/models", service.models, "models", answer=ModelList),
    Route(SERVICE, GET, "/v1/models/{model:.+}", service.model, "model", answer=ModelInfo),
    Route(SERVICE, GET, "/v1/capabilities", service.capabilities, "capabilities", answer=Capabilities),
    Route(SERVICE, GET, "/openapi.json", description.openapi, "openapi", is_open=True),
    Route(SERVICE, GET, "/docs", description.docs, "docs", answers_html=True, is_open=True),
    Route(
        *(CHAT, POST, "/v1/chat/completions", chat.create, "chat_completions"),
        body=chat_wire.ChatRequest,
        answer=chat_wire.Completion,
        streams=True,
        takes_turns=True,
    ),
    Route(
        *(CHAT, GET, "/v1/chat/completions", stored_completions.list_, "stored_completions"),
        answer=stored_wire.CompletionList,
        parameters=(stored_wire.MODEL, *stored_wire.PAGE),
    ),
    Route(
        *(CHAT, GET, "/v1/chat/completions/{completion_id}", stored_completions.get, "stored_completion"),
        answer=stored_wire.StoredCompletion,
    ),
    Route(
        *(CHAT, POST, "/v1/chat/completions/{completion_id}", stored_completions.update, "stored_completion_update"),
        body=stored_wire.UpdateRequest,
        answer=stored_wire.StoredCompletion,
    ),
    Route(
        *(CHAT, DELETE, "/v1/chat/completions/{completion_id}", stored_completions.delete, "stored_completion_delete"),
        answer=Deleted,
    ),
    Route(
        *(CHAT, GET, "/v1/chat/completions/{completion_id}/messages", stored_completions.messages),
        name="stored_completion_messages",
        answer=stored_wire.MessageList,
        parameters=stored_wire.PAGE,
    ),
    Route(
        *(RESPONSES, POST, "/v1/responses", responses.create, "responses"),
        body=ResponsesRequest,
        answer=ResponseObject,
        streams=True,
        takes_turns=True,
    ),
    Route(
        *(RESPONSES, GET, "/v1/responses", socket.connect, "responses_websocket"),
        status=SWITCHED,
        parameters=(_OF_SESSION,),
    ),
    Route(
        *(RESPONSES, POST, "/v1/responses/compact", aside.compact, "responses_compact"),
        body=CompactRequest,
        answer=CompactedResponse,
        parameters=(_OF_SESSION,),
        only_asks=True,
    ),
    Route(
        *(RESPONSES, POST, "/v1/responses/input_tokens", aside.input_tokens, "responses_input_tokens"),
        body=InputTokensRequest,
        answer=InputTokens,
        parameters=(_OF_SESSION,),
        only_asks=True,
    ),
    Route(
        *(RESPONSES, GET, "/v1/responses/{response_id}", responses.get, "response"),
        answer=ResponseObject,
        streams=True,
        parameters=(STREAM.parameter, STARTING_AFTER, INCLUDE),
    ),
    Route(RESPONSES, DELETE, "/v1/responses/{response_id}", responses.delete, "response_delete", answer=Deleted),
    Route(
        *(RESPONSES, POST, "/v1/responses/{response_id}/cancel", background_responses.cancel, "response_cancel"),
        answer=ResponseObject,
    ),
    Route(
        *(RESPONSES, GET, "/v1/responses/{response_id}/input_items", response_items.list_, "response_input_items"),
        answer=ItemList,
        parameters=(*PAGE, INCLUDE),
    ),
    Route(
        *(CONVERSATIONS, GET, "/v1/conversations", conversations.list_, "conversations"),
        answer=conversations_wire.ConversationList,
        parameters=PAGE,
    ),
    Route(
        *(CONVERSATIONS, POST, "/v1/conversations", conversations.create, "conversation_create"),
        body=conversations_wire.CreateConversation,
        needs_body=False,
        answer=conversations_wire.ConversationObject,
    ),
    Route(
        *(CONVERSATIONS, GET, "/v1/conversations/{conversation_id}", conversations.get, "conversation"),
        answer=conversations_wire.ConversationObject,
    ),
    Route(
        *(CONVERSATIONS, POST, "/v1/conversations/{conversation_id}", conversations.update, "conversation_update"),
        body=conversations_wire.UpdateConversation,
        answer=conversations_wire.ConversationObject,
    ),
    Route(
        *(CONVERSATIONS, DELETE, "/v1/conversations/{conversation_id}", conversations.delete, "conversation_delete"),
        answer=Deleted,
    ),
    Route(
        *(CONVERSATIONS, GET, _ITEMS, conversation_items.list_, "conversation_items"),
        answer=ItemList,
        parameters=(*PAGE, INCLUDE),
    ),
    Route(
        *(CONVERSATIONS, POST, _ITEMS, conversation_items.create, "conversation_items_create"),
        body=conversations_wire.CreateItems,
        answer=ItemList,
        parameters=(INCLUDE,),
    ),
    Route(
        *(CONVERSATIONS, GET, f"{_ITEMS}/{{item_id}}", conversation_items.get, "conversation_item"),
        answer=Shown,
        parameters=(INCLUDE,),
    ),
    Route(
        *(CONVERSATIONS, DELETE, f"{_ITEMS}/{{item_id}}", conversation_items.delete, "conversation_item_delete"),
        answer=conversations_wire.ConversationObject,
    ),
    Route(
        *(RUNS, POST, "/v1/runs", runs.create, "runs"),
        body=RunRequest,
        answer=RunAnswer,
        status=202,
        takes_turns=True,
    ),
    Route(RUNS, GET, "/v1/runs/{run_id}", runs.get, "run_status", answer=RunStatus),
    Route(
        *(RUNS, GET, "/v1/runs/{run_id}/events", runs.events, "run_events"), streams=True, parameters=(_AFTER_EVENT,)
    ),
    Route(RUNS, POST, "/v1/runs/{run_id}/stop", runs.stop, "run_stop", answer=RunAnswer),
    Route(
        *(SESSIONS, GET, "/api/sessions", sessions.list_, "sessions"),
        answer=sessions_wire.SessionList,
        parameters=(*session_list.PAGE, AS_OF.parameter),
    ),
    Route(
        *(SESSIONS, POST, "/api/sessions", desk.create, "session_create"),
        body=session_requests.CreateRequest,
        answer=sessions_wire.OneSession,
        status=201,
    ),
    Route(
        *(SESSIONS, GET, "/api/sessions/search", search.search, "session_search"),
        answer=search_wire.SearchResults,
        parameters=(search_wire.WORDS, search_wire.LIMIT.parameter, search_wire.OFFSET.parameter),
    ),
    Route(
        *(SESSIONS, GET, "/api/sessions/{session_id}", sessions.get, "session"),
        answer=sessions_wire.OneSession,
        parameters=(AS_OF.parameter,),
    ),
    Route(
        *(SESSIONS, PATCH, "/api/sessions/{session_id}", desk.change, "session_update"),
        body=session_requests.PatchRequest,
        answer=sessions_wire.OneSession,
    ),
    Route(
        *(SESSIONS, DELETE, "/api/sessions/{session_id}", desk.delete, "session_delete"),
        answer=erasure_wire.DeletedSession,
        parameters=(erasure_wire.ERASE.parameter, erasure_wire.WHY.parameter),
    ),
    Route(
        *(SESSIONS, POST, "/api/erasures", erasure.create, "erasure_create"),
        body=erasure_wire.ErasureRequest,
        answer=erasure_wire.ErasureObject,
    ),
    Route(
        *(SESSIONS, GET, "/api/sessions/{session_id}/messages", sessions.messages, "session_messages"),
        answer=sessions_wire.MessageList,
        parameters=(session_list.MESSAGES_LIMIT.parameter, session_list.MESSAGES_OFFSET.parameter, AS_OF.parameter),
    ),
    Route(
        *(SESSIONS, POST, "/api/sessions/{session_id}/compress", compress.create, "session_compress"),
        body=compress_wire.CompressRequest,
        needs_body=False,
        answer=compress_wire.Compressed,
    ),
    Route(
        *(SESSIONS, GET, "/api/sessions/{session_id}/lineage", sessions.lineage, "session_lineage"),
        answer=LineageObject,
        parameters=(AS_OF.parameter,),
    ),
    Route(
        *(SESSIONS, POST, "/api/sessions/{session_id}/fork", desk.fork, "session_fork"),
        body=session_requests.ForkRequest,
        needs_body=False,
        answer=sessions_wire.OneSession,
        status=201,
    ),
    Route(
        *(SESSIONS, POST, "/api/sessions/{session_id}/chat", session_chat.create, "session_chat"),
        body=session_chat_wire.SessionChatRequest,
        answer=session_chat_wire.SessionAnswer,
        takes_turns=True,
    ),
    Route(
        *(SESSIONS, POST, "/api/sessions/{session_id}/chat/stream", session_chat.stream, "session_chat_stream"),
        body=session_chat_wire.SessionChatRequest,
        streams=True,
        takes_turns=True,
    ),
    Route(
        *(LOG, GET, "/api/events", feed.events, "events"),
        answer=feed_wire.EventList,
        streams=True,
        parameters=feed_wire.PARAMETERS,
    ),
    Route(LOG, GET, "/api/turns/{turn_id}/prompt", prompts.get, "turn_prompt", answer=PromptObject),
    Route(
        *(AUDIT, GET, "/api/audit/checkpoint", audit.checkpoint, "audit_checkpoint"),
        answer=audit_wire.CheckpointObject,
        parameters=(audit_wire.SINCE,),
    ),
    Route(
        *(AUDIT, GET, "/api/audit/proof/{position}", audit.proof, "audit_proof"),
        answer=audit_wire.ProofObject,
        parameters=(audit_wire.SIZE,),
    ),
)
