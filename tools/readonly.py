"""What `turnlog serve --read-only` needs, and does not make."""

from pathlib import Path

import click

from api import keys
from api.keys import KeyProblem


def directory(data: Path) -> Path:
    """The data directory; raises `click.ClickException` where there is none."""
    if not data.is_dir():
        raise click.ClickException(f"there is no data directory {data}")
    return data


def ensure_keys(data: Path) -> None:
    """Raise `click.ClickException` where nobody could ask this server for anything."""
    try:
        has_keys = bool(keys.read(data))
    except KeyProblem as error:
        raise click.ClickException(str(error)) from error
    if not has_keys:
        raise click.ClickException(
            f"there are no keys in {data}, and a server that only reads makes none: give --api-key, or --no-auth"
        )
