"""What a server can be told. Defaults are here and nowhere else."""

from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from api.models.retries import Retries
from api.models.router import ANY, Dialect, Upstream
from api.models.upstream import Timeouts
from api.turns.compress import Compression

BODY_BYTES_MAX = 10_000_000
DEFAULT = "default"  # the name of the upstream that takes whatever matches no other

HistoryOnFailure: TypeAlias = Literal["fail", "empty"]
RunsAfterCrash: TypeAlias = Literal["restart", "cancel"]


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """One server's settings. `data` holds the log, the views, the keys and the lock.

    `upstream` is the model server for what matches none of the `upstreams`; with neither, the built-in model answers.
    `models` are the models whose compression differs from the others'. No more than `responses_max` responses of a
    tenant are addressable, none older than `response_ttl_s`; 0 is no limit. With a file of `views` the server is read
    only: it serves these, and the log up to where they stand. `audit_key` is the file of the key that signs
    checkpoints, `audit.key` in `data` unless told otherwise; `audit_name` what the log is called by a new one.
    """

    data: Path
    views: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8642
    upstream: str = ""
    upstream_key: str = ""
    upstream_api: Dialect = "chat"
    upstreams: tuple[Upstream, ...] = ()
    timeouts: Timeouts = Timeouts()
    retries: Retries = Retries()
    default_model: str = ""
    api_key: str = ""
    auth: bool = True
    cors_origins: tuple[str, ...] = ()
    lock_wait_s: float = 60.0
    grace_s: float = 20.0
    keepalive_s: float = 30.0
    synchronous: str = "FULL"
    compression: Compression = Compression()
    models: dict[str, Compression] = {}
    responses_max: int = 0
    response_ttl_s: float = 30 * 86_400.0
    memory: bool = True
    match_history: bool = True
    history_on_failure: HistoryOnFailure = "fail"
    runs_max: int = 100
    runs_after_crash: RunsAfterCrash = "restart"
    audit_key: Path | None = None
    audit_name: str = ""
    checkpoint_every_s: float = 3_600.0

    @property
    def all_upstreams(self) -> tuple[Upstream, ...]:
        """Every model server, the default one last."""
        if not self.upstream:
            return self.upstreams
        default = Upstream(name=DEFAULT, url=self.upstream, key=self.upstream_key, api=self.upstream_api, models=(ANY,))
        return (*self.upstreams, default)
