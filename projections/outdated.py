"""Views that have changed since a file of them was written are rebuilt alone, and the others are left as they are."""

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import structlog

from eventstore.log import EventLog, Head, Recorded
from projections.applied import Applied
from projections.rebuild import deletions_in, finished
from projections.store import (
    HeldViews,
    ViewsUnusable,
    connect,
    create_tables,
    encoded,
    held_of,
    read_checkpoint,
    usable,
)
from projections.view import Deletion, View

_log = structlog.get_logger()


async def renew_outdated(log: EventLog, path: Path, views: Sequence[View], progress: Callable[[int], None]) -> None:
    """Rebuild what the file lacks or has of another version, up to where it stands, and drop what nobody uses any more.

    All of it is one transaction, so that a crash leaves the file as it was. Raises `ViewsUnusable` where there is
    nothing to be kept, and `LogError`.
    """
    if not path.exists():
        return
    with usable(), contextlib.closing(connect(path, "WAL", "NORMAL")) as connection:
        head, held = read_checkpoint(connection)
        wanted = held_of(views)
        if held == wanted:
            return
        changed = [view for view in views if held.get(view.name) != wanted[view.name]]
        if len(changed) == len(views):
            raise ViewsUnusable("views.db was built by another version")
        if await log.hash_at(head.position) != head.hash:
            raise ViewsUnusable("views.db was built from another log")
        _log.warning("rebuilding views that have changed", views=[view.name for view in changed])
        connection.execute("BEGIN IMMEDIATE")
        for table in _tables_to_drop(held, wanted):
            connection.execute(f'DROP TABLE IF EXISTS "{table}"')
        create_tables(connection, changed)
        if changed:
            await _replay(log, head, Applied(connection, changed), progress)
        connection.execute("UPDATE checkpoint SET views = ?", (encoded(views),))
        await finished(partial(_commit, connection))


def _tables_to_drop(held: HeldViews, wanted: HeldViews) -> list[str]:
    return [table for name, one in held.items() if one != wanted.get(name) for table in one.tables]


async def _replay(log: EventLog, head: Head, applied: Applied, progress: Callable[[int], None]) -> None:
    def take_in(batch: Sequence[Recorded], deletions: Sequence[Deletion]) -> None:
        applied.take_in(batch)
        applied.settle(deletions)

    async for batch in log.read_all():
        wanted = [recorded for recorded in batch if recorded.position <= head.position]
        if not wanted:
            break
        await finished(partial(take_in, wanted, await deletions_in(log, wanted)))
        progress(wanted[-1].position)


def _commit(connection: sqlite3.Connection) -> None:
    connection.execute("COMMIT")
