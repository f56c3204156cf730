"""`turnlog serve`: run the server."""

import errno
import ipaddress
import socket
from functools import partial
from pathlib import Path
from typing import get_args

import click
import msgspec
import uvloop

from api import keys as keyring
from api.keys import CHARACTERS_MIN, KeyProblem
from api.models.builtin import NAME as BUILTIN
from api.models.retries import Retries
from api.models.router import Dialect
from api.models.upstream import Timeouts
from api.server import serve as run
from api.settings import HistoryOnFailure, RunsAfterCrash, Settings
from api.turns.compress import Compression
from eventstore.audit_key import AuditKeyProblem
from eventstore.log import LogError
from projections.runner import ViewsUnavailable
from projections.store import ViewsUnusable
from tools import logs, readonly
from tools.audit.key_options import audit_options
from tools.greeting import greet
from tools.options import data_option, made, option
from tools.progress import bar
from tools.tables import Tables
from tools.upstreams import base_url, key_from, upstreams_of

_DEFAULT = Settings(data=Path())
_SECONDS = click.FloatRange(min=0, min_open=True)


@click.command()
@data_option
@option("--host", default=_DEFAULT.host, show_default=True, help="Address to listen on.")
@option("--port", type=click.IntRange(0, 65_535), default=_DEFAULT.port, show_default=True, help="0 takes a free one.")
@option("--upstream", default="", help="Base URL of an OpenAI-compatible model server, such as http://host:8000/v1.")
@option("--upstream-key-env", default="", help="Name of the environment variable that holds the model server's key.")
@option(
    "--upstream-api",
    type=click.Choice(get_args(Dialect)),
    default=_DEFAULT.upstream_api,
    show_default=True,
    help="What the model server is asked in: /v1/chat/completions or /v1/responses.",
)
@option(
    "--upstream-retries",
    type=click.IntRange(0, 10),
    default=_DEFAULT.retries.times,
    show_default=True,
    help="How often a model server is asked again that can not be connected to, or is busy and soon free.",
)
@option("--default-model", default="", help="The model of requests that name none.")
@option(
    "--connect-timeout-s",
    type=_SECONDS,
    default=_DEFAULT.timeouts.connect_s,
    show_default=True,
    help="To connect to the model server.",
)
@option(
    "--first-byte-timeout-s",
    type=_SECONDS,
    default=_DEFAULT.timeouts.first_byte_s,
    show_default=True,
    help="Until its answer begins.",
)
@option(
    "--total-timeout-s",
    type=_SECONDS,
    default=_DEFAULT.timeouts.total_s,
    show_default=True,
    help="Until its answer is whole.",
)
@option(
    "--lock-wait-s",
    type=_SECONDS,
    default=_DEFAULT.lock_wait_s,
    show_default=True,
    help="How long a turn waits for its session.",
)
@option(
    "--grace-s",
    type=click.FloatRange(min=0),
    default=_DEFAULT.grace_s,
    show_default=True,
    help="For running turns at a stop.",
)
@option(
    "--keepalive-s",
    type=_SECONDS,
    default=_DEFAULT.keepalive_s,
    show_default=True,
    help="Silence before a stream gets a comment.",
)
@option(
    "--context-tokens",
    type=click.IntRange(min=0),
    default=_DEFAULT.compression.context_tokens,
    show_default=True,
    help="The models' context window; 0: sessions are never compressed. [models.NAME] in turnlog.toml for one of them.",
)
@option(
    "--compress-at",
    type=click.FloatRange(0, 1, min_open=True),
    default=_DEFAULT.compression.compress_at,
    show_default=True,
    help="The share of the context window at which a session is compressed.",
)
@option("--summary-model", default="", help="The model that writes summaries; else the one that is being asked.")
@option("--summary-prompt", default="", help="What it is told to do; else turnlog's own words.")
@option(
    "--max-responses",
    type=click.IntRange(min=0),
    default=_DEFAULT.responses_max,
    show_default=True,
    help="Stored responses that can be addressed, for each tenant; the least recently used go first. 0: no limit.",
)
@option(
    "--response-ttl-s",
    type=click.FloatRange(min=0),
    default=_DEFAULT.response_ttl_s,
    show_default=True,
    help="How long a stored response can be addressed. 0: for good.",
)
@option(
    "--memory/--no-memory",
    default=_DEFAULT.memory,
    show_default=True,
    help="Give the model what was said in other sessions under the same session key.",
)
@option(
    "--match-history/--no-match-history",
    default=_DEFAULT.match_history,
    show_default=True,
    help="Continue the session whose history a client resends that names none.",
)
@option(
    "--history-on-failure",
    type=click.Choice(get_args(HistoryOnFailure)),
    default=_DEFAULT.history_on_failure,
    show_default=True,
    help="When the log can not be read: fail with 503, or answer without history and say so in a header.",
)
@option(
    "--max-runs",
    type=click.IntRange(min=1),
    default=_DEFAULT.runs_max,
    show_default=True,
    help="Runs and background responses at work or queued at once; more are told to come back.",
)
@option(
    "--runs-after-crash",
    type=click.Choice(get_args(RunsAfterCrash)),
    default=_DEFAULT.runs_after_crash,
    show_default=True,
    help="What becomes of a run or a background response that was at work when the server died: started again, once; "
    "or given up, a run as cancelled, a response as failed.",
)
@audit_options
@option("--api-key", default="", help="The one key of a simple installation; at least 16 characters.")
@option("--no-auth", is_flag=True, help="Ask for no key. Loopback only; session headers are refused.")
@option("--read-only", is_flag=True, help="Serve what was at a moment, and change nothing; needs --views.")
@option(
    "--views",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    help="The views of that moment, made by 'turnlog replay --until MOMENT --into FILE'.",
)
@option("--cors-origin", multiple=True, help="A web page's origin that may use the server; repeatable.")
@option(
    "--synchronous",
    type=click.Choice(["FULL", "NORMAL"]),
    default="FULL",
    show_default=True,
    help="FULL: an acknowledged turn survives power loss. NORMAL: it survives a crash of the process.",
)
@option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True)
@click.pass_obj
def serve(
    tables: Tables | None,
    data: Path,
    host: str,
    port: int,
    upstream: str,
    upstream_key_env: str,
    upstream_api: Dialect,
    upstream_retries: int,
    default_model: str,
    connect_timeout_s: float,
    first_byte_timeout_s: float,
    total_timeout_s: float,
    lock_wait_s: float,
    grace_s: float,
    keepalive_s: float,
    context_tokens: int,
    compress_at: float,
    summary_model: str,
    summary_prompt: str,
    max_responses: int,
    response_ttl_s: float,
    memory: bool,
    match_history: bool,
    history_on_failure: HistoryOnFailure,
    max_runs: int,
    runs_after_crash: RunsAfterCrash,
    audit_key: Path | None,
    audit_name: str,
    checkpoint_every_s: float,
    api_key: str,
    no_auth: bool,
    read_only: bool,
    views: Path | None,
    cors_origin: tuple[str, ...],
    synchronous: str,
    log_level: str,
) -> None:
    """Run the server until it is told to stop (Ctrl-C or SIGTERM).

    Without --upstream a built-in model answers: it shows what the session remembers, offline. More model servers, and
    which models each is for, go into [upstreams.NAME] tables of turnlog.toml; --upstream is then for all other models.
    """
    logs.configure(log_level)
    if read_only != bool(views):
        raise click.UsageError(
            "--read-only and --views FILE go together: 'turnlog replay --into FILE' makes such a file"
        )
    if no_auth and not _is_loopback(host):
        raise click.UsageError(f"--no-auth is for loopback addresses only, and {host} is not one")
    compression = Compression(
        context_tokens=context_tokens,
        compress_at=compress_at,
        summary_model=summary_model,
        summary_prompt=summary_prompt,
    )
    models = tables.models if tables else {}
    if not upstream and (upstream_key_env or upstream_api != _DEFAULT.upstream_api):
        raise click.UsageError("--upstream-key-env and --upstream-api are about --upstream, which is not given")
    upstreams = upstreams_of(tables, has_default=bool(upstream))
    settings = Settings(
        data=readonly.directory(data) if views else made(data),
        views=views,
        host=host,
        port=port,
        upstream=base_url(upstream, "--upstream"),
        upstream_key=key_from(upstream_key_env, "--upstream-key-env"),
        upstream_api=upstream_api,
        upstreams=upstreams,
        retries=Retries(upstream_retries),
        timeouts=Timeouts(connect_timeout_s, first_byte_timeout_s, total_timeout_s),
        default_model=default_model or ("" if upstream or upstreams else BUILTIN),
        api_key="" if no_auth else api_key,
        auth=not no_auth,
        cors_origins=cors_origin,
        lock_wait_s=lock_wait_s,
        grace_s=grace_s,
        keepalive_s=keepalive_s,
        synchronous=synchronous,
        compression=compression,
        models={name: msgspec.structs.replace(compression, **table) for name, table in models.items()},
        responses_max=max_responses,
        response_ttl_s=response_ttl_s,
        memory=memory,
        match_history=match_history,
        history_on_failure=history_on_failure,
        runs_max=max_runs,
        runs_after_crash=runs_after_crash,
        audit_key=audit_key,
        audit_name=audit_name,
        checkpoint_every_s=checkpoint_every_s,
    )
    _run(settings, _prepare_keys(settings))


def _run(settings: Settings, new_key: str | None) -> None:
    try:
        with bar("rebuilding views", lambda: None) as progress:
            uvloop.run(run(settings, ready=partial(greet, settings, new_key), progress=progress))
    except (LogError, ViewsUnavailable, ViewsUnusable, AuditKeyProblem) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise click.ClickException(f"port {settings.port} is taken: choose another with --port") from error
        reason = error.strerror or error
        raise click.ClickException(f"can not serve on {settings.host}:{settings.port}: {reason}") from error


def _prepare_keys(settings: Settings) -> str | None:
    if not settings.auth:
        return None
    if settings.api_key and len(settings.api_key) < CHARACTERS_MIN:
        raise click.UsageError(
            f"the API key is too short: at least {CHARACTERS_MIN} characters, got {len(settings.api_key)}"
        )
    if settings.api_key:
        return None
    if settings.views:
        readonly.ensure_keys(settings.data)
        return None
    try:
        return keyring.first_key(settings.data)
    except KeyProblem as error:
        raise click.ClickException(str(error)) from error


def _is_loopback(host: str) -> bool:
    try:
        addresses = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ipaddress.ip_address(address).is_loopback for address in addresses)
