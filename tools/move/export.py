"""`turnlog export`: the log as lines of JSON."""

from collections.abc import Iterator
from pathlib import Path

import click

from api.wire.moment import Moment
from eventstore.chain import Row, is_erased
from eventstore.events import CompressionRotated, lineage_stream, parse_stream
from eventstore.log import LogError
from eventstore.moving.outgoing import Outgoing
from eventstore.rows import decoded
from eventstore.sqlite import LOG_FILE
from tools.moments import MOMENT
from tools.move.lines import FORMAT, Excerpt, Header, encode_header, encoded
from tools.move.output import ensure_free, output, said
from tools.options import data_option, text
from tools.progress import bar

POSITION = click.IntRange(min=0, max=2**63 - 1)


@click.command(short_help="Write the log as lines of JSON.")
@click.option(
    "-o", "--output", "file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Write there and not to standard output; compressed where it ends in .gz.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace FILE.")
@click.option("--after", type=POSITION, metavar="POSITION", help="Only what follows this position.")
@click.option("--until", type=MOMENT, help="Only what was recorded up to this position or time.")
@click.option("--bare", is_flag=True, help="Without what the events say in words: smaller, and as good to import.")
@click.option(
    "--session", metavar="ID", callback=text, help="Only the events of a session: for reading, and not to be imported."
)
@click.option("--tenant", default="default", callback=text, show_default=True, help="Whose session it is.")
@data_option
def export(
    file: Path | None,
    force: bool,
    after: int | None,
    until: Moment | None,
    bare: bool,
    session: str | None,
    tenant: str,
    data: Path,
) -> None:
    """Write the log as lines of JSON, one event a line, in its order and checked: what 'turnlog import' takes up again,
    with the same bytes and hashes. Works beside a running server; what is recorded meanwhile is left out.
    """
    if session is not None and (after is not None or until is not None):
        raise click.UsageError("--session shows all of a session: leave --after and --until out")
    path = ensure_free(file, force=force, data=data) if file else None
    try:
        with Outgoing.open(data / LOG_FILE) as log:
            header, rows = _excerpt(log, tenant, session) if session is not None else _part(log, after or 0, until)
            count = _write(path, header, rows, bare=bare)
    except BrokenPipeError:
        raise  # whoever reads standard output has seen enough: click knows
    except (LogError, OSError) as error:
        raise click.ClickException(f"{said(error)}. Nothing whole was exported.") from error
    click.echo(f"exported {count:,} events" + (f" to {file}" if file else ""), err=True)


def _part(log: Outgoing, after: int, until: Moment | None) -> tuple[Header, Iterator[list[Row]]]:
    """The events after a position up to a moment, and their header."""
    first = log.at(after)
    last = log.head.position
    if until is not None and until.position is not None:
        last = min(last, until.position)
    elif until is not None and until.recorded_us is not None:
        last = log.last_until(until.recorded_us)
    last = max(last, after)
    return Header.of(first, log.at(last)), log.rows(first, last)


def _excerpt(log: Outgoing, tenant: str, session: str) -> tuple[Excerpt, Iterator[list[Row]]]:
    """The events of the lineage that has a session of that id."""
    stream = lineage_stream(tenant, session)
    rows = log.of_stream(stream)
    first = next(rows, None)
    if first is None:
        rows = log.of_stream(_stream_of(log, tenant, session) or stream)
        first = next(rows, None)
    if first is None:
        raise LogError(f"tenant '{tenant}' has no session '{session}' in this log")
    return Excerpt(FORMAT, tenant, session), _one_by_one(first, rows)


def _stream_of(log: Outgoing, tenant: str, session: str) -> str | None:
    """The lineage that was rotated into that session."""
    for row in log.of_type(CompressionRotated.__name__):
        event = None if is_erased(row[5]) else decoded([row])[0].event
        is_it = isinstance(event, CompressionRotated) and event.session_id == session
        if is_it and parse_stream(row[1]).tenant == tenant:
            return row[1]
    return None


def _one_by_one(first: Row, rows: Iterator[Row]) -> Iterator[list[Row]]:
    yield [first]
    for row in rows:
        yield [row]


def _write(path: Path | None, header: Header | Excerpt, batches: Iterator[list[Row]], *, bare: bool) -> int:
    """Write everything; how many events that were."""
    total = header.until - header.after if isinstance(header, Header) else None
    count = 0
    with output(path) as lines, bar("exporting", lambda: total) as progress:
        lines.write(encode_header(header))
        for rows in batches:
            for row in rows:
                lines.write(encoded(row, bare=bare))
            count += len(rows)
            progress(count)
    return count
