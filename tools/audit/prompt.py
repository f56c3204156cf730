"""`turnlog audit prompt`: what a model was sent."""

import asyncio
from pathlib import Path

import click

from api.turns.cache import Sessions
from api.turns.prompts import Prompts, Sent
from api.turns.refusals import Refusal
from eventstore.log import LogError
from eventstore.sqlite import SqliteLog
from tools.options import data_option, text


@click.command(short_help="Print what the model was sent for a turn.")
@click.argument("turn", callback=text)
@click.option("--tenant", default="default", callback=text, show_default=True, help="Whose turn it is.")
@data_option
def prompt(turn: str, tenant: str, data: Path) -> None:
    """Print the body of the request that the model was sent for TURN, byte for byte, and nothing else.

    TURN is a turn's id, or that of its response, its chat completion or its run; of a session that was deleted, too.
    """
    try:
        sent = asyncio.run(_read(data, tenant, turn))
    except (LogError, Refusal) as error:
        raise click.ClickException(str(error)) from error
    click.echo(sent.body)


async def _read(data: Path, tenant: str, turn: str) -> Sent:
    log = await SqliteLog.open_read_only(data)
    try:
        return await Prompts(log, Sessions(log)).of(tenant, turn)
    finally:
        await log.close()
