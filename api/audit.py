"""The server's side of proving: one thread that keeps the notary, checkpoints from time to time, and answers.

The tree over a large log is built behind the start, in small steps with rests between them, so that it costs no turns;
whoever asks for a proof meanwhile has the rests left out, and is told to come back where that is not enough.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import structlog

from eventstore.events import parse_stream
from eventstore.log import LogError
from eventstore.proofs.audit_key import AuditKeyProblem
from eventstore.proofs.checkpoint import Checkpoint
from eventstore.proofs.notary import Notary, Proof
from eventstore.proofs.note import VerifierKey

T = TypeVar("T")

STEP_EVENTS = 1_024
REST_S = 0.004  # between steps, as long as nobody waits
SIGN_REST_S = 1.0  # between checkpoints that are made because somebody asks
WAIT_S = 10.0
STOP_S = 2.0
ASIDE = (LogError, AuditKeyProblem)

_log = structlog.get_logger()


class AuditNotReady(Exception):
    """The tree over the log is still being built."""


class EventNotFound(Exception):
    """There is no event at that position, or it is somebody else's."""


class CheckpointNotFound(Exception):
    """There is no checkpoint of that size."""


class Audit:
    """Checkpoints and proofs of one server's log. A checkpoint is signed every `every_s` seconds; 0: when asked for."""

    def __init__(self, notary: Notary | Exception, every_s: float, *, signs: bool) -> None:
        self._opened = notary
        self._every_s = every_s if signs else 0.0
        self._signs = signs
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="notary")
        self._signed_at = float("-inf")  # on the loop's clock
        self._signing = asyncio.Lock()
        self._ready = asyncio.Event()
        self._waiting = 0
        self._task: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, directory: Path, key_path: Path, every_s: float, *, signs: bool = True) -> "Audit":
        """Begin to build the tree of the log in `directory`. One that does not sign shows what is on file.

        What is wrong with the log or the key is told to whoever asks: a server goes on without.
        """
        try:
            notary = Notary.open(directory, key_path)
        except ASIDE as error:
            return cls.unable(error)
        audit = cls(notary, every_s, signs=signs)
        audit._task = asyncio.create_task(audit._run(), name="notary")
        return audit

    @classmethod
    def unable(cls, reason: Exception) -> "Audit":
        """One that signs and proves nothing: it tells the server's log why, and whoever asks."""
        _refused(reason)
        audit = cls(reason, 0.0, signs=False)
        audit._ready.set()
        return audit

    @property
    def key(self) -> VerifierKey:
        """What checkpoints are verified with."""
        return self._notary.verifier

    @property
    def _notary(self) -> Notary:
        if isinstance(self._opened, Exception):
            raise self._opened.with_traceback(None)  # one instance is raised to many
        return self._opened

    async def stop(self) -> None:
        """Sign for what the log holds now, and stop."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        try:
            if self._every_s:
                async with asyncio.timeout(STOP_S):
                    await self._sign_if_grown()
        except TimeoutError:
            _log.warning("no checkpoint at the stop: the tree was still being built", events=self._notary.size)
        finally:
            await asyncio.to_thread(self._thread.shutdown)
            if isinstance(self._opened, Notary):
                self._opened.close()

    async def checkpoint(self, covering: int = 0) -> Checkpoint:
        """The newest checkpoint, made now where the log has grown: once a second at most. Where the event at the
        position `covering` has none yet, that second is waited for.

        Raises `LogRewritten` and other `LogError`s, `AuditNotReady`, `AuditKeyProblem`.
        """
        await self._until_ready()
        if not self._signs:
            return await self._on_file(covering)
        covering = min(covering, await self._in_thread(self._notary.head))
        while True:
            async with self._signing:
                newest = await self._in_thread(self._notary.check)
                rest_s = self._signed_at + SIGN_REST_S - asyncio.get_running_loop().time()
                if newest is None or rest_s <= 0:
                    return await self._sign()
            if newest.size >= covering:
                return newest
            await asyncio.sleep(rest_s)

    async def consistency(self, size: int, checkpoint: Checkpoint) -> tuple[bytes, list[bytes]]:
        """The root that the log had at `size`, and the proof that `checkpoint` continues it. Raises `LogError`."""
        return await self._in_thread(lambda: self._notary.consistency(size, checkpoint))

    async def proof(self, tenant: str, position: int, size: int | None) -> Proof:
        """That the tenant's event at `position` is in the checkpoint of `size`, in the newest where that is None.

        Raises `EventNotFound`, `CheckpointNotFound`, and what `checkpoint` raises.
        """
        await self._until_ready()
        row = await self._in_thread(lambda: self._notary.row(position))
        if row is None or parse_stream(row[1]).tenant != tenant:
            raise EventNotFound(f"There is no event at position {position}.")
        checkpoint = await (self.checkpoint(position) if size is None else self._of_size(size, position))
        return await self._in_thread(lambda: self._notary.proof(position, checkpoint))

    async def _on_file(self, covering: int) -> Checkpoint:
        newest = await self._in_thread(self._notary.check)
        if newest is None or newest.size < covering:
            covers = f"{newest.size} events" if newest else "nothing"
            raise CheckpointNotFound(f"The newest checkpoint is of {covers}, and this server signs none.")
        return newest

    async def _of_size(self, size: int, position: int) -> Checkpoint:
        found = await self._in_thread(lambda: self._notary.of_size(size))
        if found is None or size < position:
            raise CheckpointNotFound(
                f"There is no checkpoint of size {size}."
                if size >= position
                else f"A checkpoint of size {size} has no event {position}."
            )
        return found

    async def _run(self) -> None:
        """Build the tree, look whether the log is still the one that was signed for, and sign from time to time."""
        try:
            while await self._step():
                await self._rest()
            newest = await self._in_thread(self._notary.check)
            _log.info("the audit tree is built", events=self._notary.size, checkpoint=newest.size if newest else 0)
            if self._notary.torn:
                _log.warning("checkpoints on file can not be read: passed over", lines=self._notary.torn)
        except ASIDE as error:
            _refused(error)
        finally:
            self._ready.set()
        while self._every_s:
            await self._sign_if_grown()
            await asyncio.sleep(self._every_s)

    async def _step(self) -> int:
        return await self._in_thread(lambda: self._notary.catch_up(STEP_EVENTS))

    async def _rest(self) -> None:
        await asyncio.sleep(0 if self._waiting else REST_S)

    async def _sign_if_grown(self) -> None:
        try:
            newest = await self._in_thread(self._notary.check)
            if await self._in_thread(self._notary.head) > (newest.size if newest else 0):
                made = await self._sign()
                _log.info("signed a checkpoint", size=made.size, root=made.root.hex())
        except ASIDE as error:
            _refused(error)

    async def _sign(self) -> Checkpoint:
        while await self._step():
            pass
        now_us = time.time_ns() // 1_000
        made = await self._in_thread(lambda: self._notary.sign(now_us))
        self._signed_at = asyncio.get_running_loop().time()
        return made

    async def _until_ready(self) -> None:
        self._waiting += 1
        try:
            async with asyncio.timeout(WAIT_S):
                await self._ready.wait()
        except TimeoutError:
            size = self._notary.size
            raise AuditNotReady(f"The tree over the log is being built: it has {size} events so far.") from None
        finally:
            self._waiting -= 1

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _refused(error: Exception) -> None:
    _log.error("no checkpoint was signed", reason=str(error))
