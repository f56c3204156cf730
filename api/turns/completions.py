"""The use cases of stored chat completions: list them, read one and what it answered, annotate it, delete it."""

from collections.abc import Sequence
from functools import partial
from itertools import groupby

from msgspec import structs

from api.turns import decide_completions
from api.turns.decide_completions import is_addressable
from api.turns.directory import COMPLETION, completion_not_found
from api.turns.lineages import Lineages
from eventstore.events import lineage_stream
from projections import completions
from projections.completions import Stored
from projections.session import Session
from projections.turn import Turn


class Completions:
    """The stored completions of all tenants. The view finds them, the fold of their lineage says what they are."""

    def __init__(self, lineages: Lineages) -> None:
        self._lineages = lineages

    async def page(self, tenant: str, stored: Stored, limit: int) -> tuple[list[Turn], bool]:
        """The turns of a page of at most `limit`, in its order, and whether there are more behind it."""
        found = await self._lineages.views.fetch(*completions.query(tenant, stored, limit + 1))
        rows, more = found[:limit], found[limit:]
        turns: dict[str, Turn] = {}
        for root_id, group in groupby(sorted(rows), key=lambda row: str(row[0])):
            session = await self._lineages.sessions.get(lineage_stream(tenant, root_id))
            here = await self._lineages.sessions.find_all(session, [turn_id for _, turn_id in group])
            turns |= {turn.turn_id: turn for turn in here if turn and is_addressable(turn)}
        return [turns[turn_id] for _, turn_id in rows if turn_id in turns], bool(more)

    async def read(self, tenant: str, completion_id: str) -> tuple[Session, Turn]:
        """The turn behind a completion's id, and its session; raises `CompletionNotFound`."""
        turn_id = completion_id.removeprefix(COMPLETION)
        rows = await self._lineages.views.fetch(completions.ROOT_OF, (tenant, turn_id))
        if turn_id != completion_id and rows:
            session = await self._lineages.sessions.get(lineage_stream(tenant, rows[0][0]))
            turn = await self._lineages.sessions.find(session, turn_id)
            if turn and is_addressable(turn):
                return session, turn
        raise completion_not_found(completion_id)

    async def messages(self, tenant: str, completion_id: str) -> Sequence[bytes]:
        """What a completion answered, as chat messages: its instructions, the transcript before it, and what was new.

        Raises `CompletionNotFound`.
        """
        session, turn = await self.read(tenant, completion_id)
        behind = await self._lineages.sessions.up_to(session, turn.turn_id)
        base = [data for data, _ in behind.base if data] if behind else []
        before = [data for earlier in behind.turns[:-1] for data in earlier.messages] if behind else []
        return (*turn.started.instructions, *base, *before, *structs.replace(turn, ended=None).messages)

    async def annotate(self, tenant: str, completion_id: str, metadata: bytes) -> Turn:
        """Replace a completion's metadata, a JSON object of strings; raises `CompletionNotFound`."""
        session, turn = await self.read(tenant, completion_id)
        await self._lineages.commit(session, partial(decide_completions.annotate, turn=turn, metadata=metadata))
        return structs.replace(turn, annotated=metadata)

    async def delete(self, tenant: str, completion_id: str) -> None:
        """Make a completion unaddressable; its turn and its session go on untouched. Raises `CompletionNotFound`."""
        session, turn = await self.read(tenant, completion_id)
        await self._lineages.commit(session, partial(decide_completions.delete, turn=turn))
