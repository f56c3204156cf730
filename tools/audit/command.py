"""`turnlog audit`: its commands."""

import click

from tools.audit import prompt, show


@click.group()
def audit() -> None:
    """Read the log itself. Works beside a running server and without one."""


audit.add_command(show.show)
audit.add_command(prompt.prompt)
