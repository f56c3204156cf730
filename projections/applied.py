"""Views as events are applied to them, within a transaction that somebody else begins and ends."""

import sqlite3
from collections.abc import Sequence

from eventstore.events import STORED_TYPES, Erased
from eventstore.log import Recorded
from projections.gathered import Gathered
from projections.view import Deletion, View


class Applied:
    """Some views of a file. Blocking: to be called from one thread at a time."""

    def __init__(self, connection: sqlite3.Connection, views: Sequence[View]) -> None:
        self._execute = connection.execute
        self._gathered = [Gathered(view.gathered, connection.execute) for view in views]
        self._applies = {
            event_type: [
                (view.apply, gathered)
                for view, gathered in zip(views, self._gathered, strict=True)
                if event_type in view.of
            ]
            for event_type in (*STORED_TYPES, Erased)
        }
        self._settle = [sql for view in views for sql in view.settle]
        self._forgets = [view.forget for view in views if view.forget]

    def take_in(self, batch: Sequence[Recorded]) -> None:
        """Apply the next events."""
        execute = self._execute
        for recorded in batch:
            for apply, gathered in self._applies[type(recorded.event)]:
                for sql, parameters in apply(recorded):
                    if sql in gathered.rows:
                        gathered.rows[sql].append(parameters)
                        continue
                    if gathered.rows:
                        gathered.flush()
                    execute(sql, parameters)

    def settle(self, deletions: Sequence[Deletion]) -> None:
        """Do what ends a transaction; `deletions` are those among the events since the last time."""
        execute = self._execute
        for gathered in self._gathered:
            gathered.flush()
        for deletion in deletions:
            for forget in self._forgets:
                for sql, parameters in forget(deletion):
                    execute(sql, parameters)
        for sql in self._settle:
            execute(sql)

    def clear(self) -> None:
        """Forget what has gathered: the transaction is taken back."""
        for gathered in self._gathered:
            gathered.clear()
