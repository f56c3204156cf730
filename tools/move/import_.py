"""`turnlog import`: take up a log that was exported."""

import contextlib
import gzip
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

import click

from api.keys import DEFAULT_TENANT
from eventstore.chain import Row
from eventstore.log import LogError
from eventstore.moving.incoming import Incoming, Unfit, taking_in
from tools.hermes.importing import import_from_hermes
from tools.move.lines import HEADER_BYTES_MAX, LINE_BYTES_MAX, Header, NotALine, decode, decode_header, erased_by
from tools.move.output import said
from tools.options import data_option
from tools.progress import bar

if TYPE_CHECKING:
    from io import BufferedReader

GZIP_MAGIC = b"\x1f\x8b"
STANDARD_INPUT = Path("-")
PROGRESS_EVENTS = 1_000


class BadLine(Exception):
    """The first line that can not be taken, by its number, and why."""

    def __init__(self, number: int, reason: object) -> None:
        super().__init__(f"line {number}: {reason}")


@click.command("import", short_help="Take up an exported log, or what hermes-agent holds.")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, allow_dash=True), metavar="FILE|-")
@click.option(
    "--from-hermes",
    is_flag=True,
    help="FILEs are the state.db of a hermes-agent and, where there is one, its response_store.db.",
)
@click.option("--tenant", default=DEFAULT_TENANT, show_default=True, help="With --from-hermes: whose it is to be.")
@click.option("--dry-run", is_flag=True, help="With --from-hermes: only say what would be imported.")
@data_option
def import_(files: tuple[Path, ...], from_hermes: bool, tenant: str, dry_run: bool, data: Path) -> None:
    """Take up the log in FILE, or on standard input, as 'turnlog export' wrote it, compressed or not: into a new data
    directory, or behind a log that ends where FILE begins. All of it or nothing; each line is checked before.

    With --from-hermes: take over the sessions, slugs and response ids of a hermes-agent, whose clients then go on where
    they were. Ids that the log knows already are named, and nothing is imported.
    """
    if from_hermes:
        import_from_hermes(files, data, tenant, dry_run=dry_run)
        return
    if dry_run or tenant != DEFAULT_TENANT:
        raise click.UsageError("--tenant and --dry-run go with --from-hermes: an exported log has tenants of its own")
    if len(files) != 1:
        raise click.UsageError(f"expected one FILE, got {len(files)}")
    _import_export(files[0], data)


def _import_export(file: Path, data: Path) -> None:
    name = "standard input" if file == STANDARD_INPUT else str(file)
    try:
        with _opened(file) as lines:
            header = _header(lines)
            with taking_in(data) as log:
                _ensure_follows(log, header, data)
                erased = log.erase(_take(log, header, lines))
    except (BadLine, EOFError, zlib.error, gzip.BadGzipFile) as error:
        reason = error if isinstance(error, BadLine) else f"its compression is damaged or cut short: {error}"
        raise click.ClickException(f"{name}: {reason}. Nothing was imported.") from error
    except (LogError, OSError) as error:
        raise click.ClickException(f"{said(error)}. Nothing was imported.") from error
    click.echo(f"imported {header.until - header.after:,} events up to position {header.until:,} into {data}", err=True)
    if erased:
        click.echo(f"erased {erased} events that the log still held: the next start rids its files of them", err=True)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[BinaryIO]:
    """The file's lines; compressed ones are known by how they begin."""
    with contextlib.ExitStack() as stack:
        raw = sys.stdin.buffer if file == STANDARD_INPUT else stack.enter_context(file.open("rb"))
        buffered = cast("BufferedReader", raw)
        if buffered.peek(len(GZIP_MAGIC)).startswith(GZIP_MAGIC):
            yield cast("BinaryIO", stack.enter_context(gzip.GzipFile(fileobj=buffered)))
        else:
            yield buffered


def _header(lines: BinaryIO) -> Header:
    try:
        return decode_header(_line(lines, 1, HEADER_BYTES_MAX))
    except NotALine as error:
        raise BadLine(1, error) from None


def _ensure_follows(log: Incoming, header: Header, data: Path) -> None:
    """Raise `LogError` unless the file goes on where the log ends."""
    if header.after != log.head.position:
        raise LogError(
            f"the file's events follow position {header.after}, and the log in {data} ends at {log.head.position}: "
            f"export with --after {log.head.position}, or import into a new directory"
        )
    if header.follows != log.head:
        raise LogError(f"the file's events follow another event at position {header.after} than the log in {data} has")


def _take(log: Incoming, header: Header, lines: BinaryIO) -> list[tuple[int, int]]:
    """Take all lines; which ranges of positions they say are erased."""
    number = 1
    erased: list[tuple[int, int]] = []
    with bar("importing", lambda: header.until - header.after) as progress:
        while line := _line(lines, number + 1, LINE_BYTES_MAX):
            number += 1
            try:
                erased += erased_by(_take_line(log, header, line))
            except (NotALine, Unfit) as error:
                raise BadLine(number, error) from None
            if number % PROGRESS_EVENTS == 0:
                progress(number - 1)
    if log.head.position != header.until:
        raise BadLine(number, f"the last one, at position {log.head.position}: the header promises {header.until}")
    if log.head.hash.hex() != header.hash:
        raise BadLine(1, "the header promises another last event than the file has")
    return erased


def _take_line(log: Incoming, header: Header, line: bytes) -> Row:
    row = decode(line)
    if row[0] > header.until:
        raise NotALine(f"position {row[0]}: the header promises that {header.until} is the last")
    if row[4] < log.recorded_us:
        raise NotALine(f"recorded at {row[4]} µs, before the event it follows, at {log.recorded_us}")
    log.add(row)
    return row


def _line(lines: BinaryIO, number: int, bytes_max: int) -> bytes:
    line = lines.readline(bytes_max + 1)
    if len(line) > bytes_max:
        raise BadLine(number, f"longer than {bytes_max} bytes")
    return line
