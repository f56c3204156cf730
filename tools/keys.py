"""`turnlog keys`: make, list and revoke API keys."""

import datetime
from pathlib import Path

import click

from api import keys as keyring
from api.keys import DEFAULT_TENANT, KeyProblem
from tools.options import data_option, made


@click.group()
def keys() -> None:
    """Make, list and revoke API keys. A running server notices changes within a second."""


@keys.command()
@click.argument("name")
@click.option("--tenant", default=DEFAULT_TENANT, show_default=True, help="Whose data the key opens.")
@data_option
def add(name: str, tenant: str, data: Path) -> None:
    """Make a key called NAME and print it: the only time it is shown."""
    try:
        secret = keyring.add(made(data), name, tenant)
    except KeyProblem as error:
        raise click.ClickException(str(error)) from error
    click.echo(secret)
    click.echo(f"Key '{name}' opens tenant '{tenant}'. Keep it: it is not shown again.", err=True)


@keys.command("list")
@data_option
def list_(data: Path) -> None:
    """List the keys by name, tenant and date."""
    try:
        found = keyring.read(data)
    except KeyProblem as error:
        raise click.ClickException(str(error)) from error
    if not found:
        click.echo(
            f"No keys in {data}: 'turnlog serve' makes the first one, 'turnlog keys add NAME' another.", err=True
        )
    for key in found:
        made = datetime.datetime.fromtimestamp(key.created_s, datetime.UTC)
        click.echo(f"{key.name:<24} {key.tenant:<24} {made:%Y-%m-%d %H:%M}Z  sha256:{key.digest[:12]}…")


@keys.command()
@click.argument("name")
@data_option
def revoke(name: str, data: Path) -> None:
    """Make the key called NAME useless."""
    try:
        keyring.revoke(data, name)
    except KeyProblem as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"Key '{name}' is revoked.", err=True)
