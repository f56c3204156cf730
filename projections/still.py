"""Views in a file that nobody writes to, read as they lie there: those of a moment, made by `turnlog replay --into`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from eventstore.events import parse_stream
from eventstore.log import Head, LogReadOnly
from projections import conversations, queued, tips
from projections.readers import LOOKUPS, SEARCHES, Readers, read
from projections.snapshot import Snapshot
from projections.store import ViewsUnusable
from projections.view import View

# Without locks and without anything beside the file, which is neither written to nor has a write-ahead file.
_STILL = "&immutable=1"


class StillViews:
    """What queries ask of the views, as a `Runner` has it; they stand at `head`."""

    def __init__(self, readers: Readers, head: Head) -> None:
        self._readers = readers
        self.head = head

    @classmethod
    async def open(cls, path: Path, views: Sequence[View]) -> Self:
        """The views in the file; raises `ViewsUnusable` where there are none, or others."""
        if path.with_name(f"{path.name}-wal").exists():
            raise ViewsUnusable(
                f"{path} is written to, or was not closed: make a file of its own with 'turnlog replay --into FILE'"
            )
        snapshot = Snapshot(path, views, options=_STILL)
        snapshot.close()
        return cls(await Readers.open(path, _STILL), snapshot.head)

    async def fetch(self, sql: str, parameters: Sequence[object]) -> list[Any]:
        """See `Runner.fetch`."""
        return await read(self._readers[LOOKUPS], sql, parameters)

    async def search(self, sql: str, parameters: Sequence[object], position: int | None = None) -> list[Any]:  # noqa: ARG002
        """See `Runner.search`. There is nothing to wait for."""
        return await read(self._readers[SEARCHES], sql, parameters)

    async def knows(self, stream: str) -> bool:
        """Whether they have something of a lineage, or of a queued turn, by its stream."""
        category, tenant, name = parse_stream(stream)
        for sql in (queued.FIND,) if category == "queue" else (tips.FIND, conversations.FIND):
            if await self.fetch(sql, (tenant, name)):
                return True
        return False

    async def rebuild(self) -> None:
        """They are of then, and stay as they are: raises `LogReadOnly`."""
        raise LogReadOnly(f"the views are those of position {self.head.position}, read only")

    async def stop(self) -> None:
        """Let go of the file."""
        await self._readers.close()
