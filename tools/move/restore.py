"""`turnlog restore`: a backup becomes a data directory."""

from pathlib import Path

import click

from eventstore.backup import Occupied
from eventstore.backup import restore as put_back
from eventstore.log import LogError
from tools.move.belongings import OF_THE_LOG, OPEN, SECRET
from tools.move.output import said
from tools.options import data_option
from tools.progress import counted


@click.command(short_help="A backup becomes a data directory.")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--force", is_flag=True, help="Set aside what is in the way, in a directory beside it.")
@data_option
def restore(file: Path, force: bool, data: Path) -> None:
    """Put the log in FILE, checked, and what was backed up with it into a data directory that has no log: all of it or
    nothing. 'turnlog serve' goes on from there, and makes the views anew.
    """
    try:
        with counted("restoring") as progress:
            copied = put_back(file, data, OPEN + SECRET, OF_THE_LOG, replaces=force, progress=progress)
    except Occupied as error:
        raise click.ClickException(
            f"{error}: choose another directory, or set that aside with --force. Nothing was restored."
        ) from error
    except (LogError, OSError) as error:
        raise click.ClickException(f"{file} can not be restored: {said(error)}. Nothing was restored.") from error
    if copied.aside:
        click.echo(f"what was there is in {copied.aside} now")
    beside = f", and {', '.join(copied.files)}" if copied.files else ""
    click.echo(f"restored {copied.head.position} events up to position {copied.head.position} into {data}{beside}")
