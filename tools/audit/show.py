"""`turnlog audit show`: the events of a session."""

import asyncio
from pathlib import Path
from typing import Any

import click
import msgspec

from api.wire.moment import Moment
from api.wire.recorded import event_object, fields_of, rfc3339
from eventstore.events import Erased, type_name
from eventstore.log import Recorded
from tools.audit.lineage import reading
from tools.audit.transcript import entries, lines, plain
from tools.moments import MOMENT
from tools.options import data_option, text

LINE_CHARACTERS = 200
SAID_CHARACTERS = 100


@click.command(short_help="Show a session's events, one line each.")
@click.argument("session", callback=text)
@click.option("--tenant", default="default", callback=text, show_default=True, help="Whose session it is.")
@click.option("--as-of", type=MOMENT, default=None, help="Nothing that came after this position or time.")
@click.option("--messages", "as_messages", is_flag=True, help="What was said, as the API shows it, instead of events.")
@click.option("--json", "as_json", is_flag=True, help="Whole events, or messages, one JSON object a line.")
@data_option
def show(session: str, tenant: str, as_of: Moment | None, as_messages: bool, as_json: bool, data: Path) -> None:
    """Show the events of SESSION, one line each: position, version, time, type and content.

    Any id of a session that was compressed shows the whole of it.
    """
    asyncio.run(_show(data, tenant, session, as_of or Moment(), as_messages=as_messages, as_json=as_json))


async def _show(data: Path, tenant: str, session: str, moment: Moment, *, as_messages: bool, as_json: bool) -> None:
    async with reading(data, tenant, session) as lineage:
        position = await lineage.position_of(moment)
        events = [recorded for recorded in lineage.events if recorded.position <= position]
        state = await lineage.at(position) if as_messages else None
        if not events or (state and state.session is None):
            why = lineage.why_not(position)
            raise click.ClickException(f"there is no session '{session}' at position {position}: {why}")
    if state is None:
        for recorded in events:
            click.echo(msgspec.json.encode(event_object(recorded)).decode() if as_json else _line(recorded))
        return
    for entry in entries(state.session):
        for line in [msgspec.json.encode(entry).decode()] if as_json else lines(entry):
            click.echo(line)


def _line(recorded: Recorded) -> str:
    """One event on one line: where it stands, and what it says first."""
    facts = fields_of(recorded)
    said = " ".join(_said(message) for name in ("items", "output") for message in facts.pop(name, ()))
    rest = {name: value for name, value in facts.items() if value not in ("", [], {}, None)}
    content = " ".join([said, *(f"{name}={_short(value)}" for name, value in rest.items())]).strip()
    if isinstance(recorded.event, Erased):
        content = "(erased)"
    head = (
        f"{recorded.position:>8} {recorded.version:>5} {rfc3339(recorded.recorded_us)} {type_name(recorded.event):<20}"
    )
    line = f"{head} {plain(' '.join(content.split()))}".rstrip()
    return line if len(line) <= LINE_CHARACTERS else line[: LINE_CHARACTERS - 1] + "…"


def _said(message: Any) -> str:
    """A message as a person would note it down."""
    if not isinstance(message, dict):
        return _short(message)
    content = message.get("content")
    text = content if isinstance(content, str) else _short({k: v for k, v in message.items() if k != "role" and v})
    return f"{message.get('role') or message.get('type')}: {_short(text[:SAID_CHARACTERS])!r}"


def _short(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
