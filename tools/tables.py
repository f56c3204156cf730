"""The tables of the configuration file: what is said of single models, and of single model servers."""

from pathlib import Path
from typing import Annotated, Any, TypeVar

import click
import msgspec

from api.models.router import Dialect

T = TypeVar("T")


class ModelTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What can be said of one model in the configuration file; what is not said is as for all."""

    context_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    compress_at: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    summary_model: str | None = None
    summary_prompt: str | None = None


class UpstreamTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model server: its base URL, the environment variable that holds its key, what it speaks, and for which models
    it is: names, or beginnings of names that end with a `*`.
    """

    url: str
    key_env: str = ""
    api: Dialect = "chat"
    models: tuple[str, ...] = ()


class Tables:
    """The tables of the file at `path`, checked. Raises `click.BadParameter`."""

    def __init__(self, path: Path, models: object, upstreams: object) -> None:
        self.path = path
        self.models: dict[str, dict[str, Any]] = {
            name: msgspec.to_builtins(table) for name, table in self._read("models", "a model", models, ModelTable)
        }
        self.upstreams = dict(self._read("upstreams", "an upstream", upstreams, UpstreamTable))

    def _read(self, kind: str, what: str, tables: object, type_: type[T]) -> list[tuple[str, T]]:
        if not isinstance(tables, dict):
            raise click.BadParameter(f"{self.path}: {kind} are tables, [{kind}.NAME], and not {tables!r}")
        return [(name, self._table(f'[{kind}."{name}"]', what, table, type_)) for name, table in tables.items()]

    def _table(self, name: str, what: str, table: object, type_: type[T]) -> T:
        try:
            return msgspec.convert(underscored(table) if isinstance(table, dict) else table, type_)
        except msgspec.ValidationError as error:
            message = f"{self.path}: {name} does not hold the settings of {what}: {error}"
            raise click.BadParameter(message) from error


def underscored(table: dict[str, Any]) -> dict[str, Any]:
    """The settings by the names they have in Python, however they are spelt."""
    return {key.replace("-", "_"): value for key, value in table.items()}
