"""`turnlog` in this process, for what is not about the process: one of its own takes a second to begin."""

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog
from click.testing import CliRunner, Result

from tools.cli import main


def invoke(*arguments: str, cwd: Path, **env: str) -> Result:
    """Run a command in `cwd` to its end, with nothing of this machine's configuration. What it does not catch is
    raised.
    """
    with ThreadPoolExecutor(1) as pool:  # it may run a loop of its own
        return pool.submit(_invoke, arguments, cwd, env).result()


def _invoke(arguments: tuple[str, ...], cwd: Path, env: dict[str, str]) -> Result:
    nothing = dict.fromkeys(name for name in os.environ if name.startswith("TURNLOG_"))
    logging = structlog.get_config()
    try:
        with contextlib.chdir(cwd):
            return CliRunner().invoke(
                main, arguments, env={**nothing, "HOME": str(cwd), **env}, catch_exceptions=False, prog_name="turnlog"
            )
    finally:
        structlog.configure(**logging)
