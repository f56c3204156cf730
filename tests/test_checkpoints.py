"""Checkpoints on file: signed once, held against the log, and what a crash or a forger makes of them."""

import fcntl
import json
import os
from pathlib import Path

import pytest

from eventstore.log import LogDamaged, LogRewritten, LogUnavailable
from eventstore.proofs import audit_key, checkpoint
from eventstore.proofs.audit_key import KEY_FILE, PUBLIC_FILE, AuditKeyProblem, load, load_or_make, publish
from eventstore.proofs.checkpoint import CHECKPOINTS_FILE, Checkpoint
from eventstore.proofs.merkle import EMPTY_ROOT, is_consistent, is_included
from eventstore.proofs.notary import CheckpointsUnusable, Notary
from tests.support.audited import NOW_US, a_log, change, notary_of, written_anew


def signed(data: Path) -> Checkpoint:
    """A checkpoint of what the log holds."""
    notary = notary_of(data)
    made = notary.sign(NOW_US)
    notary.close()
    return made


async def test_a_checkpoint_says_whose_log_of_what_size_with_what_root_and_when(data: Path) -> None:
    await a_log(data, 3)
    made = signed(data)
    origin, size, _root, time, empty, signature = made.note.splitlines()
    assert (origin, size, time, empty) == ("example.com/log", "3", "time 2026-12-01T12:00:00Z", "")
    assert signature.startswith("— example.com/log ")
    assert Checkpoint.open(load(data / KEY_FILE).verifier, made.note) == made


async def test_the_same_log_is_signed_for_once_however_often_somebody_starts(data: Path) -> None:
    await a_log(data, 3)
    first, second = signed(data), signed(data)
    assert first == second
    assert len((data / CHECKPOINTS_FILE).read_text().splitlines()) == 1


async def test_every_checkpoint_continues_the_ones_before(data: Path) -> None:
    made: list[Checkpoint] = []
    for events in (1, 255, 256, 257, 700):
        await a_log(data, events, after=made[-1].size if made else 0)
        made.append(signed(data))
    notary = notary_of(data)
    for older in made:
        root, path = notary.consistency(older.size, made[-1])
        assert root == older.root
        assert is_consistent(older.size, older.root, 700, made[-1].root, path)
        for position in (1, older.size):
            proof = notary.proof(position, older)
            assert is_included(proof.row[-1], position - 1, older.size, proof.path, older.root)
    notary.close()


async def test_an_empty_log_can_be_signed_for(data: Path) -> None:
    await a_log(data, 0)
    made = signed(data)
    assert (made.size, made.root) == (0, EMPTY_ROOT)


async def test_a_log_that_was_written_anew_is_not_signed_over(data: Path) -> None:
    await a_log(data, 10)
    signed(data)
    await written_anew(data, 12)
    notary = notary_of(data)
    for asked in (lambda: notary.sign(NOW_US), notary.check):
        with pytest.raises(LogRewritten, match=r"10 events.*the first 10 of the log's 12 are others"):
            asked()
    notary.close()
    assert len((data / CHECKPOINTS_FILE).read_text().splitlines()) == 1


async def test_a_log_that_was_cut_short_is_not_signed_over_until_somebody_says_it_is_meant(data: Path) -> None:
    await a_log(data, 10)
    signed(data)
    change(data, "DELETE FROM events WHERE position > 7")
    notary = notary_of(data)
    with pytest.raises(LogRewritten, match=r"is of 10 events, and the log has 7: it was cut short.*move .* away"):
        notary.sign(NOW_US)
    (data / CHECKPOINTS_FILE).rename(data / "checkpoints.old")
    assert notary.sign(NOW_US).size == 7
    notary.close()


async def test_a_log_that_is_changed_under_a_running_notary_is_noticed(data: Path) -> None:
    await a_log(data, 300)
    notary = notary_of(data)
    made = notary.sign(NOW_US)
    change(data, "UPDATE events SET hash = zeroblob(32) WHERE position = 20")
    with pytest.raises(LogRewritten, match="positions 1 to 256"):
        notary.proof(30, made)
    with pytest.raises(LogDamaged, match="position 20"):
        notary.proof(20, made)
    change(data, "DELETE FROM events WHERE position > 290")
    with pytest.raises(LogRewritten, match="position 300"):
        notary.catch_up()
    notary.close()


async def test_an_event_that_lacks_between_others_is_named(data: Path) -> None:
    await a_log(data, 10)
    change(data, "DELETE FROM events WHERE position = 4")
    with pytest.raises(LogDamaged, match=r"position 4: the event is missing; the next one is at position 5"):
        notary_of(data)
    change(data, "UPDATE events SET hash = 'x' WHERE position = 2")
    with pytest.raises(LogDamaged, match=r"position 2: its hash"):
        notary_of(data)


