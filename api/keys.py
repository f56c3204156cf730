"""API keys: whose tenant each one opens. Kept as digests in `keys.json` (mode 0600) in the data directory.

The file is read again when it changes, so that a key added or revoked beside a running server counts within a second.
"""

import hashlib
import os
import re
import secrets
import time
from pathlib import Path

import msgspec

FILE = "keys.json"
FIRST_KEY_FILE = "api_key"
CHARACTERS_MIN = 16
DEFAULT_TENANT = "default"
LOOK_AGAIN_S = 1.0
_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_NAME = re.compile(r"[^\s/\\]{1,64}")


class KeyProblem(Exception):
    """A key can not be made, found or used as asked."""


class Key(msgspec.Struct, frozen=True):
    """One key: its digest, and whose it is. The key itself is shown once, when it is made."""

    name: str
    tenant: str
    digest: str
    created_s: int


def digest_of(key: str) -> str:
    """What is stored and compared of a key. Keys are long and random, so a plain hash is as good as a slow one."""
    return hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()


def read(directory: Path) -> list[Key]:
    """The keys in `directory`; none where there is no file. Raises `KeyProblem` where it can not be read."""
    path = directory / FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Key])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.DecodeError) as error:
        raise KeyProblem(f"{path} can not be read: {error}") from error


def add(directory: Path, name: str, tenant: str = DEFAULT_TENANT) -> str:
    """Make a key and return it: the only time it is seen. Raises `KeyProblem`."""
    if not _TENANT.fullmatch(tenant):
        raise KeyProblem(
            f"tenant '{tenant}': expected 1 to 64 of a-z, 0-9, '_' and '-', beginning with a letter or digit"
        )
    if not _NAME.fullmatch(name):
        raise KeyProblem(f"name '{name}': expected 1 to 64 characters without spaces and slashes")
    keys = read(directory)
    if any(key.name == name for key in keys):
        raise KeyProblem(f"there is a key named '{name}' already: choose another name, or revoke that one first")
    secret = f"tl_{secrets.token_urlsafe(32)}"
    _write(directory / FILE, msgspec.json.encode([*keys, Key(name, tenant, digest_of(secret), int(time.time()))]))
    return secret


def revoke(directory: Path, name: str) -> None:
    """Make the key named `name` useless. Raises `KeyProblem` where there is none."""
    keys = read(directory)
    left = [key for key in keys if key.name != name]
    if len(left) == len(keys):
        known = ", ".join(key.name for key in keys) or "none"
        raise KeyProblem(f"there is no key named '{name}'; known: {known}")
    _write(directory / FILE, msgspec.json.encode(left))
    if name == DEFAULT_TENANT:
        (directory / FIRST_KEY_FILE).unlink(missing_ok=True)


def first_key(directory: Path) -> str | None:
    """Make the key of a new installation, keep it readable in `api_key`, and return it; None where keys exist."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if read(directory):
        return None
    secret = add(directory, DEFAULT_TENANT)
    _write(directory / FIRST_KEY_FILE, secret.encode() + b"\n")
    return secret


class Keyring:
    """Tells tenants by their keys. Without any source of keys, everybody is the default tenant.

    A configured key stands in for the one that the first start made for itself, which opens nothing then.
    """

    def __init__(self, directory: Path | None, configured_key: str = "") -> None:
        self._directory = directory
        self._configured = {digest_of(configured_key): DEFAULT_TENANT} if configured_key else {}
        self._tenants = dict(self._configured)
        self._names: dict[str, str] = {}
        self._changed_ns = 0
        self._look_again = 0.0

    @property
    def is_open(self) -> bool:
        """Whether no key is asked for."""
        return self._directory is None and not self._configured

    def tenant_of(self, key: str) -> str | None:
        """The tenant that `key` belongs to. Compares digests, so that time tells nothing about a key."""
        self._refresh()
        return self._tenants.get(digest_of(key))

    def name_of(self, key: str) -> str:
        """What the key is called; empty of one that is configured."""
        self._refresh()
        return self._names.get(digest_of(key), "")

    def _refresh(self) -> None:
        now = time.monotonic()
        if self._directory is None or now < self._look_again:
            return
        self._look_again = now + LOOK_AGAIN_S
        path = self._directory / FILE
        changed_ns = path.stat().st_mtime_ns if path.exists() else 0
        if changed_ns != self._changed_ns:
            self._changed_ns = changed_ns
            found = read(self._directory)
            added = [key for key in found if not (self._configured and key.name == DEFAULT_TENANT)]
            self._tenants = self._configured | {key.digest: key.tenant for key in added}
            self._names = {key.digest: key.name for key in added}


def _write(path: Path, content: bytes) -> None:
    beside = path.with_name(path.name + ".new")
    try:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        beside.replace(path)
    except OSError as error:
        raise KeyProblem(f"{path} can not be written: {error.strerror or error}") from error
