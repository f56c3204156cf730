"""The command line: `turnlog …`."""

import gc
from pathlib import Path

import click

from tools import bench, erase, keys, replay, serve
from tools.audit.command import audit
from tools.move.backup import backup
from tools.move.export import export
from tools.move.import_ import import_
from tools.move.restore import restore
from tools.options import GC_THRESHOLD, InOrder, load_config


@click.group(cls=InOrder, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="turnlog")
@click.option(
    "--config",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    envvar="TURNLOG_CONFIG",
    callback=load_config,
    is_eager=True,
    expose_value=False,
    help="Settings file; ./turnlog.toml where there is one.",
)
def main() -> None:
    """An event-sourced session service for LLM chat clients."""
    # Facts are acyclic and opted out of collection; what little is left to collect need not be looked for so often.
    gc.set_threshold(GC_THRESHOLD)


main.add_command(serve.serve)
main.add_command(keys.keys)
main.add_command(audit)
main.add_command(replay.replay)
main.add_command(backup)
main.add_command(restore)
main.add_command(export)
main.add_command(import_)
main.add_command(erase.erase)
main.add_command(bench.bench)
