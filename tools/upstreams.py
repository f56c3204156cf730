"""The model servers that `turnlog serve` is told of: by flags one, by the configuration file any number."""

import os
import re

import click

from api.models.router import Upstream
from api.settings import DEFAULT
from tools.tables import Tables, UpstreamTable

_NAME = re.compile(r"[\w.-]{1,64}", re.ASCII)  # it stands before the names of models, and a slash behind it


def upstreams_of(tables: Tables | None, *, has_default: bool) -> tuple[Upstream, ...]:
    """The upstreams of the configuration file; raises `click.UsageError` where two are for the same models."""
    if tables is None:
        return ()
    upstreams = tuple(_upstream(tables, name, table) for name, table in tables.upstreams.items())
    taken = {"*": "--upstream"} if has_default else {}
    for upstream in upstreams:
        for model in upstream.models:
            name = f"[upstreams.{upstream.name}]"
            if model in taken:
                raise click.UsageError(f"{tables.path}: {name} and {taken[model]} are both for the models '{model}'")
            taken[model] = name
    return upstreams


def _upstream(tables: Tables, name: str, table: UpstreamTable) -> Upstream:
    where = f"{tables.path}: [upstreams.{name}]"
    if not _NAME.fullmatch(name) or name == DEFAULT:
        raise click.UsageError(
            f"{where} has a name that an upstream can not have: at most 64 letters, digits, '_', '-', '.', and not"
            f" '{DEFAULT}', which is --upstream"
        )
    url = base_url(table.url, f"{where} url")
    if not url:
        raise click.UsageError(f"{where} has no url")
    if unreadable := [model for model in table.models if not model or "*" in model[:-1]]:
        raise click.UsageError(
            f"{where} models are names, or beginnings that end with a '*', and not '{unreadable[0]}'"
        )
    key = key_from(table.key_env, f"{where} key_env")
    return Upstream(name=name, url=url, key=key, api=table.api, models=table.models)


def base_url(url: str, where: str) -> str:
    """The base URL of a model server, `/v1` where it has no path; empty for none. Raises `click.UsageError`."""
    url = url.rstrip("/")
    if not url:
        return ""
    scheme, separator, rest = url.partition("://")
    if scheme not in ("http", "https") or not separator or not rest:
        raise click.UsageError(f"{where} expects a URL such as http://127.0.0.1:8000/v1, got '{url}'")
    return url if "/" in rest else f"{url}/v1"


def key_from(variable: str, where: str) -> str:
    """What the environment variable holds; empty where none is named. Raises `click.UsageError` where it is not set."""
    if not variable:
        return ""
    key = os.environ.get(variable, "")
    if not key:
        raise click.UsageError(f"{where} names {variable}, which is not set")
    return key
