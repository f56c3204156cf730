"""Why a turn is refused, named by the condition. Each is one row in `api/errors.py`.

Refusal
├── NothingNew            the body holds nothing that the log does not
├── OutputWithoutCall     a tool's output answers no call
├── UnansweredCall        a tool call lacks its output
├── DuplicateItem         an item's id is already another's
│   └── DuplicateAdded    the same, of items that are added without a turn
├── SessionMismatch       the names in one request lead to different lineages
├── ResponseNotFound      no such response, for this tenant, any more
├── PreviousInProgress    a turn was to continue from a response that is still made in the background
├── PreviousNotFound      the same, of the response that a turn was to continue from
├── ConversationNotFound  no such conversation for this tenant
├── ItemNotFound          the conversation has no such item
├── SessionNotFound       no such session for this tenant
├── NothingToCompress     a summary would save too little
├── SessionExists         the id of a session to be made is taken
├── NothingToErase        nothing is recorded of what is to be erased, or nothing any more
├── TurnNotFound          the turn to fork behind is no part of the session's transcript
├── PromptNotFound        no such turn for this tenant whose prompt could be shown
├── NothingSent           the model was sent nothing for a turn
├── ContentErased         what the answer would be made of was erased
├── CompletionNotFound    no such stored completion, for this tenant, any more
├── RunNotFound           no such run for this tenant, or, to stop it, none at work
├── TooManyRuns           as many runs are at work as may be
├── MomentsBusy           more moments of the past are asked for than can be made at once
├── TooManyFollowers      as many follow the log as may
├── LineageBusy           waited for the lineage's turn, in vain
├── TurnInProgress        the lineage has an open turn of a live owner
├── TurnNotOpen           the turn has ended meanwhile: its lease ran out and somebody took over
├── KeyReused             an idempotency key came again with another request
├── NotInBackground       a response to be cancelled is made while its client waits
├── ResponseInProgress    a response can not be deleted while it is made
└── ShuttingDown          the server takes no new turns
"""


class Refusal(Exception):
    """The request can not be done as it stands; nothing of it was recorded."""


class NothingNew(Refusal):
    """A turn without new input."""


class OutputWithoutCall(Refusal):
    """The output of a call that was never made, in this transcript or in the input."""


class UnansweredCall(Refusal):
    """The model waits for the output of a call, and the input does not bring it."""


class DuplicateItem(Refusal):
    """An item came in under the id of another one of the transcript or of the input."""


class DuplicateAdded(DuplicateItem):
    """The same, of items that are added to a conversation."""


class SessionMismatch(Refusal):
    """A conversation or a response of another lineage than the session header's."""


class ResponseNotFound(Refusal):
    """Never made, made by another tenant, not stored, deleted or evicted."""


class PreviousNotFound(ResponseNotFound):
    """The response to continue from."""


class PreviousInProgress(Refusal):
    """What it will say is not known yet."""


class ConversationNotFound(Refusal):
    """Never made, another tenant's, or deleted; to have a turn, only an id that the server makes."""


class ItemNotFound(Refusal):
    """Never said in this conversation, of a turn that did not complete, or removed."""


class SessionNotFound(Refusal):
    """Never started, or another tenant's."""


class NothingToCompress(Refusal):
    """The session is too short to be compressed."""


class SessionExists(Refusal):
    """Started already, by this tenant."""


class NothingToErase(Refusal):
    """Never recorded, another tenant's, or erased already."""


class TurnNotFound(Refusal):
    """Never taken in this session, or not completed."""


class PromptNotFound(Refusal):
    """Never taken, another tenant's, not recorded, or of a session that was deleted."""


class NothingSent(Refusal):
    """Still queued, cancelled in the queue, or of a kind that its model's server can not be asked for."""


class ContentErased(Refusal):
    """A fork goes on from it, or a turn had recalled it."""


class CompletionNotFound(Refusal):
    """Never made, another tenant's, not stored, not completed, deleted, or of a session that was deleted."""


class RunNotFound(Refusal):
    """Never started, another tenant's, or of a session that was deleted; to be stopped, also one that has ended."""


class TooManyRuns(Refusal):
    """No more runs at once; those at work make room as they end."""


class MomentsBusy(Refusal):
    """The log is read for others; or still for this one."""


class TooManyFollowers(Refusal):
    """No more streams of events at once."""


class LineageBusy(Refusal):
    """Another turn of the lineage has run for longer than this one can wait."""


class TurnInProgress(Refusal):
    """The lineage is locked by an open turn."""


class TurnNotOpen(Refusal):
    """Too late: the turn was ended by somebody else."""


class KeyReused(Refusal):
    """The idempotency key belongs to another request of the same route and session."""


class NotInBackground(Refusal):
    """Its client ends it by hanging up."""


class ResponseInProgress(Refusal):
    """Still being made."""


class ShuttingDown(Refusal):
    """No new turns; running ones that outlast the grace period are cancelled."""
