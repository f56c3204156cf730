"""The figures for people."""

from collections.abc import Sequence
from itertools import groupby

from rich.console import Console
from rich.table import Table

from tools.bench.figures import Figure
from tools.bench.machine import Machine

_WIDTH_WITHOUT_TERMINAL = 118


def console() -> Console:
    """Stdout: as wide as the terminal, or as the table needs where it goes to a file."""
    plain = Console()
    return plain if plain.is_terminal else Console(width=_WIDTH_WITHOUT_TERMINAL)


def show_machine(out: Console, machine: Machine) -> None:
    """The first lines."""
    out.print(f"{machine.cpu}, {machine.cores} cores, {machine.kernel}", highlight=False)
    out.print(f"Python {machine.python}, SQLite {machine.sqlite}, {machine.date}", highlight=False)


def show_figures(out: Console, figures: Sequence[Figure]) -> None:
    """One line a figure: its median over the rounds, the lowest and highest round, and how it stands to its target."""
    table = Table(highlight=False)
    for heading in ("suite", "measured"):
        table.add_column(heading, overflow="fold")
    for heading in ("median", "lowest", "highest"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("unit", "target", ""):
        table.add_column(heading, no_wrap=True)
    for suite, its_figures in groupby(figures, key=lambda figure: figure.suite):
        for number, figure in enumerate(its_figures):
            table.add_row(suite if not number else "", *_cells(figure))
        table.add_section()
    out.print(table)


def _cells(figure: Figure) -> tuple[str, ...]:
    target = f"{figure.target.bound} {_number(figure.target.value)}" if figure.target else ""
    mark = {None: "", True: "[green]met[/]", False: "[red]not met[/]"}[figure.is_met]
    spread = (_number(min(figure.rounds)), _number(max(figure.rounds)))
    return figure.name, _number(figure.median), *spread, figure.unit, target, mark


def _number(value: float) -> str:
    if value >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
