"""Where a command writes what it makes: a file that is there as a whole or not at all, or standard output."""

import contextlib
import gzip
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import click

from eventstore.moving.whole import in_place_of


def ensure_free(path: Path, *, force: bool, data: Path) -> Path:
    """The path that can be written; raises `click.ClickException` where something must not be replaced."""
    path = Path(os.path.realpath(path))  # and not resolve(), which a loop of links makes fail
    if path.parent == Path(os.path.realpath(data)):
        raise click.ClickException(f"{path} is in the data directory: choose a place outside of it")
    if not path.parent.is_dir():
        raise click.ClickException(f"there is no directory {path.parent}")
    if path.exists() and not path.is_file():
        raise click.ClickException(f"{path} is not a file")
    if path.exists() and not force:
        raise click.ClickException(f"{path} exists: choose another name, or replace it with --force")
    return path


def said(error: Exception) -> str:
    """The error in a sentence, with the file's name first where the system tells it."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


@contextlib.contextmanager
def output(path: Path | None) -> Iterator[BinaryIO]:
    """Where to write; compressed where the name ends in .gz, the same bytes whatever the clock says."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        with in_place_of(path) as partial, partial.open("wb") as file:
            if path.suffix == ".gz":
                with gzip.GzipFile(filename="", mode="wb", fileobj=file, mtime=0) as packed:
                    yield cast("BinaryIO", packed)
            else:
                yield file
    except OSError as error:
        raise click.ClickException(f"{path} can not be written: {error.strerror or error}") from error
