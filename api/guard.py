"""Checks the whole chain of the log behind a server that has just started, and shuts the door where it is broken.

A server starts in a time that does not depend on the log's size, so a large log is still being checked when the first
requests come. Small ones are checked before: `start` waits a moment for the result.
"""

import asyncio
import contextlib

import structlog

from eventstore.log import EventLog, LogDamaged, LogError, LogUnreadable

WAIT_S = 0.5
REST_S = 0.004  # between batches once requests are served, so that the check takes a fraction of one core

_log = structlog.get_logger()


class Guard:
    """Knows whether the log is whole, as far as it has been checked."""

    def __init__(self) -> None:
        self._damage: LogError | None = None
        self._rest_s = 0.0
        self._task: asyncio.Task[None] | None = None

    async def start(self, log: EventLog) -> None:
        """Begin to check; raises `LogDamaged` or `LogUnreadable` where that shows soon."""
        self._task = asyncio.create_task(self._check(log), name="guard")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(WAIT_S):
                await asyncio.shield(self._task)
        self._rest_s = REST_S
        self.ensure_whole()

    def ensure_whole(self) -> None:
        """Raise what is wrong with the log, if anything is known to be."""
        if self._damage:
            # One instance is raised to many: without its old traceback, which would keep every request it went through.
            raise self._damage.with_traceback(None)

    def shut(self, error: LogError) -> None:
        """Have nothing be served any more, for this reason."""
        _log.error("the log can not be served", reason=str(error))
        self._damage = error

    async def stop(self) -> None:
        """Stop checking."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _check(self, log: EventLog) -> None:
        checked = 0
        try:
            async for batch in log.read_all():
                checked += len(batch)
                await asyncio.sleep(self._rest_s)
        except (LogDamaged, LogUnreadable) as error:
            self._damage = error
            _log.error("the log can not be served", reason=str(error), position=error.position)
        except LogError as error:
            _log.warning("the check of the log was broken off", reason=str(error), events=checked)
        else:
            _log.info("the log is whole", events=checked)
