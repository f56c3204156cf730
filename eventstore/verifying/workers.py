"""Processes that check stretches of a log, beside the one that asks for it, run as a module with its directory.

What goes in are tasks, what comes out is what was seen, each as its length in four bytes and then MessagePack. A worker
ends with its input, so none outlives whoever started it. One that dies takes no answer with it: its tasks are done by
the others.
"""

import contextlib
import os
import select
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Self, cast

import msgspec

from eventstore.plain import connect
from eventstore.verifying.stretch import Seen, Task, check

TASKS_AHEAD = 2  # one at work, one at hand
_LENGTH_BYTES = 4

_encode = msgspec.msgpack.encode
_task = msgspec.msgpack.Decoder(Task).decode
_seen = msgspec.msgpack.Decoder(Seen).decode


class WorkerLost(Exception):
    """A worker has ended with work on its hands."""


class Worker:
    """One such process."""

    def __init__(self, directory: Path) -> None:
        self.tasks: deque[Task] = deque()
        self._process = subprocess.Popen(  # noqa: S603 (this very program)
            [sys.executable, "-P", "-m", "eventstore.verifying.workers", str(directory.absolute())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # a Ctrl-C is for whoever started it
        )

    def fileno(self) -> int:
        """What is readable when there is an answer."""
        return self._output.fileno()

    def give(self, task: Task) -> None:
        """Have it check a stretch; raises `WorkerLost`."""
        self.tasks.append(task)
        try:
            _write(cast("BinaryIO", self._process.stdin), _encode(task))
        except OSError as error:
            raise WorkerLost from error

    def take(self) -> Seen:
        """The answer to the oldest of its tasks; waits for it. Raises `WorkerLost`."""
        try:
            seen = _seen(_read(self._output))
        except (EOFError, OSError, msgspec.DecodeError) as error:
            raise WorkerLost from error
        self.tasks.popleft()
        return seen

    def stop(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.communicate()

    @property
    def _output(self) -> BinaryIO:
        return cast("BinaryIO", self._process.stdout)


class Crew:
    """This process and a few workers."""

    def __init__(self, directory: Path, workers: int) -> None:
        self._database = connect(directory)
        self._workers = [Worker(directory) for _ in range(workers)]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.stop()
        self._database.close()

    def check(self, tasks: Sequence[Task]) -> Iterator[Seen]:
        """Check stretches that follow one another; what was seen of them, in their order."""
        waiting = deque(tasks)
        done: dict[int, Seen] = {}
        for task in tasks:
            while task.first not in done:
                self._hand_out(waiting)
                if waiting:
                    own = waiting.popleft()
                    done[own.first] = check(self._database, own)
                for seen in self._collect(waiting, is_idle=not waiting and task.first not in done):
                    done[seen.task.first] = seen
            yield done.pop(task.first)

    def _hand_out(self, waiting: deque[Task]) -> None:
        for worker in list(self._workers):
            with self._replaced(worker, waiting):
                while waiting and len(worker.tasks) < TASKS_AHEAD:
                    worker.give(waiting.popleft())

    def _collect(self, waiting: deque[Task], *, is_idle: bool) -> Iterator[Seen]:
        busy = [worker for worker in self._workers if worker.tasks]
        ready, _, _ = select.select(busy, [], [], None if is_idle else 0) if busy else ([], [], [])
        for worker in ready:
            with self._replaced(worker, waiting):
                yield worker.take()

    @contextlib.contextmanager
    def _replaced(self, worker: Worker, waiting: deque[Task]) -> Iterator[None]:
        try:
            yield
        except WorkerLost:
            self._workers.remove(worker)
            worker.stop()
            waiting.extendleft(reversed(worker.tasks))


def _write(file: BinaryIO, content: bytes) -> None:
    left = memoryview(len(content).to_bytes(_LENGTH_BYTES, "big") + content)
    while left:
        left = left[file.write(left) :]


def _read(file: BinaryIO) -> bytes:
    return _exactly(file, int.from_bytes(_exactly(file, _LENGTH_BYTES), "big"))


def _exactly(file: BinaryIO, count: int) -> bytes:
    content = bytearray()
    while len(content) < count:
        more = file.read(count - len(content))
        if not more:
            raise EOFError
        content += more
    return bytes(content)


def _main(directory: Path) -> None:
    with (
        contextlib.closing(connect(directory)) as database,
        os.fdopen(0, "rb", buffering=0) as tasks,
        os.fdopen(1, "wb", buffering=0) as answers,
        contextlib.suppress(EOFError),
    ):
        while True:
            _write(cast("BinaryIO", answers), _encode(check(database, _task(_read(cast("BinaryIO", tasks))))))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
