"""`turnlog restore`: a backup becomes a data directory."""

from pathlib import Path

import click

from eventstore.log import LogError
from eventstore.moving.backup import Occupied
from eventstore.moving.backup import restore as put_back
from eventstore.proofs.audit_key import KEY_FILE, PUBLIC_FILE
from eventstore.proofs.checkpoint import CHECKPOINTS_FILE
from tools.move.belongings import OF_THE_LOG, OPEN, SECRET
from tools.move.output import said
from tools.options import data_option
from tools.progress import counted


@click.command(short_help="Make a data directory of a backup.")
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
    beside = f" (with {', '.join(copied.files)})" if copied.files else ""
    click.echo(f"restored {copied.head.position:,} events into {data}{beside}")
    if copied.aside:
        click.echo(f"What was there is in {copied.aside} now: no erasure reaches into it, so remove it in time.")
    if {PUBLIC_FILE, CHECKPOINTS_FILE} & set(copied.files) and not (data / KEY_FILE).exists():
        click.echo(
            f"The key that signs for the log is not in the backup: put {KEY_FILE} back before the next start, or "
            f"name it with --audit-key. Without it the server signs nothing. Where it is lost for good, move "
            f"{PUBLIC_FILE} and {CHECKPOINTS_FILE} away."
        )
