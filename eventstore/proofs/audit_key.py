"""The key that signs checkpoints: `audit.key`, one line, mode 0600, made once. A log that has lost it gets no other.

It holds the name of the log, too: who knows the log by its name and public key finds it under the same name wherever it
is moved to. The public half lies in the data directory as `audit.pub`, for those who may not read the other.
"""

import os
import secrets
from pathlib import Path

from eventstore.proofs.checkpoint import CHECKPOINTS_FILE
from eventstore.proofs.note import KEY_BYTES, NoteInvalid, SignerKey, VerifierKey, check_name

KEY_FILE = "audit.key"
PUBLIC_FILE = "audit.pub"
BYTES_MAX = 1_000


class AuditKeyProblem(Exception):
    """The key can not be made, read or used as asked."""


class AuditKeyOutOfReach(AuditKeyProblem):
    """There is no key, or it is not ours to read."""


class AuditKeyLost(AuditKeyProblem):
    """The key that has signed for the log is not where it was."""


def public_key(directory: Path, path: Path) -> VerifierKey:
    """The public half of the key at `path`; where that can not be had, what `directory` says it is.

    Raises `AuditKeyProblem`.
    """
    try:
        return load(path).verifier
    except AuditKeyOutOfReach as problem:
        try:
            return VerifierKey.parse((directory / PUBLIC_FILE).read_text("ascii").strip())
        except (OSError, NoteInvalid, UnicodeDecodeError):
            raise problem from None


def publish(directory: Path, key: VerifierKey) -> None:
    """Leave the public half in `directory`. Raises `AuditKeyProblem`."""
    path = directory / PUBLIC_FILE
    try:
        if not path.exists() or path.read_bytes() != f"{key}\n".encode():
            _write(path, str(key), 0o644)
    except OSError as error:
        raise AuditKeyProblem(f"{path} can not be written: {error.strerror or error}") from error


def load(path: Path, name: str = "") -> SignerKey:
    """The key at `path`. Raises `AuditKeyProblem` where there is none, or one of another name than a given `name`."""
    if path.exists() and not path.is_file():  # of a pipe, one would wait for whoever writes it
        raise AuditKeyOutOfReach(f"the audit key {path} can not be read: it is not a file")
    try:
        with path.open("rb") as file:
            content = file.read(BYTES_MAX)
        key = SignerKey.parse(content.decode("ascii").strip())
    except FileNotFoundError:
        raise AuditKeyOutOfReach(
            f"there is no audit key at {path}: 'turnlog serve' makes it at its start, for a log that never had one"
        ) from None
    except OSError as error:
        raise AuditKeyOutOfReach(f"the audit key {path} can not be read: {error.strerror or error}") from error
    except (NoteInvalid, UnicodeDecodeError) as error:
        reason = error if isinstance(error, NoteInvalid) else "it is not text"
        raise AuditKeyProblem(f"{path} holds no audit key: {reason}") from error
    if name and key.name != name:
        raise AuditKeyProblem(
            f"the audit key {path} signs for the log '{key.name}', and not for '{name}': a log keeps its name; "
            "leave --audit-name out, or give another file with --audit-key"
        )
    return key


def of_log(directory: Path, path: Path, name: str = "") -> SignerKey:
    """The key at `path` for the log in `directory`, made where nothing was ever signed for that.

    Raises `AuditKeyLost` where something was and the key is gone, as from a restored backup or a mount that is not
    there: another key would go on as if nothing had been signed. Raises `AuditKeyProblem`.
    """
    signed = (directory / PUBLIC_FILE, directory / CHECKPOINTS_FILE)
    if not path.exists() and any(file.exists() and file.stat().st_size for file in signed):
        raise AuditKeyLost(
            f"the key that signs for the log is gone, and nothing is signed without it: put it back at {path} and "
            f"start the server again. Where it is lost for good, move {PUBLIC_FILE} and {CHECKPOINTS_FILE} away from "
            f"{directory}: the next start makes another, with which the log's proofs begin anew"
        )
    return load_or_make(path, name)


def load_or_make(path: Path, name: str = "") -> SignerKey:
    """The key at `path`, made where there is none. Raises `AuditKeyProblem`.

    Without a name, the log gets one that no other has, and that tells nothing of the machine: its clients see it.
    """
    if path.exists():
        return load(path, name)
    try:
        key = SignerKey(check_name(name or f"turnlog/{secrets.token_hex(6)}"), secrets.token_bytes(KEY_BYTES))
    except NoteInvalid as error:
        raise AuditKeyProblem(f"the log can not be called {error}") from None
    try:
        _write(path, str(key), 0o600)
    except OSError as error:
        raise AuditKeyProblem(f"the audit key {path} can not be written: {error.strerror or error}") from error
    return key


def _write(path: Path, line: str, mode: int) -> None:
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{line}\n")
        file.flush()
        os.fsync(descriptor)
    beside.rename(path)
