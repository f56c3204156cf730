"""`turnlog bench`: one harness, one run."""

import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
import msgspec
from rich.console import Console

from eventstore.log import LogError
from tools.bench import appends, compression, memory, replay, restart, search, sessions, streams, turns
from tools.bench.figures import Figure, NothingMeasured
from tools.bench.machine import Machine, this_machine
from tools.bench.plan import Plan, Sizes, quick, whole
from tools.bench.server import BenchFailed
from tools.bench.table import console, show_figures, show_machine

# In the order in which they run.
_SUITES: dict[str, Callable[[Plan], list[Figure]]] = {
    module.SUITE: module.measure
    for module in (appends, replay, turns, streams, sessions, compression, search, restart, memory)
}


class Report(msgspec.Struct, frozen=True):
    """A run, as `--json` writes it."""

    machine: Machine
    sizes: Sizes
    took_s: float
    figures: list[dict[str, object]]


@click.command()
@click.option(
    "--events", type=click.IntRange(1_000), help="Size of the generated log.  [default: 200000; 5000 with --quick]"
)
@click.option("--rounds", type=click.IntRange(1), help="Medians are over so many.  [default: 3; 1 with --quick]")
@click.option("--quick", "is_quick", is_flag=True, help="All of it in seconds, to see that it works; not to be quoted.")
@click.option("--only", multiple=True, type=click.Choice(list(_SUITES)), help="Measure this alone; repeatable.")
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, exists=True, file_okay=False, writable=True),
    default=".",
    show_default=True,
    help="Measure on the disk of this directory; what is made in it is removed.",
)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures to it too."
)
def bench(
    events: int | None,
    rounds: int | None,
    is_quick: bool,
    only: Sequence[str],
    directory: Path,
    json_path: Path | None,
) -> None:
    """Measure turnlog on this machine, beside its targets.

    Medians over rounds; figures move with the machine and its neighbours, so compare within one run. A target that is
    not met is marked and fails nothing.
    """
    # Ended politely, a run takes its servers and its files with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sizes = (quick if is_quick else whole)(events=events, rounds=rounds)
    out, machine = console(), this_machine()
    show_machine(out, machine)
    began = time.perf_counter()
    try:
        figures = _measure(directory, sizes, [name for name in _SUITES if not only or name in only])
    except (BenchFailed, NothingMeasured, LogError, OSError) as error:
        raise click.ClickException(f"could not measure: {error}") from error
    took_s = time.perf_counter() - began
    show_figures(out, figures)
    out.print(f"medians of {sizes.rounds}, log of {sizes.events:,} events, took {took_s:.0f} s", highlight=False)
    if json_path:
        report = Report(machine, sizes, round(took_s, 1), [_entry(figure) for figure in figures])
        json_path.write_bytes(msgspec.json.format(msgspec.json.encode(report)) + b"\n")


def _measure(directory: Path, sizes: Sizes, suites: Sequence[str]) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="turnlog-bench-", dir=directory) as beside, _status() as tell:
        plan = Plan(Path(beside).absolute(), sizes, tell)
        return [figure for name in suites for figure in _SUITES[name](plan)]


@contextlib.contextmanager
def _status() -> Iterator[Callable[[str], None]]:
    """Say on stderr what is being measured; a line each where it is not a terminal."""
    if not sys.stderr.isatty():
        yield lambda what: click.echo(f"{what} …", err=True)
        return
    with Console(stderr=True).status("") as status:
        yield lambda what: status.update(f"{what} …")


def _entry(figure: Figure) -> dict[str, object]:
    return {**msgspec.to_builtins(figure), "median": figure.median, "is_met": figure.is_met}
