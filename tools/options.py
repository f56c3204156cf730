"""Options shared by the commands: flag, else environment variable, else `turnlog.toml`, else default."""

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

CONFIG_FILE = "turnlog.toml"
GC_THRESHOLD = 50_000


def option(flag: str, *more: str, **settings: Any) -> Callable[[F], F]:
    """An option whose environment variable is its name behind `TURNLOG_`."""
    name = flag.lstrip("-").partition("/")[0].upper().replace("-", "_")
    return click.option(flag, *more, envvar=f"TURNLOG_{name}", show_envvar=True, **settings)


def default_data() -> Path:
    """Where the data is unless told otherwise: the same place from whichever directory a command is started."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "turnlog"


data_option = option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_data,
    show_default="~/.local/share/turnlog",
    help="Directory of the log, the views and the keys.",
)


def load_config(context: click.Context, _parameter: click.Parameter, path: Path | None) -> Path | None:
    """Take defaults from the configuration file: its keys are the flags' names, for all commands alike."""
    if path is None:
        path = Path(CONFIG_FILE)
        if not path.exists():
            return None
    try:
        config = tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise click.BadParameter(f"{path} can not be read: {error}") from error
    config = {key.replace("-", "_"): value for key, value in config.items()}
    group = context.command
    assert isinstance(group, click.Group)  # noqa: S101 (the option is the group's)
    known = {parameter.name for command in group.commands.values() for parameter in command.params}
    if unknown := sorted(config.keys() - known):
        raise click.BadParameter(f"{path} holds unknown settings: {', '.join(unknown)}")
    context.default_map = dict.fromkeys(group.commands, config)
    return path
