"""What a server can be told. Defaults are here and nowhere else."""

from pathlib import Path

import msgspec

from api.models.upstream import Timeouts

BODY_BYTES_MAX = 10_000_000


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """One server's settings. `data` holds the log, the views, the keys and the lock."""

    data: Path
    host: str = "127.0.0.1"
    port: int = 8642
    upstream: str = ""
    upstream_key: str = ""
    timeouts: Timeouts = Timeouts()
    default_model: str = ""
    api_key: str = ""
    auth: bool = True
    cors_origins: tuple[str, ...] = ()
    lock_wait_s: float = 60.0
    grace_s: float = 20.0
    keepalive_s: float = 30.0
    synchronous: str = "FULL"
