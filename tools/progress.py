"""A progress bar on stderr for work on a log; silent where nobody looks."""

import contextlib
import sys
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextlib.contextmanager
def bar(what: str, total: Callable[[], int | None]) -> Iterator[Callable[[int], None]]:
    """Show how far the body has come: it calls what it is given with the position it has reached.

    The bar appears with the first call, so that work that turns out not to be needed shows nothing.
    """
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("events"),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        disable=not sys.stderr.isatty(),
    )
    task = progress.add_task(what, total=None)

    def reached(position: int) -> None:
        progress.start()
        progress.update(task, completed=position, total=total())

    try:
        yield reached
    finally:
        progress.stop()


@contextlib.contextmanager
def counted(what: str) -> Iterator[Callable[[int, int], None]]:
    """The same for work that tells how much there is of it: it calls with what it has reached, and of how much."""
    total = 0
    with bar(what, lambda: total) as reached:

        def reached_of(position: int, of: int) -> None:
            nonlocal total
            total = of
            reached(position)

        yield reached_of
