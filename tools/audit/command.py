"""`turnlog audit`: its commands."""

import click

from tools.audit import diff, prompt, proofs, show, verify
from tools.options import InOrder


@click.group(cls=InOrder)
def audit() -> None:
    """Ask the log itself, and prove it. Works beside a running server and without one."""


audit.add_command(show.show)
audit.add_command(diff.diff)
audit.add_command(prompt.prompt)
audit.add_command(verify.verify_log)
audit.add_command(proofs.prove)
audit.add_command(proofs.checkpoint)
audit.add_command(proofs.key)
audit.add_command(proofs.verifier)
