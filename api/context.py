"""What handlers find in the application and in each request, and how they answer."""

import msgspec
from aiohttp import web

from api.audit import Audit
from api.description import Description
from api.guard import Guard
from api.keys import Keyring
from api.models.catalogue import Catalogue
from api.problem import Problem
from api.readonly import Standing
from api.settings import BODY_BYTES_MAX, Settings
from api.sockets import Sockets
from api.turns.background import Background
from api.turns.background_responses import BackgroundResponses
from api.turns.completions import Completions
from api.turns.conversations import Conversations
from api.turns.degraded import OUT_OF_REACH
from api.turns.desk import NO_MODELS, Desk, Models
from api.turns.erasure import Erasures
from api.turns.eviction import Eviction
from api.turns.feed import Feed
from api.turns.lineages import Lineages
from api.turns.moments import Moments
from api.turns.prompts import Prompts
from api.turns.request import TurnRequest
from api.turns.rotation import Rotations
from api.turns.search import Search
from api.turns.service import Turns
from api.wire.decode import encode
from api.wire.headers import Continuity, continuity

SETTINGS = web.AppKey("settings", Settings)
GUARD = web.AppKey("guard", Guard)
KEYRING = web.AppKey("keyring", Keyring)
LINEAGES = web.AppKey("lineages", Lineages)
EVICTION = web.AppKey("eviction", Eviction)
ROTATIONS = web.AppKey("rotations", Rotations)
TURNS = web.AppKey("turns", Turns)
CONVERSATIONS = web.AppKey("conversations", Conversations)
DESK = web.AppKey("desk", Desk)
ERASURES = web.AppKey("erasures", Erasures)
RUNS = web.AppKey("runs", Background)
RESPONSES = web.AppKey("responses", BackgroundResponses)
COMPLETIONS = web.AppKey("completions", Completions)
MOMENTS = web.AppKey("moments", Moments)
SEARCH = web.AppKey("search", Search)
STANDING = web.AppKey("standing", Standing)  # of a server that is read only
PROMPTS = web.AppKey("prompts", Prompts)
FEED = web.AppKey("feed", Feed)
CATALOGUE = web.AppKey("catalogue", Catalogue)
AUDIT = web.AppKey("audit", Audit)
SOCKETS = web.AppKey("sockets", Sockets)
DESCRIPTION = web.AppKey("description", Description)
CHANGING: web.AppKey[frozenset[str]] = web.AppKey("changing")  # routes that a server that only reads refuses
OPEN_PATHS: web.AppKey[frozenset[str]] = web.AppKey("open_paths")  # those that ask for no key

TENANT = web.RequestKey("tenant", str)
REQUEST_ID = web.RequestKey("request_id", str)
ECHO: web.RequestKey[dict[str, str]] = web.RequestKey("echo")  # continuity headers, once a turn is open


def continuity_of(request: web.Request) -> Continuity:
    """The request's continuity headers; raises `Problem`."""
    return continuity(request.headers, has_keys=not request.app[KEYRING].is_open)


async def with_model(request: web.Request, asked: TurnRequest) -> TurnRequest:
    """The turn; where it names no model, with its session's, else the server's, else that of the turn before.

    Raises `Problem` where nothing names a model, and what finding the session raises.
    """
    if asked.model:
        return asked
    session = await _models_of_session(request, asked)
    model = session.made_with or request.app[SETTINGS].default_model or session.newest
    if not model:
        raise Problem(
            "Missing required parameter: 'model' (this server was started without --default-model).",
            param="model",
            code="missing_required_parameter",
        )
    return msgspec.structs.replace(asked, model=model)


async def _models_of_session(request: web.Request, asked: TurnRequest) -> Models:
    try:
        return await request.app[DESK].models_of(asked)
    except OUT_OF_REACH:
        if request.app[SETTINGS].history_on_failure == "fail":
            raise
        return NO_MODELS  # the turn is answered without its session, and so without its model


async def body_of(request: web.Request) -> bytes:
    """The request's whole body; raises `Problem` where it is too large or not packed as it says."""
    if (request.content_length or 0) > BODY_BYTES_MAX:
        raise _too_large()
    try:
        return await request.read()
    except web.HTTPRequestEntityTooLarge:
        raise _too_large() from None
    except web.RequestPayloadError as error:
        raise Problem(f"The request body can not be read: {error}", code="invalid_body") from error


def _too_large() -> Problem:
    return Problem("Request body too large: at most 10,000,000 bytes.", status=413, code="body_too_large")


def answer(body: object, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """A JSON answer."""
    return web.Response(body=encode(body), status=status, headers=headers, content_type="application/json")
