"""`turnlog audit verify`: whether the log is what was recorded."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from eventstore.chain import DIGEST_BYTES
from eventstore.log import LogError
from eventstore.proofs.audit_key import AuditKeyProblem, public_key
from eventstore.proofs.checkpoint import CHECKPOINTS_FILE
from eventstore.proofs.note import NoteInvalid, VerifierKey
from eventstore.verifying.verification import Progress, Verified, Whole, verify
from eventstore.verifying.vouched import Filed, filed
from tools.audit.key_options import audit_key_option, key_path
from tools.options import data_option
from tools.progress import bar

FINDINGS_SHOWN = 10


class _Key(click.ParamType[VerifierKey]):
    """A verifier key, as `turnlog audit key` prints it."""

    name = "KEY"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> VerifierKey:
        try:
            return VerifierKey.parse(str(value).strip())
        except NoteInvalid as error:
            self.fail(f"{error}; expected what 'turnlog audit key' prints", param, ctx)


@click.command("verify", short_help="Check that the whole log is what was recorded.")
@click.option("--key", type=_Key(), help="The public key to believe; else that of the data directory's own.")
@click.option(
    "--remember",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Check only what is new since this file was written, if it exists; then write it anew.",
)
@click.option("--deep", is_flag=True, help="Have SQLite check the structures of its file, too.")
@audit_key_option
@data_option
def verify_log(key: VerifierKey | None, remember: Path | None, deep: bool, audit_key: Path | None, data: Path) -> None:
    """Check every event: its place, its link in the chain, its stream, its content; what was erased; what was signed.

    Works beside a running server. The first thing that is wrong is named with its position, and the exit code is 1.
    What was cut off behind the last checkpoint, or rewritten there with all its hashes, nobody can see: keep
    checkpoints, or what --remember writes, where whoever could change the log can not change them.
    """
    began = time.perf_counter()
    before = _remembered(remember) if remember else None
    try:
        signed, signer = _signed(data, key, key_path(data, audit_key))
        with _shown() as progress:
            found = verify(
                data,
                signed.checkpoints,
                before=before,
                is_tree_wanted=remember is not None,
                is_deep=deep,
                progress=progress,
            )
    except (LogError, AuditKeyProblem) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"{data} can not be read: {error.strerror or error}") from error
    if findings := [*found.findings, *signed.findings]:
        raise click.ClickException(_listed([str(finding) for finding in findings]))
    if remember:
        _write(remember, found.whole)
    click.echo(f"{_sentence(found, before, len(signed.checkpoints), signer)}; {time.perf_counter() - began:.1f} s")


def _signed(data: Path, key: VerifierKey | None, path: Path) -> tuple[Filed, str]:
    """The checkpoints on file, and who must have signed them, in words."""
    if not (data / CHECKPOINTS_FILE).exists():
        return Filed([], []), ""
    if key:
        return filed(data, key), f"{key.name}+{key.id.hex()}, the key given"
    found = public_key(data, path)
    return filed(data, found), f"{found.name}+{found.id.hex()}, the key in {data}"


@contextlib.contextmanager
def _shown() -> Iterator[Progress]:
    """A progress bar, where somebody looks."""
    heads: list[int] = []
    with bar("verifying", lambda: heads[-1]) as reached:

        def progress(position: int, head: int) -> None:
            heads[:] = [head]
            reached(position)

        yield progress


def _sentence(found: Verified, before: Whole | None, on_file: int, signer: str) -> str:
    """What was found whole, in one sentence."""
    whole = found.whole
    first = before.position + 1 if before else 1
    if first > whole.position:
        said = f"nothing is new behind position {whole.position}" if before else "the log is empty"
    else:
        events = whole.position - first + 1
        said = (
            f"{_count(events, 'event')} {'is' if events == 1 else 'are'} whole: positions {first} to {whole.position}"
        )
    if before:
        said += f", behind what was whole before; in all {_count(whole.position, 'event')}"
    said += f", {_count(whole.streams, 'stream')}"
    if whole.erasures:
        said += f", {whole.erased:,} erased by {_count(whole.erasures, 'erasure')}"
    if not on_file:
        return f"{said}, no checkpoints"
    covered = max(checkpoint.size for checkpoint in found.checkpoints) if found.checkpoints else 0
    said += f", {_count(on_file, 'checkpoint')} signed by {signer}"
    return f"{said}; the last covers position {covered}" if covered else f"{said}, none of them new"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _listed(findings: list[str]) -> str:
    """What is wrong, the first of it first."""
    shown = "\n".join(
        f"also: {finding}" if number else finding for number, finding in enumerate(findings[:FINDINGS_SHOWN])
    )
    more = len(findings) - FINDINGS_SHOWN
    return f"{shown}\nand {more:,} more" if more > 0 else shown


def _remembered(path: Path) -> Whole | None:
    """What the file says was whole; None where there is none yet."""
    try:
        whole = msgspec.json.decode(path.read_bytes(), type=Whole)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise click.ClickException(f"{path} can not be read: {error.strerror or error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise click.ClickException(f"{path} is not what --remember writes: {error}") from error
    hashes = [whole.hash, *(root for _, root in whole.peaks)]
    leaves = [leaves for leaves, _ in whole.peaks]
    if (
        sum(leaves) != whole.position
        or any(n < 1 or n & (n - 1) for n in leaves)
        or set(map(len, hashes)) != {DIGEST_BYTES}
    ):
        raise click.ClickException(f"{path} is not what --remember writes: it was altered")
    return whole


def _write(path: Path, whole: Whole) -> None:
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        beside.write_bytes(msgspec.json.format(msgspec.json.encode(whole)) + b"\n")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise click.ClickException(f"{path} can not be written: {error.strerror or error}") from error
