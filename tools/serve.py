"""`turnlog serve`: run the server."""

import errno
import ipaddress
import socket
from functools import partial
from pathlib import Path

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
from eventstore.log import LogError
from eventstore.proofs.audit_key import AuditKeyProblem
from projections.runner import ViewsUnavailable
from projections.store import ViewsUnusable
from tools import logs, readonly
from tools.audit.key_options import audit_options
from tools.greeting import greet
from tools.options import data_option, made
from tools.progress import bar
from tools.serve_options import (
    DEFAULT,
    access_options,
    address_options,
    compression_options,
    history_options,
    run_options,
    storage_options,
    upstream_options,
    waiting_options,
)
from tools.tables import Tables
from tools.upstreams import base_url, key_from, upstreams_of


@click.command()
@data_option
@address_options
@upstream_options
@waiting_options
@compression_options
@history_options
@run_options
@audit_options
@access_options
@storage_options
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
    if not upstream and (upstream_key_env or upstream_api != DEFAULT.upstream_api):
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
