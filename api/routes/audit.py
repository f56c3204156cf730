"""/api/audit: signed checkpoints of the log, and proofs that an event is in it."""

from aiohttp import web

from api.audit import Audit
from api.context import AUDIT, STANDING, TENANT, answer
from api.problem import Problem
from api.wire.audit import SINCE, SIZE, checkpoint_object, number_in, proof_object, whole_number


async def checkpoint(request: web.Request) -> web.StreamResponse:
    """How large the log is, and the root over all of it: signed, as a C2SP checkpoint.

    It is made now where the log has grown, once a second at most. With `since`, the answer proves that the log is the
    one that it was at that size, and something more.
    """
    audit = _audit(request)
    since = number_in(request.query, SINCE)
    if since is None:
        return answer(checkpoint_object(await audit.checkpoint(), audit.key))
    newest = await audit.checkpoint(since)
    if since > newest.size:
        raise Problem(
            f"since must be a size that the log has had: it has {newest.size} events, got {since}.",
            param=SINCE.name,
            code="invalid_value",
        )
    root, path = await audit.consistency(since, newest)
    return answer(checkpoint_object(newest, audit.key, (since, root, path)))


async def proof(request: web.Request) -> web.StreamResponse:
    """All that it takes to show that an event was recorded: to whoever has the public key, without asking this server.

    The answer is a file for `turnlog audit verifier`. Of an event whose content was erased it proves the rest.
    """
    audit = _audit(request)
    position = whole_number(request.match_info["position"], "position")
    size = number_in(request.query, SIZE)
    return answer(proof_object(await audit.proof(request[TENANT], position, size), audit.key))


def _audit(request: web.Request) -> Audit:
    if AUDIT not in request.app:
        request.app[STANDING].refuse()  # it has no key, and signs nothing
    return request.app[AUDIT]
