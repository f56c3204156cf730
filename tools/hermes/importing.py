"""`turnlog import --from-hermes`: read, translate, look whether the ids are free, record."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import click

from api.keys import KeyProblem, ensure_tenant
from api.settings import Settings
from eventstore.events import (
    CompressionRotated,
    ConversationCreated,
    ItemsAdded,
    SessionStarted,
    TurnQueued,
    TurnStarted,
    parse_stream,
)
from eventstore.log import LogError, Recorded
from eventstore.moving.incoming import taking_in
from eventstore.sqlite import LOG_FILE, SqliteLog
from tools.hermes.facts import Dated
from tools.hermes.lineage import Lineage
from tools.hermes.moving import Moved, many, moved
from tools.hermes.reading import Unreadable, read
from tools.hermes.rows import Notes
from tools.move.output import said
from tools.progress import bar

TTL_S = Settings(data=Path()).response_ttl_s
DAY_S = 86_400
NAMED_MAX = 5  # of the ids that are taken
PROGRESS_EVENTS = 1_000

Id = tuple[str, str, str]  # what it is an id of, the tenant, the id


def import_from_hermes(files: Sequence[Path], data: Path, tenant: str, *, dry_run: bool) -> None:
    """Import the `state.db` and the `response_store.db`, where there is one, into the log in `data`."""
    if not 1 <= len(files) <= 2:
        raise click.UsageError(f"expected STATE_DB and perhaps RESPONSE_STORE_DB, got {len(files)} files")
    notes = Notes()
    try:
        ensure_tenant(tenant)
        original = read(files[0], files[1] if len(files) > 1 else None, notes)
    except (KeyProblem, Unreadable) as error:
        raise click.ClickException(f"{error}. Nothing was imported.") from error
    found = moved(original, tenant, notes)
    if not found.facts:
        raise click.ClickException(f"{files[0]} holds no sessions: there is nothing to import")
    if dry_run:
        _show(found)
    else:
        _record(found.facts, data)
    _account(found, data, dry_run=dry_run)


def _record(facts: Sequence[Dated], data: Path) -> None:
    """All facts, or none. Raises `click.ClickException`."""
    try:
        with taking_in(data) as log, bar("importing", lambda: len(facts)) as progress:
            if taken := sorted(_ids(facts) & asyncio.run(_known(data))):
                raise click.ClickException(_refusal(taken))
            for number, fact in enumerate(facts, 1):
                log.record(fact.at_us, fact.stream, fact.event)
                if number % PROGRESS_EVENTS == 0:
                    progress(number)
    except (LogError, OSError) as error:
        raise click.ClickException(f"{said(error)}. Nothing was imported.") from error


def _ids(facts: Sequence[Dated]) -> set[Id]:
    recorded = (Recorded(0, fact.stream, 0, 0, fact.event, b"") for fact in facts)
    return {id_ for one in recorded for id_ in _made(one)}


def _made(recorded: Recorded) -> Iterator[Id]:
    """The ids that an event makes known. A turn's is one for all tenants: its response is found by it."""
    tenant, event = parse_stream(recorded.stream).tenant, recorded.event
    match event:
        case SessionStarted() | CompressionRotated():
            yield "session", tenant, event.session_id
        case ConversationCreated():
            yield "conversation", tenant, event.name
            yield "session", tenant, event.session_id
        case TurnStarted() | ItemsAdded() | TurnQueued():
            yield "turn", "", event.turn_id
        case _:
            pass


async def _known(data: Path) -> set[Id]:
    """All ids that the log in `data` has ever had; a session that was deleted keeps its stream."""
    if not (data / LOG_FILE).exists():
        return set()
    log = await SqliteLog.open_read_only(data)
    try:
        return {id_ async for batch in log.read_all() for recorded in batch for id_ in _made(recorded)}
    finally:
        await log.close()


def _refusal(taken: Sequence[Id]) -> str:
    names = ", ".join(f"{what} '{id_}'" for what, _, id_ in taken[:NAMED_MAX])
    more = f" and {len(taken) - NAMED_MAX:,} more" if len(taken) > NAMED_MAX else ""
    return (
        f"the log knows {names}{more} already: it was imported before, or ids meet by chance. "
        "Import into another data directory. Nothing was imported."
    )


def _show(found: Moved) -> None:
    """One line a lineage."""
    for lineage in found.lineages:
        click.echo(_line(lineage, found.slugs))


def _line(lineage: Lineage, slugs: dict[str, list[str]]) -> str:
    first, tip = lineage.generations[0], lineage.generations[-1]
    answered = [exchange.response for exchange in lineage.exchanges if exchange.response]
    names = [name for response in answered for name in slugs.get(response.turn_id, ())]
    messages = sum(len(exchange.rows) for exchange in lineage.exchanges)
    said = [
        " -> ".join(generation.session_id for generation in lineage.generations),
        f"forked from {lineage.parent_session_id}" if lineage.parent else "",
        first.session.source,
        f"'{tip.session.title}'" if tip.session.title else "",
        many(messages, "message"),
        many(len(answered), "response") if answered else "",
        f"conversations {', '.join(names)}" if names else "",
    ]
    return ", ".join(filter(None, said))


def _old(lineages: Sequence[Lineage]) -> int:
    """How many responses a server lets go of at once, unless it is told otherwise."""
    before_us = (time.time() - TTL_S) * 1_000_000
    exchanges = (exchange for lineage in lineages for exchange in lineage.exchanges)
    return sum(e.response is not None and e.response.created_us < before_us for e in exchanges)


def _account(found: Moved, data: Path, *, dry_run: bool) -> None:
    account = found.account
    done = "would import" if dry_run else "imported"
    click.echo(f"{done} {account} into {data}")
    if account.copies:
        click.echo(
            f"{many(account.copies, 'row')} of hermes held copies and summaries: rotations and forks stand for them"
        )
    if account.left_out:
        click.echo(f"{many(account.left_out, 'message')} could not be taken over")
    if old := _old(found.lineages):
        click.echo(
            f"{many(old, 'response')} older than {TTL_S / DAY_S:g} days can be asked for where --response-ttl-s is 0"
        )
    for sentence in account.not_understood:
        click.echo(f"  {sentence}")
