"""`turnlog audit prove`, `checkpoint`, `key` and `verifier`: proofs for others, made of the data directory alone."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from api.wire.audit import CheckpointObject, ProofObject, checkpoint_object, proof_object
from eventstore.log import LogError
from eventstore.proofs.audit_key import AuditKeyProblem, public_key
from eventstore.proofs.checkpoint import Checkpoint
from eventstore.proofs.notary import Notary
from tools.audit import verifier as verifier_file
from tools.audit.key_options import audit_key_option, key_path
from tools.options import data_option
from tools.progress import bar

_POSITION = click.IntRange(1, 10**18 - 1)
_SIZE = click.IntRange(0, 10**18 - 1)
_output = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    default=Path("-"),
    help="File to write to, else standard output.",
)


@click.command(short_help="Write the proof that an event was recorded.")
@click.argument("position", type=_POSITION)
@click.option("--size", type=_SIZE, help="Size of the checkpoint to prove it by; else the newest that covers it.")
@_output
@audit_key_option
@data_option
def prove(position: int, size: int | None, output: Path, audit_key: Path | None, data: Path) -> None:
    """Write the proof that the event at POSITION is in the log, as JSON that 'turnlog audit verifier' verifies.

    Where no checkpoint covers the event yet, one is signed.
    """
    with _notary(data, audit_key) as notary:
        if position > notary.head():
            raise click.ClickException(f"the log in {data} has {notary.head()} events: there is none at {position}")
        checkpoint = _of_size(notary, position, size) if size is not None else notary.check()
        if checkpoint is None or checkpoint.size < position:
            checkpoint = _sign(notary)
        proof = notary.proof(position, checkpoint)
        _write(output, proof_object(proof, notary.verifier))


@click.command(short_help="Sign a checkpoint of the log as it is now.")
@click.option("--since", type=_SIZE, help="A size; proves that the checkpoint continues the log of that size.")
@_output
@audit_key_option
@data_option
def checkpoint(since: int | None, output: Path, audit_key: Path | None, data: Path) -> None:
    """Sign a checkpoint, where the log has grown since the newest one, and write it as JSON."""
    with _notary(data, audit_key) as notary:
        newest = _sign(notary)
        if since is not None and since > newest.size:
            raise click.ClickException(f"the log in {data} has {newest.size} events: it never had {since}")
        continued = None if since is None else (since, *notary.consistency(since, newest))
        _write(output, checkpoint_object(newest, notary.verifier, continued))


@click.command(short_help="Print the log's public key, for whoever verifies.")
@audit_key_option
@data_option
def key(audit_key: Path | None, data: Path) -> None:
    """Print the verifier key: the log's name and public key, in one line, without anything secret."""
    try:
        click.echo(str(public_key(data, key_path(data, audit_key))))
    except AuditKeyProblem as error:
        raise click.ClickException(str(error)) from error


@click.command(short_help="Write the program that verifies proofs: one file, any Python.")
@_output
def verifier(output: Path) -> None:
    """Write verifier.py: it needs nothing of turnlog but a public key, and says what a proof proves."""
    _write_text(output, Path(verifier_file.__file__).read_text(encoding="utf-8"))


def _sign(notary: Notary) -> Checkpoint:
    try:
        return notary.sign(time.time_ns() // 1_000)
    except AuditKeyProblem as error:
        raise click.ClickException(
            f"{error}. Without it no checkpoint can be signed here: let the server do it (GET /api/audit/checkpoint), "
            "or name the file with --audit-key"
        ) from error


def _of_size(notary: Notary, position: int, size: int) -> Checkpoint:
    found = notary.of_size(size)
    if found is None:
        newest = notary.newest()
        known = f"the newest is of size {newest.size}" if newest else "there are none yet"
        raise click.ClickException(f"no checkpoint of size {size} is on file: {known}")
    if size < position:
        raise click.ClickException(f"a checkpoint of size {size} has no event {position}")
    return found


@contextlib.contextmanager
def _notary(data: Path, audit_key: Path | None) -> Iterator[Notary]:
    """The notary of the log in `data`, with the tree built; what goes wrong is said in a sentence."""
    try:
        with contextlib.closing(Notary.open(data, key_path(data, audit_key))) as notary:
            with bar("hashing the log", notary.head) as reached:
                while notary.catch_up():
                    reached(notary.size)
            yield notary
            if notary.torn:
                click.echo(f"passed over lines that can not be read in checkpoints.jsonl: {notary.torn}", err=True)
    except (LogError, AuditKeyProblem) as error:
        raise click.ClickException(str(error)) from error


def _write(output: Path, document: CheckpointObject | ProofObject) -> None:
    _write_text(output, msgspec.json.encode(document).decode() + "\n")


def _write_text(output: Path, text: str) -> None:
    if str(output) == "-":
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{output} can not be written: {error.strerror or error}") from error
    click.echo(f"wrote {output}", err=True)
