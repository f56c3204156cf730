"""`turnlog audit show`: the events of a session."""

import asyncio
from pathlib import Path
from typing import Any

import click
import msgspec

from api.wire.recorded import event_object, fields_of, rfc3339
from eventstore.events import CompressionRotated, Erased, lineage_stream, parse_stream, type_name
from eventstore.log import LogError, Recorded
from eventstore.sqlite import SqliteLog
from tools.options import data_option

LINE_CHARACTERS = 200
SAID_CHARACTERS = 100


@click.command(short_help="A session's events, one line each.")
@click.argument("session")
@click.option("--tenant", default="default", show_default=True, help="Whose session it is.")
@click.option("--json", "as_json", is_flag=True, help="Whole events, one JSON object a line.")
@data_option
def show(session: str, tenant: str, as_json: bool, data: Path) -> None:
    """Show the events of SESSION, one line each: position, version, time, type and content.

    Any id of a session that was compressed shows the whole of it.
    """
    try:
        events = asyncio.run(_read(data, tenant, session))
    except LogError as error:
        raise click.ClickException(str(error)) from error
    if not events:
        raise click.ClickException(f"tenant '{tenant}' has no session '{session}' in {data}")
    for recorded in events:
        click.echo(msgspec.json.encode(event_object(recorded)).decode() if as_json else _line(recorded))


async def _read(data: Path, tenant: str, session: str) -> list[Recorded]:
    """The events of the lineage that has a session of that id."""
    log = await SqliteLog.open_read_only(data)
    try:
        stream = lineage_stream(tenant, session)
        return await log.read(stream) or await log.read(await _stream_of(log, tenant, session) or stream)
    finally:
        await log.close()


async def _stream_of(log: SqliteLog, tenant: str, session: str) -> str | None:
    """The lineage that was rotated into that session: found by reading the log, for which no view need be there."""
    async for batch in log.read_all():
        for recorded in batch:
            is_it = isinstance(recorded.event, CompressionRotated) and recorded.event.session_id == session
            if is_it and parse_stream(recorded.stream).tenant == tenant:
                return recorded.stream
    return None


def _line(recorded: Recorded) -> str:
    """One event on one line: where it stands, and what it says first."""
    plain = fields_of(recorded)
    said = " ".join(_said(message) for name in ("items", "output") for message in plain.pop(name, ()))
    rest = {name: value for name, value in plain.items() if value not in ("", [], {}, None)}
    content = " ".join([said, *(f"{name}={_short(value)}" for name, value in rest.items())]).strip()
    if isinstance(recorded.event, Erased):
        content = "(erased)"
    head = (
        f"{recorded.position:>8} {recorded.version:>5} {rfc3339(recorded.recorded_us)} {type_name(recorded.event):<20}"
    )
    line = f"{head} {' '.join(content.split())}"
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
