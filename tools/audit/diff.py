"""`turnlog audit diff`: what changed in a session between two moments."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec

from api.wire.moment import Moment
from api.wire.recorded import rfc3339
from tools.audit.difference import Difference, Shown, difference, transcripts
from tools.audit.lineage import State, reading
from tools.audit.transcript import lines, plain
from tools.moments import MOMENT
from tools.options import data_option, text

CONTEXT = 2  # entries that stayed, shown around those that did not
_COLOURS = {"-": "red", "+": "green", " ": None}
_TIMES = frozenset({"started_at", "ended_at", "last_active"})


@click.command(short_help="Show what changed in a session between two moments.")
@click.argument("session", callback=text)
@click.argument("from_", metavar="FROM", type=MOMENT)
@click.argument("to", metavar="TO", type=MOMENT)
@click.option("--tenant", default="default", callback=text, show_default=True, help="Whose session it is.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@data_option
def diff(session: str, from_: Moment, to: Moment, tenant: str, as_json: bool, data: Path) -> None:
    """Show what changed in SESSION from one moment to another: a position of the log, or a time such as
    2026-11-20T12:00:00Z.

    First the fields of its row, before and after; then its messages: those that are gone with a minus, those that came
    with a plus, and a few around them.
    """
    asyncio.run(_diff(data, tenant, session, (from_, to), as_json=as_json))


async def _diff(data: Path, tenant: str, session: str, moments: tuple[Moment, Moment], *, as_json: bool) -> None:
    async with reading(data, tenant, session) as lineage:
        first, last = [await lineage.position_of(moment) for moment in moments]
        if first > last or _are_turned_around(*moments):
            raise click.ClickException(f"FROM ({moments[0]}) comes after TO ({moments[1]}): turn them around")
        before, after = await lineage.at(first), await lineage.at(last)
        whole = difference(lineage, before, after)
        if as_json:
            click.echo(msgspec.json.encode(whole))
            return
        if before.session is None and after.session is None:
            raise click.ClickException(f"there is no session '{session}' at {_at(after)}: {lineage.why_not(last)}")
        notes = ["" if state.session else f": {lineage.why_not(state.position)}" for state in (before, after)]
    click.secho(f"--- {_at(before)}{notes[0]}", bold=True)
    click.secho(f"+++ {_at(after)}{notes[1]}", bold=True)
    if first == last:
        click.echo("FROM and TO are the same moment: nothing is between them")
    elif whole.events == 0:
        click.echo("nothing was recorded of this session between them")
    else:
        click.echo(f"{whole.events} events of this session between them")
    _show_fields(whole)
    _show_messages(transcripts(before, after))


def _are_turned_around(first: Moment, last: Moment) -> bool:
    """Whether they are, though both may be yet to come and so the same."""
    return any(a is not None and b is not None and a > b for a, b in zip(first, last, strict=True))


def _at(state: State) -> str:
    return f"position {state.position}" + (f", {state.recorded_at}" if state.recorded_at else "")


def _show_fields(whole: Difference) -> None:
    shown = {name: change for name, change in whole.fields.items() if change.before or change.after}
    width = max(map(len, shown), default=0)
    if shown:
        click.echo()
    for name, change in shown.items():
        click.echo(f"  {name:<{width}}  {_value(name, change.before)} -> {_value(name, change.after)}")


def _value(name: str, value: Any) -> str:
    if value is None or value in ("", {}):
        return "none"
    if name in _TIMES:
        return rfc3339(round(value * 1e6))
    return plain(repr(value) if isinstance(value, str) else msgspec.json.encode(value).decode())


def _show_messages(shown: Sequence[Shown]) -> None:
    if all(entry.sign == " " for entry in shown):
        return
    click.echo()
    for line, sign in _with_context(shown):
        click.secho(line, fg=_COLOURS[sign])


def _with_context(shown: Sequence[Shown]) -> Iterator[tuple[str, str]]:
    """The lines, each with its sign: what stayed only near to what did not."""
    changes = [place for place, entry in enumerate(shown) if entry.sign != " "]
    near = {place for change in changes for place in range(change - CONTEXT, change + CONTEXT + 1)}
    left_out = 0
    for place, (sign, entry) in enumerate(shown):
        if place not in near:
            left_out += 1
            continue
        if left_out:
            yield _left_out(left_out), " "
            left_out = 0
        for line in lines(entry):
            yield f"{sign} {line}", sign
    if left_out:
        yield _left_out(left_out), " "


def _left_out(count: int) -> str:
    return f"  … {count} unchanged"
