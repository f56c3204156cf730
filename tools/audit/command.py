"""`turnlog audit`: its commands."""

import click

from tools.audit import diff, proofs, show, verify


@click.group()
def audit() -> None:
    """Read the log itself. Works beside a running server and without one."""


audit.add_command(show.show)
audit.add_command(diff.diff)
audit.add_command(verify.verify_log)
audit.add_command(proofs.prove)
audit.add_command(proofs.checkpoint)
audit.add_command(proofs.key)
audit.add_command(proofs.verifier)
