"""`turnlog erase`: take what was said out of the log and the views for good, where no server runs."""

import asyncio
import contextlib
import getpass
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import click

from api.keys import DEFAULT_TENANT
from api.turns.erasure import Erasures, Order, Scope, finish
from api.turns.erasure_scope import KINDS, Selection
from api.turns.lineages import Lineages
from api.turns.refusals import Refusal
from eventstore.log import LogError, LogLocked, NotPurged
from eventstore.sqlite import LOG_FILE, SqliteLog
from projections.runner import VIEWS_FILE, Runner, ViewsUnavailable
from projections.store import ViewsUnusable
from projections.views import VIEWS
from tools.logs import quiet
from tools.options import data_option
from tools.progress import bar

CHARACTERS_MAX = 256
LISTED_MAX = 50
LOCK_WAIT_S = 10.0


class Text(click.ParamType[str]):
    """A text that is not empty, as the API takes it, too."""

    name = "text"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The text, if it is one."""
        text = str(value)
        if not text.strip() or len(text) > CHARACTERS_MAX or not text.isprintable():
            self.fail(f"expected 1 to {CHARACTERS_MAX} characters, without control characters", param, ctx)
        return text


TEXT = Text()


@click.command(short_help="Take out what was said, for good.")
@click.option("--session", type=TEXT, help="The session of this id, with all of its lineage; deleted ones, too.")
@click.option("--conversation", type=TEXT, help="The sessions that this slug or conv_… id leads to, or has led to.")
@click.option("--user", type=TEXT, help="The sessions that the user of this id has spoken in.")
@click.option("--session-key", type=TEXT, help="The sessions with turns under this session key.")
@click.option("--tenant", type=TEXT, default=DEFAULT_TENANT, show_default=True, help="Whose sessions they are.")
@click.option("--why", type=TEXT, required=True, help="The reason; recorded for good.")
@click.option("--by", type=TEXT, help="Who asks for it; recorded for good. Your name on this machine unless told.")
@click.option("--yes", is_flag=True, help="Do not list what is meant, and do not ask.")
@data_option
def erase(tenant: str, why: str, by: str | None, yes: bool, data: Path, **selections: str | None) -> None:
    """Erase all that was said in the sessions meant: from the log, the views and their files, for good.

    The log keeps digests in place of the content, and the fact that it was erased, by whom and why: its chain still
    verifies. Ids of sessions and names of conversations stay. Copies of the data directory are not looked for.
    """
    selection = _selection(selections)
    if not (data / LOG_FILE).exists():
        raise click.ClickException(f"there is no log in {data}: expected {data / LOG_FILE}")
    try:
        with quiet():
            asyncio.run(_erase(data, Order(tenant, selection, by or _who(), why), asks=not yes))
    except LogLocked as error:
        raise click.ClickException(f"{error}; or ask that server: {_request(selection)}") from error
    except NotPurged as error:
        raise click.ClickException(f"{error}; 'turnlog serve' does, too") from error
    except (LogError, Refusal, ViewsUnavailable, ViewsUnusable, OSError) as error:
        raise click.ClickException(str(error)) from error


async def _erase(data: Path, order: Order, *, asks: bool) -> None:
    async with _erasures(data) as erasures:
        if asks:
            _ask(await erasures.scope(order.tenant, order.selection))
        erased = await erasures.erase(order)
    for found in erased:
        click.echo(f"erased {found.root_id or 'a turn that never began'}: {found.events} events")
    click.echo(f"{sum(found.events for found in erased)} events are erased: nothing of them is left in {data}")


@contextlib.asynccontextmanager
async def _erasures(data: Path) -> AsyncIterator[Erasures]:
    path = data / VIEWS_FILE
    async with contextlib.AsyncExitStack() as stack:
        log = await SqliteLog.open(data)
        stack.push_async_callback(log.close)
        await finish(log, path)
        with bar("replaying", lambda: log.head().position) as progress:
            views = await Runner.start(log, path, VIEWS, progress=progress)
        stack.push_async_callback(views.stop)
        yield Erasures(log, Lineages(log, views, lock_wait_s=LOCK_WAIT_S), views, path)


def _ask(scope: Scope) -> None:
    """List what is meant, and go on only if that is right."""
    for line in _listed(scope):
        click.echo(line, err=True)
    click.confirm("Erase all of this for good?", abort=True, err=True)


def _listed(scope: Scope) -> Iterable[str]:
    for lineage in scope.lineages[:LISTED_MAX]:
        title = f" '{lineage.title}'" if lineage.title else ""
        also = "".join(f", {session_id}" for session_id in list(lineage.session_ids)[1:])
        yield f"session {lineage.root_id}{also}{title}: {len(lineage.positions)} events"
    if len(scope.lineages) > LISTED_MAX:
        yield f"… and {len(scope.lineages) - LISTED_MAX} more sessions"
    for name in list(scope.attached.conversations)[:LISTED_MAX]:
        yield f"conversation {name}"
    if queued := scope.attached.queued:
        yield f"{len(queued)} turns that were queued"


def _selection(selections: dict[str, str | None]) -> Selection:
    given = [Selection(kind, value) for kind in KINDS if (value := selections[kind])]
    if len(given) != 1:
        raise click.UsageError("name exactly one of --session, --conversation, --user and --session-key")
    return given[0]


def _request(selection: Selection) -> str:
    """What to ask a running server for instead."""
    body = f'{{"{selection.kind}": "…", "why": "…"}}'
    return f"POST /api/erasures {body}"


def _who() -> str:
    """The person at the terminal, as the machine knows them."""
    with contextlib.suppress(OSError, KeyError):
        return getpass.getuser()
    return "unknown"
