"""A backup: one file with a log as it was at one moment, and with the small files of its directory.

The file is a log as `log.db` is, with one table more for those files; the `sqlite3` shell and every tool for a log can
read it. It is written row by row in one read transaction, so that nobody who writes waits for it and it never begins
anew, and each row is checked on the way. What was erased, and what SQLite has left in free pages, does not get into it.
"""

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeAlias

from eventstore.chain import Row
from eventstore.log import Head, LogDamaged, LogError
from eventstore.moving.incoming import Incoming, Unfit, owned, written
from eventstore.moving.outgoing import START, Outgoing
from eventstore.moving.whole import beside, in_place_of, sync
from eventstore.rows import decoded
from eventstore.sqlite import LOG_FILE

Progress: TypeAlias = Callable[[int, int], None]  # the position that was reached, and the last one

PIECE_BYTES = 1_000_000
LINES_SUFFIX = ".jsonl"


class Copied(NamedTuple):
    """What was copied: the log up to an event, and which small files. `aside` has what was in the way, if anything."""

    head: Head
    files: tuple[str, ...]
    aside: Path | None = None


class Occupied(LogError):
    """The directory holds what a restore would write: names it."""


def back_up(directory: Path, target: Path, names: Sequence[str], progress: Progress) -> Copied:
    """Copy the log in `directory`, and those of the files `names` that it has, to `target`, which is replaced once the
    copy is whole and durable. Works beside a server: every event that was acknowledged before is in it.

    Raises `LogError` and `OSError`.
    """
    with (
        Outgoing.open(directory / LOG_FILE) as outgoing,
        in_place_of(target) as partial,
        written(partial, journal="DELETE") as incoming,
    ):
        files = [name for name in names if (directory / name).is_file()]
        # Before the log: what they say of it must be in it.
        incoming.keep((name, _pieces(directory / name)) for name in files)
        outgoing.hold()
        _copy(outgoing, incoming, progress)
    return Copied(incoming.head, tuple(files))


def restore(
    source: Path,
    directory: Path,
    names: Collection[str],
    tied: Collection[str],
    *,
    replaces: bool,
    progress: Progress,
) -> Copied:
    """Put the log in `source`, and the small files beside it, into `directory`, whole or not at all.

    Only files of `names` are known; `tied` are those that say something of the log, and are of no use to another one.
    Raises `Occupied` where anything is in the way, unless `replaces`, which sets that aside; `LogError`, `OSError`.
    """
    with Outgoing.open(source) as outgoing, owned(directory):
        outgoing.hold()
        files = outgoing.kept()
        if unknown := files.keys() - set(names):
            raise LogError(f"it holds files that this turnlog does not know: {', '.join(sorted(unknown))}")
        in_the_way = _in_the_way(directory, files, tied)
        if in_the_way and not replaces:
            raise Occupied(f"{directory} holds {', '.join(path.name for path in in_the_way)}")
        with in_place_of(directory / LOG_FILE) as partial:
            with written(partial) as incoming:
                _copy(outgoing, incoming, progress, check=decoded)
            sync(partial)
            aside = _set_aside(directory, in_the_way) if in_the_way else None
            for name, content in files.items():
                with in_place_of(directory / name) as path:
                    path.write_bytes(content)
    return Copied(incoming.head, tuple(files), aside)


def _copy(
    outgoing: Outgoing,
    incoming: Incoming,
    progress: Progress,
    check: Callable[[Sequence[Row]], object] = lambda _rows: None,
) -> None:
    for rows in outgoing.rows(START, outgoing.head.position, check=False):
        for row in rows:
            try:
                incoming.add(row)
            except Unfit as error:
                raise LogDamaged(incoming.head.position + 1, str(error)) from None
        check(rows)
        progress(incoming.head.position, outgoing.head.position)


def _pieces(path: Path) -> Iterator[bytes]:
    """The file's content. A line that is being written just now is left out."""
    piece = b""
    with path.open("rb") as lines:
        for line in lines:
            if path.suffix == LINES_SUFFIX and not line.endswith(b"\n"):
                break
            piece += line
            if len(piece) >= PIECE_BYTES:
                yield piece
                piece = b""
    yield piece


def _in_the_way(directory: Path, files: Mapping[str, bytes], tied: Collection[str]) -> list[Path]:
    log = directory / LOG_FILE
    found = [path for path in (log, *beside(log)) if path.exists()]
    for name in sorted({*files, *tied}):
        path = directory / name
        if path.exists() and path.read_bytes() != files.get(name):
            found.append(path)
    return found


def _set_aside(directory: Path, paths: Sequence[Path]) -> Path:
    """Move files into a new directory beside them. They are there before they are gone from here, the log's first: a
    kill in between leaves no log at all rather than one without its write-ahead file, or with another's.
    """
    numbers = (number for number in range(1, 1_000_000) if not (directory / f"replaced-{number}").exists())
    aside = directory / f"replaced-{next(numbers)}"
    aside.mkdir(mode=0o700)
    for path in paths:
        os.link(path, aside / path.name)
    sync(aside)
    sync(directory)
    for path in paths:
        path.unlink()
    return aside
