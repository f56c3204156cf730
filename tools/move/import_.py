"""`turnlog import`: take up a log that was exported."""

from pathlib import Path

import click

from tools.options import data_option


@click.command("import", short_help="Take up an exported log.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True), metavar="FILE|-")
@data_option
def import_(files: tuple[Path, ...], data: Path) -> None:
    """Take up the log in FILE, or on standard input, as `turnlog export` wrote it."""
    if len(files) != 1:
        raise click.UsageError(f"expected one FILE, got {len(files)}")
    _import_export(files[0], data)


def _import_export(file: Path, data: Path) -> None:
    raise click.ClickException(f"{file} can not be imported into {data} yet")
