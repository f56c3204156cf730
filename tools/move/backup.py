"""`turnlog backup`: the log and what belongs to it in one file, while the server serves."""

from pathlib import Path

import click

from eventstore.log import LogError
from eventstore.moving.backup import back_up
from tools.move.belongings import OPEN, SECRET
from tools.move.output import ensure_free, said
from tools.options import data_option
from tools.progress import counted


@click.command(short_help="Copy the log into one file, while serving.")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--force", is_flag=True, help="Replace FILE.")
@click.option(
    "--with-keys", is_flag=True, help="Put the secrets in too: the key that signs checkpoints, the first API key."
)
@data_option
def backup(file: Path, force: bool, with_keys: bool, data: Path) -> None:
    """Copy the log to FILE as it is at this moment, checked, with the list of API keys (their digests) and the signed
    checkpoints. Works beside a running server, which goes on meanwhile. 'turnlog restore' takes it up.
    """
    path = ensure_free(file, force=force, data=data)
    names = OPEN + SECRET if with_keys else OPEN
    try:
        with counted("backing up") as progress:
            copied = back_up(data, path, names, progress)
    except (LogError, OSError) as error:
        raise click.ClickException(f"{said(error)}. There is no backup.") from error
    beside = f", with {', '.join(copied.files)}" if copied.files else ""
    size = f"{path.stat().st_size:,} bytes"
    click.echo(f"backed up {copied.head.position:,} events to {file} ({size}{beside})")
