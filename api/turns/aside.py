"""What is asked about a turn that is not taken: how long its prompt would be, and what could stand for all of it.

Nothing is recorded, held or claimed: a session that is asked about is as it was.
"""

from typing import NamedTuple

from api.turns import compress
from api.turns.refusals import NothingNew
from api.turns.request import TurnRequest
from api.turns.rotation import Compacted, Rotations
from api.turns.service import Turns
from api.turns.summary import is_summary
from projections.messages import fields


class Window(NamedTuple):
    """What a conversation is compacted to: all that its users said (chat messages), and a summary of everything."""

    users: tuple[bytes, ...]
    compacted: Compacted


async def input_tokens(turns: Turns, request: TurnRequest) -> int:
    """The tokens of the prompt that the turn would be, as they are counted to compress sessions: by the model server
    where it has counted this transcript, estimated where it has not.

    What would be recalled from other sessions is not part of it. Raises `Refusal`, `LogError`.
    """
    session = await turns.look_in(request)
    return compress.size_of(session, compress.asked_bytes(session, request)).tokens


async def compact(turns: Turns, rotations: Rotations, request: TurnRequest) -> Window:
    """What can be sent instead of the conversation that the turn would go on with.

    Raises `Refusal`, `ModelError`, `LogError`.
    """
    with turns.work.going_on():
        session = await turns.look_in(request)
        said = (*session.transcript, *compress.new_messages(request, session))
        if not said:
            raise NothingNew("there is nothing to compact: send input, or name a conversation with something in it")
        compacted = await rotations.compact((*request.instructions, *said), request.model)
    users = (message for message in said if fields(message).get("role") == "user" and not is_summary(message))
    return Window(tuple(users), compacted)
