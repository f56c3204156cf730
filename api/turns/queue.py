"""The queue in the log: turns that their clients were told of, and that wait for their time across restarts.

Each has a stream of its own: it was queued, and later it was taken out, once it had begun or was given up. A crash in
between leaves one in the queue that has begun: whoever reads the queue passes it over.
"""

import structlog

from api.turns.directory import RESPONSE, Directory, Views
from api.turns.refusals import ResponseNotFound
from api.turns.request import Names, TurnRequest
from eventstore.events import TurnDequeued, TurnQueued, queue_stream
from eventstore.log import EventLog, LogError
from projections import queued

BEGUN = "begun"
CANCELLED = "cancelled"

_log = structlog.get_logger()


class Queue:
    """The queued turns of all tenants."""

    def __init__(self, log: EventLog, views: Views, directory: Directory) -> None:
        self._log = log
        self._views = views
        self._directory = directory

    async def put(self, request: TurnRequest) -> None:
        """Record what is to begin later, under the id that the request names; raises `LogError`."""
        await self._log.append(queue_stream(request.tenant, request.turn_id), 0, (_queued(request),))

    async def take(self, request: TurnRequest, reason: str) -> None:
        """Record that it waits no more, and why. Where the log is out of reach, the next start may begin it again."""
        taken = TurnDequeued(turn_id=request.turn_id, reason=reason)
        try:
            await self._log.append(queue_stream(request.tenant, request.turn_id), 1, (taken,))
        except LogError as error:
            _log.error("a turn is still in the queue", turn_id=request.turn_id, reason=str(error))

    async def left(self, *, takes_out: bool = True) -> list[TurnRequest]:
        """What is still to begin, in the order in which it came; for the start, before any request is let in.

        What has begun is taken out of the queue, by a server that writes.
        """
        requests = []
        for tenant, turn_id in await self._views.fetch(queued.ALL, ()):
            recorded, *_ = await self._log.read(queue_stream(tenant, turn_id))
            assert isinstance(recorded.event, TurnQueued)  # noqa: S101 (it begins its stream)
            request = _request(tenant, recorded.event)
            if not await self._has_begun(request):
                requests.append(request)
            elif takes_out:
                await self.take(request, BEGUN)
        return requests

    async def _has_begun(self, request: TurnRequest) -> bool:
        try:
            await self._directory.response(request.tenant, RESPONSE + request.turn_id)
        except ResponseNotFound:
            return False
        return True


def _queued(request: TurnRequest) -> TurnQueued:
    """The fact that a request makes while it waits. What is new is the end of what would open a session."""
    return TurnQueued(
        turn_id=request.turn_id,
        api=request.api,
        model=request.model,
        items=request.opening,
        new_items=len(request.items),
        history=request.history,
        instructions=request.instructions,
        parameters=request.parameters,
        stream=request.stream,
        session_id=request.names.session_id,
        conversation=request.names.conversation,
        previous_response_id=request.names.previous_response_id,
        session_key=request.session_key,
        identity=request.identity,
        idempotency_key=request.idempotency_key,
        body_digest=request.body_digest,
        compact_threshold_tokens=request.compact_threshold_tokens,
        uses_memory=request.uses_memory,
        root_id=request.root_id,
    )


def _request(tenant: str, event: TurnQueued) -> TurnRequest:
    """The request that was queued."""
    return TurnRequest(
        tenant=tenant,
        api=event.api,
        names=Names(event.session_id, event.conversation, event.previous_response_id),
        model=event.model,
        items=event.items[len(event.items) - event.new_items :],
        opening=event.items,
        history=event.history,
        instructions=event.instructions,
        parameters=event.parameters,
        stream=event.stream,
        session_key=event.session_key,
        identity=event.identity,
        idempotency_key=event.idempotency_key,
        body_digest=event.body_digest,
        compact_threshold_tokens=event.compact_threshold_tokens,
        uses_memory=event.uses_memory,
        background=True,
        turn_id=event.turn_id,
        root_id=event.root_id,
    )
