"""Options shared by the commands: flag, else environment variable, else `turnlog.toml`, else default."""

import os
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from tools.tables import Tables, underscored

F = TypeVar("F", bound=Callable[..., Any])

CONFIG_FILE = "turnlog.toml"
GC_THRESHOLD = 50_000


class InOrder(click.Group):
    """A group whose help lists the commands as they were added: what is needed first stands first."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click calls it so)
        return list(self.commands)


def option(flag: str, *more: str, **settings: Any) -> Callable[[F], F]:
    """An option whose environment variable is its name behind `TURNLOG_`."""
    name = flag.lstrip("-").partition("/")[0].upper().replace("-", "_")
    return click.option(flag, *more, envvar=f"TURNLOG_{name}", show_envvar=True, **settings)


def together(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """One decorator for all of them, shown in this order."""

    def decorated(command: Any) -> Any:
        for one in reversed(options):
            command = one(command)
        return command

    return decorated


def default_data() -> Path:
    """Where the data is unless told otherwise: the same place from whichever directory a command is started."""
    home = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(home) / "turnlog"


data_option = option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=default_data,
    help="Directory of the log, the views and the keys; ~/.local/share/turnlog unless told otherwise.",
)


def text(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """A callback for what must be text: a terminal passes on any bytes. Raises `click.BadParameter`."""
    try:
        (value or "").encode()
    except UnicodeEncodeError:
        raise click.BadParameter(f"{value!a} is not text in UTF-8") from None
    return value


def load_config(context: click.Context, _parameter: click.Parameter, path: Path | None) -> Path | None:
    """Take defaults from the configuration file: its keys are the flags' names, for all commands alike."""
    if path is None:
        path = Path(CONFIG_FILE)
        if not path.exists():
            return None
    try:
        config = tomllib.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:  # not there, not text, not TOML, nested without end
        raise click.BadParameter(f"{path} can not be read: {error}") from error
    config = underscored(config)
    for name in ("model", "upstream"):
        if isinstance(config.get(name), dict):
            raise click.BadParameter(f"{path}: tables are called [{name}s.NAME], and not [{name}.…]")
    context.obj = Tables(path, config.pop("models", {}), config.pop("upstreams", {}))
    group = context.command
    assert isinstance(group, click.Group)  # noqa: S101 (the option is the group's)
    if unknown := sorted(config.keys() - _settings_of(group)):
        raise click.BadParameter(
            f"{path} holds unknown settings: {', '.join(unknown)}"
            " (a flat list of flags, and [models.NAME] and [upstreams.NAME] tables)"
        )
    context.default_map = _defaults_for(group, config)
    return path


def _settings_of(group: click.Group) -> set[str | None]:
    """The names of all options of all commands below `group`."""
    names: set[str | None] = set()
    for command in group.commands.values():
        names |= _settings_of(command) if isinstance(command, click.Group) else {p.name for p in command.params}
    return names


def _defaults_for(group: click.Group, config: dict[str, Any]) -> dict[str, Any]:
    """The same defaults for every command, in the nesting that click looks them up in."""
    return {
        name: _defaults_for(command, config) if isinstance(command, click.Group) else config
        for name, command in group.commands.items()
    }


def made(data: Path) -> Path:
    """The data directory, made where it lacks; raises `click.ClickException` where it can not be."""
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise click.ClickException(f"can not make the data directory {data}: {error.strerror}") from error
    return data