async def test_a_line_that_a_crash_cut_off_anywhere_is_passed_over_and_told(data: Path) -> None:
    await a_log(data, 3)
    first = signed(data)
    whole = (data / CHECKPOINTS_FILE).read_bytes()
    await a_log(data, 5, after=3)
    second = signed(data)
    more = (data / CHECKPOINTS_FILE).read_bytes()
    for end in (*range(len(whole) + 1, len(more) - 1, 40), len(more) - 2):
        (data / CHECKPOINTS_FILE).write_bytes(more[:end])
        notary = notary_of(data)
        assert (notary.newest(), notary.torn) == (first, [2])
        again = notary.sign(NOW_US)
        assert (again.size, again.root) == (second.size, second.root)
        assert (notary.newest(), notary.torn) == (again, [2])
        notary.close()


async def test_a_line_that_lacks_nothing_but_its_end_counts(data: Path) -> None:
    await a_log(data, 3)
    first = signed(data)
    path = data / CHECKPOINTS_FILE
    path.write_bytes(path.read_bytes().rstrip())
    await a_log(data, 5, after=3)
    signed(data)
    assert [json.loads(line)["size"] for line in path.read_text().splitlines()] == [first.size, 5]


async def test_a_checkpoint_on_file_that_our_key_has_not_signed_stops_the_signing(data: Path) -> None:
    await a_log(data, 3)
    signed(data)
    path = data / CHECKPOINTS_FILE
    forged = path.read_text().replace("example.com/log\\n3\\n", "example.com/log\\n2\\n")
    path.write_text(forged)
    notary = notary_of(data)
    with pytest.raises(CheckpointsUnusable, match=r"can not be believed.*was altered"):
        notary.sign(NOW_US)
    notary.close()
    path.write_text(forged.replace("log\\n2\\n", "log\\n3\\n").replace('"size":3', '"size":9'))
    notary = notary_of(data)
    with pytest.raises(CheckpointsUnusable, match="says size 9, its note 3"):
        notary.sign(NOW_US)
    notary.close()


async def test_another_key_does_not_go_on_with_the_checkpoints_of_the_one_before(data: Path) -> None:
    await a_log(data, 3)
    signed(data)
    notary = notary_of(data)
    (data / KEY_FILE).unlink()
    load_or_make(data / KEY_FILE, "example.com/log")
    with pytest.raises(CheckpointsUnusable, match="another key than it did"):
        notary.sign(NOW_US)
    notary.close()
    notary = notary_of(data)
    with pytest.raises(CheckpointsUnusable, match=r"If the key was changed, move that file away"):
        notary.sign(NOW_US)
    notary.close()


async def test_the_file_stays_small(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "LINES_MAX", 8)
    data.mkdir()
    key = load_or_make(data / KEY_FILE)
    path = data / CHECKPOINTS_FILE
    for size in range(1, 40):
        checkpoint.add(path, Checkpoint.sign(key, size, bytes(32), 0))
    filed = checkpoint.read(path)
    assert (len(filed.lines) <= 8, filed.lines[-1].size, filed.torn) == (True, 39, [])
    assert [line.size for line in filed.lines] == sorted(line.size for line in filed.lines)
    assert not list(data.glob("*.new"))


async def test_two_never_sign_at_once(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await a_log(data, 3)
    notary = notary_of(data)
    monkeypatch.setattr(checkpoint, "WAIT_S", 0.1)
    descriptor = os.open(data / KEY_FILE, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(CheckpointsUnusable, match="another process has been signing"):
        notary.sign(NOW_US)
    os.close(descriptor)
    assert notary.sign(NOW_US).size == 3
    notary.close()


def test_a_key_is_made_once_for_its_owner_alone_under_a_name_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / KEY_FILE
    made = load_or_make(path)
    assert made.name.startswith("turnlog/")
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_or_make(path) == load(path) == made
    assert load_or_make(path, made.name) == made
    with pytest.raises(AuditKeyProblem, match=r"signs for the log 'turnlog/.*', and not for 'example.com'"):
        load_or_make(path, "example.com")
    with pytest.raises(AuditKeyProblem, match="the log can not be called 'a b'"):
        load_or_make(tmp_path / "another.key", "a b")
    with pytest.raises(AuditKeyProblem, match="can not be written"):
        load_or_make(tmp_path / "nowhere" / KEY_FILE)


@pytest.mark.parametrize("content", [b"", b"\xff\xff", b"PRIVATE+KEY+a+b+c", b"PRIVATE+KEY+a", b"x" * 5_000])
def test_a_file_that_is_no_key_is_refused_without_telling_what_is_in_it(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / KEY_FILE
    path.write_bytes(content)
    with pytest.raises(AuditKeyProblem, match="holds no audit key") as refused:
        load_or_make(path)
    assert "xxxx" not in str(refused.value)


def test_who_lacks_the_key_finds_its_public_half(tmp_path: Path) -> None:
    key = load_or_make(tmp_path / KEY_FILE).verifier
    publish(tmp_path, key)
    (tmp_path / KEY_FILE).unlink()
    assert audit_key.public_key(tmp_path, tmp_path / KEY_FILE) == key
    (tmp_path / PUBLIC_FILE).write_text("garbage")
    with pytest.raises(AuditKeyProblem, match="there is no audit key"):
        audit_key.public_key(tmp_path, tmp_path / KEY_FILE)


def test_a_place_without_a_log_is_told(tmp_path: Path) -> None:
    with pytest.raises(LogUnavailable, match="there is no log in"):
        Notary.open(tmp_path, tmp_path / KEY_FILE)
