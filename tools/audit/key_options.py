"""Where the key that signs checkpoints is, and how often it does: for the commands that sign or verify."""

from pathlib import Path

import click

from api.settings import Settings
from eventstore.proofs.audit_key import KEY_FILE
from tools.options import option, together

_DEFAULT = Settings(data=Path())

audit_key_option = option(
    "--audit-key",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="File of the key that signs checkpoints; audit.key in the data directory unless told otherwise.",
)
_name_option = option(
    "--audit-name",
    default="",
    help="What the log is called in checkpoints, such as example.com/chat; for a new key.",
)
_every_option = option(
    "--checkpoint-every-s",
    type=click.FloatRange(min=0),
    default=_DEFAULT.checkpoint_every_s,
    show_default=True,
    help="How often a checkpoint of the log is signed, where it has grown. 0: only when one is asked for.",
)
# What a server is told about its checkpoints.
audit_options = together(audit_key_option, _name_option, _every_option)


def key_path(data: Path, audit_key: Path | None) -> Path:
    """The file that is meant."""
    return audit_key or data / KEY_FILE
