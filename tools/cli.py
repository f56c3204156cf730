"""The command line: `turnlog …`."""

import errno
import gc
import io
import os
import sys
from pathlib import Path
from typing import Any

import click

from tools import bench, erase, keys, replay, serve
from tools.audit.command import audit
from tools.move.backup import backup
from tools.move.export import export
from tools.move.import_ import import_
from tools.move.output import said
from tools.move.restore import restore
from tools.options import GC_THRESHOLD, InOrder, load_config


class _Commands(InOrder):
    """Says in a sentence what no command has: that standard output is full, that a name is too long for any file."""

    def invoke(self, context: click.Context) -> Any:
        """Run the command that is asked for."""
        try:
            return super().invoke(context)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # whoever reads standard output has seen enough: click knows
            raise click.ClickException(said(error)) from error
        finally:
            if sys.stdout is not None:
                _let_go()


def _let_go() -> None:
    """Drop what standard output can not take: else Python tries again at its end, and complains in words of its own."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        pass  # click sees to it
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
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
    if sys.stdout is None:
        raise click.ClickException("standard output is closed")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # names of files are shown as the bytes that they are


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
