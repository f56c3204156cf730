"""One table from exception to answer: whose fault it is, and whether to try again.

OpenAI's SDKs retry 408, 409, 429 and 5xx by themselves and honour `retry-after` and `x-should-retry`; where a retry can
not help, the answer says so.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from api import audit
from api.models import model
from api.problem import Problem
from api.turns import refusals
from eventstore import log
from eventstore.proofs import audit_key, notary
from projections.runner import ViewsUnavailable
from projections.store import ViewsUnusable

SOON = {"retry-after": "1"}
NEVER = {"x-should-retry": "false"}

REQUEST = "invalid_request_error"
SERVER = "server_error"
UPSTREAM = "upstream_error"


class Row(NamedTuple):
    """What an exception becomes. A `code` of None is the exception's own."""

    status: int
    type: str
    code: str | None
    param: str | None = None
    headers: Mapping[str, str] = MappingProxyType({})


TABLE: dict[type[Exception], Row] = {
    refusals.NothingNew: Row(400, REQUEST, "nothing_new"),
    refusals.OutputWithoutCall: Row(400, REQUEST, "tool_call_not_found", "input"),
    refusals.UnansweredCall: Row(400, REQUEST, "tool_output_not_found", "input"),
    refusals.DuplicateItem: Row(400, REQUEST, "duplicate_item", "input"),
    refusals.DuplicateAdded: Row(400, REQUEST, "duplicate_item", "items"),
    refusals.SessionMismatch: Row(400, REQUEST, "session_mismatch"),
    refusals.PreviousNotFound: Row(404, REQUEST, "previous_response_not_found", "previous_response_id"),
    refusals.ResponseNotFound: Row(404, REQUEST, "response_not_found", "response_id"),
    refusals.PreviousInProgress: Row(400, REQUEST, "previous_response_in_progress", "previous_response_id"),
    refusals.NotInBackground: Row(400, REQUEST, "response_not_in_background", "response_id"),
    refusals.ResponseInProgress: Row(400, REQUEST, "response_in_progress", "response_id"),
    refusals.ConversationNotFound: Row(404, REQUEST, "conversation_not_found", "conversation"),
    refusals.ItemNotFound: Row(404, REQUEST, "item_not_found", "item_id"),
    refusals.SessionNotFound: Row(404, REQUEST, "session_not_found", "session_id"),
    refusals.NothingToCompress: Row(400, REQUEST, "nothing_to_compress", "session_id"),
    refusals.SessionExists: Row(409, REQUEST, "session_exists", "id", NEVER),
    refusals.NothingToErase: Row(404, REQUEST, "nothing_to_erase"),
    refusals.TurnNotFound: Row(404, REQUEST, "turn_not_found", "turn_id"),
    refusals.PromptNotFound: Row(404, REQUEST, "turn_not_found", "turn_id"),
    refusals.NothingSent: Row(404, REQUEST, "nothing_sent", "turn_id"),
    refusals.ContentErased: Row(410, REQUEST, "erased", "turn_id"),
    refusals.CompletionNotFound: Row(404, REQUEST, "completion_not_found", "completion_id"),
    refusals.RunNotFound: Row(404, REQUEST, "run_not_found", "run_id"),
    refusals.TooManyRuns: Row(429, "rate_limit_error", "rate_limit_exceeded", None, SOON),
    refusals.MomentsBusy: Row(503, SERVER, "overloaded", "as_of", SOON),
    refusals.TooManyFollowers: Row(429, "rate_limit_error", "rate_limit_exceeded", None, SOON),
    refusals.LineageBusy: Row(409, REQUEST, "conversation_locked", "conversation", SOON),
    refusals.TurnInProgress: Row(409, REQUEST, "conversation_locked", "conversation", SOON),
    refusals.TurnNotOpen: Row(409, REQUEST, "turn_ended", None, NEVER),
    refusals.KeyReused: Row(409, REQUEST, "idempotency_key_conflict", "Idempotency-Key", NEVER),
    refusals.ShuttingDown: Row(503, SERVER, "shutting_down", None, SOON),
    log.LogOverloaded: Row(503, SERVER, "overloaded", None, SOON),
    log.LogUnavailable: Row(503, SERVER, "log_unavailable", None, SOON),
    log.LogReadOnly: Row(403, "permission_error", "read_only", None, NEVER),
    log.ErasedSince: Row(503, SERVER, "erased_since", None, NEVER),
    log.NotPurged: Row(503, SERVER, "erasure_not_purged", None, NEVER),
    log.LogDamaged: Row(503, SERVER, "log_damaged", None, NEVER),
    log.LogUnreadable: Row(503, SERVER, "log_unreadable", None, NEVER),
    log.LogRewritten: Row(503, SERVER, "log_rewritten", None, NEVER),
    notary.CheckpointsUnusable: Row(503, SERVER, "checkpoints_unusable", None, NEVER),
    audit_key.AuditKeyProblem: Row(503, SERVER, "audit_key_unusable", None, NEVER),
    audit.AuditNotReady: Row(503, SERVER, "audit_not_ready", None, SOON),
    audit.EventNotFound: Row(404, REQUEST, "event_not_found", "position"),
    audit.CheckpointNotFound: Row(404, REQUEST, "checkpoint_not_found", "size"),
    log.VersionConflict: Row(409, REQUEST, "conversation_locked", "conversation", SOON),
    ViewsUnavailable: Row(503, SERVER, "views_unavailable", None, SOON),
    ViewsUnusable: Row(503, SERVER, "views_unavailable", None, SOON),
    model.ModelUnreachable: Row(502, UPSTREAM, None),
    model.ModelTimeout: Row(504, UPSTREAM, None),
    model.ModelBroke: Row(502, UPSTREAM, None),
    model.ModelGarbage: Row(502, UPSTREAM, None),
    RecursionError: Row(400, REQUEST, "nested_too_deeply"),
}


def problem_of(error: Exception) -> Problem:
    """What the client is told about `error`. An exception that has no row is our own fault."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, model.ModelRefused):
        return _refused(error)
    row = next((TABLE[cls] for cls in type(error).__mro__ if cls in TABLE), None)
    if row is None:
        return Problem(
            "turnlog failed to handle this request; the server's log has the details under this request's id",
            status=500,
            type_=SERVER,
            code="internal_error",
        )
    code = row.code or getattr(error, "code", None)
    return Problem(str(error), status=row.status, type_=row.type, param=row.param, code=code, headers=dict(row.headers))


def _refused(error: model.ModelRefused) -> Problem:
    """A model server's refusal. What is the client's to mend keeps its status; what is between the servers is a 502."""
    if error.status == 429:
        headers = {"retry-after": error.retry_after} if error.retry_after else {}
        return Problem(str(error), status=429, type_="rate_limit_error", code=error.code, headers=headers)
    if error.status in (401, 403) or not 400 <= error.status < 500:
        return Problem(str(error), status=502, type_=UPSTREAM, code=error.code)
    return Problem(str(error), status=error.status, param=error.param, code=error.code)
