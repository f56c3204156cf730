"""Checkpoints and proofs over HTTP, and from the command line beside the server."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from freezegun import freeze_time

from api import audit as audit_room
from api import keys as keyring
from api.audit import Audit, AuditNotReady, CheckpointNotFound
from api.context import AUDIT
from eventstore.log import LogUnavailable
from eventstore.proofs.audit_key import KEY_FILE, PUBLIC_FILE
from eventstore.proofs.checkpoint import CHECKPOINTS_FILE
from tests.support.audited import NOW_US, a_log, change, notary_of, verify, written_anew
from tests.support.server import Process, Server, serving
from tests.test_tools import turnlog
from tools.cli import main


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints as often as somebody asks."""
    monkeypatch.setattr(audit_room, "SIGN_REST_S", 0.0)


at_once = pytest.mark.usefixtures("_at_once")


async def built(server: Server) -> None:
    """Wait until the tree is."""
    assert server.app is not None
    await server.app[AUDIT]._ready.wait()


def filed(data: Path) -> list[int]:
    """The sizes of the checkpoints on file."""
    path = data / CHECKPOINTS_FILE
    return [json.loads(line)["size"] for line in path.read_text().splitlines()] if path.exists() else []


@at_once
async def test_whoever_kept_a_checkpoint_sees_that_the_log_only_grew(data: Path, tmp_path: Path) -> None:
    async with serving(data, audit_name="example.com/chat") as server:
        await server.chat("hello", "s1")
        kept = await server.get("/api/audit/checkpoint")
        await server.chat("more", "s1")
    async with serving(data) as server:
        new = await server.get(f"/api/audit/checkpoint?since={kept['size']}")
        from_nothing = await server.get("/api/audit/checkpoint?since=0")
    assert (kept["object"], kept["since"], new["size"]) == ("audit.checkpoint", None, kept["size"] + 2)
    assert from_nothing["since"]["path"] == []
    (tmp_path / "kept.json").write_text(json.dumps(kept))
    (tmp_path / "new.json").write_text(json.dumps(new))
    done = verify(tmp_path, "--key", kept["key"], "--old", "kept.json", "new.json")
    assert (done.returncode, f"nothing of its {kept['size']} events was changed" in done.stdout) == (0, True)


@at_once
async def test_every_event_is_proven_by_the_newest_checkpoint_and_by_one_on_file(data: Path, tmp_path: Path) -> None:
    async with serving(data) as server:
        await server.chat("hello Ada", "s1")
        first = await server.get("/api/audit/checkpoint")
        await server.chat("more", "s1")
        newest = await server.get("/api/audit/checkpoint")
        for size, positions in (("", newest["size"]), (f"?size={first['size']}", first["size"])):
            for position in range(1, positions + 1):
                proof = await server.get(f"/api/audit/proof/{position}{size}")
                assert (proof["position"], proof["size"]) == (position, positions)
                (tmp_path / "proof.json").write_text(json.dumps(proof))
                done = verify(tmp_path, "--key", newest["key"], "proof.json")
                assert (done.returncode, done.stderr) == (0, "")
    assert "hello Ada" in base64.b64decode((await _proof_of_input(data))["data"]).decode(errors="replace")


async def _proof_of_input(data: Path) -> dict[str, str]:
    async with serving(data) as server:
        return await server.get("/api/audit/proof/2")


async def test_an_event_that_was_just_recorded_is_proven_without_asking_twice(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_room, "SIGN_REST_S", 0.2)
    async with serving(data) as server:
        await server.chat("hello", "s1")
        old = await server.get("/api/audit/checkpoint")
        await server.chat("more", "s1")
        assert (await server.get("/api/audit/checkpoint"))["size"] == old["size"]  # not again so soon
        newest = old["size"] + 2
        proofs = await asyncio.gather(*(server.get(f"/api/audit/proof/{newest}") for _ in range(5)))
        assert {proof["size"] for proof in proofs} == {newest}
        assert filed(data) == [old["size"], newest]


@at_once
async def test_a_tenant_is_given_proofs_of_its_own_events_alone(data: Path) -> None:
    data.mkdir()
    other = keyring.add(data, "other", "other")
    async with serving(data) as server:
        await server.chat("hello", "s1")
        newest = (await server.get("/api/audit/checkpoint"))["size"]
        theirs = {"authorization": f"Bearer {other}"}
        for position in (1, newest):
            async with server.http.get(f"/api/audit/proof/{position}", headers=theirs) as answer:
                refused = (answer.status, await answer.json())
            async with server.http.get(f"/api/audit/proof/{position}00", headers=theirs) as answer:
                missing = (answer.status, await answer.json())
            assert refused[0] == missing[0] == 404
            assert missing[1]["error"]["message"].replace("00.", ".") == refused[1]["error"]["message"]
        async with server.http.get("/api/audit/checkpoint", headers=theirs) as answer:
            assert (answer.status, (await answer.json())["size"]) == (200, newest)


@pytest.mark.parametrize(
    ("path", "status", "param", "said"),
    [
        ("/api/audit/proof/0", 404, "position", "no event at position 0"),
        ("/api/audit/proof/999", 404, "position", "no event at position 999"),
        ("/api/audit/proof/-1", 400, "position", "must be a whole number"),
        ("/api/audit/proof/x", 400, "position", "must be a whole number"),
        ("/api/audit/proof/%D9%A1", 400, "position", "must be a whole number"),
        (f"/api/audit/proof/{'9' * 18}", 404, "position", "no event"),
        (f"/api/audit/proof/{'9' * 19}", 400, "position", "at most 18 digits"),
        ("/api/audit/proof/1?size=", 400, "size", "must be a whole number"),
        ("/api/audit/proof/1?size=-1", 400, "size", "must be a whole number"),
        ("/api/audit/proof/1?size=999", 404, "size", "There is no checkpoint of size 999."),
        ("/api/audit/proof/3?size=2", 404, "size", "A checkpoint of size 2 has no event 3."),
        ("/api/audit/checkpoint?since=x", 400, "since", "must be a whole number"),
        ("/api/audit/checkpoint?since=999", 400, "since", "it has 4 events, got 999"),
    ],
)
async def test_bad_input_is_refused_by_name(data: Path, path: str, status: int, param: str, said: str) -> None:
    await a_log(data, 2)
    notary = notary_of(data)
    notary.sign(NOW_US)
    notary.close()
    await a_log(data, 4, after=2)
    async with serving(data) as server:
        error = (await server.get(path, status))["error"]
    assert (error["param"], said in error["message"]) == (param, True), error


@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_nothing_about_a_checkpoint_can_be_asked_to_change(data: Path, method: str) -> None:
    async with serving(data) as server:
        for path in ("/api/audit/checkpoint", "/api/audit/proof/1"):
            async with server.http.request(method, path) as answer:
                assert answer.status == 405
            async with server.http.get(path, headers={"authorization": "Bearer wrong-key-0123456789"}) as answer:
                assert answer.status == 401


async def test_a_checkpoint_is_signed_at_a_stop_and_from_time_to_time_where_the_log_grew(data: Path) -> None:
    with freeze_time("2026-12-01T12:00:00Z", real_asyncio=True):
        async with serving(data) as server:
            await server.chat("hello", "s1")
        assert len(filed(data)) == 1
        async with serving(data) as server:
            await built(server)
        assert len(filed(data)) == 1
    line = json.loads((data / CHECKPOINTS_FILE).read_text())
    assert line["signed_at"] == "2026-12-01T12:00:00Z"


async def test_checkpoints_come_at_the_interval_that_was_set(data: Path) -> None:
    async with serving(data, checkpoint_every_s=0.02) as server:
        await server.chat("hello", "s1")
        assert server.app is not None
        notary = server.app[AUDIT]._notary
        async with asyncio.timeout(5):
            while not notary.newest():  # noqa: ASYNC110 (nothing tells)
                await asyncio.sleep(0.01)
    async with serving(data, checkpoint_every_s=0.0) as server:
        before = filed(data)
        await server.chat("more", "s1")
    assert filed(data) == before


async def test_a_rewritten_log_is_told_of_and_no_audit_route_answers_for_it(data: Path) -> None:
    await a_log(data, 10)
    async with serving(data) as server:
        await server.get("/api/audit/checkpoint")
    await written_anew(data, 12)
    async with serving(data) as server:
        for path in ("/api/audit/checkpoint", "/api/audit/checkpoint?since=3", "/api/audit/proof/3"):
            error = (await server.get(path, 503))["error"]
            assert error["code"] == "log_rewritten"
            assert "10 events" in error["message"]
            assert "12" in error["message"]
        await server.chat("turns go on", "s2")
    assert filed(data) == [10]


async def test_a_truncated_log_is_told_of_in_the_servers_own_log(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await a_log(data, 10)
    async with serving(data):
        pass
    change(data, "DELETE FROM events WHERE position > 7")
    async with serving(data) as server:
        error = (await server.get("/api/audit/checkpoint", 503))["error"]
    assert "is of 10 events, and the log has 7: it was cut short" in error["message"]
    told = "".join(capsys.readouterr()).splitlines()
    assert any("error" in line and "no checkpoint was signed" in line for line in told)
    assert filed(data) == [10]


async def test_a_crash_never_leaves_two_stories(data: Path, start: Callable[..., Awaitable[Process]]) -> None:
    kept = None
    for turn in range(2):
        process = await start("--checkpoint-every-s", "0")
        if kept:
            new = await process.server.get(f"/api/audit/checkpoint?since={kept['size']}")
            assert new["since"]["root"] == kept["root"]
            kept = new
        await process.server.chat(f"turn {turn}", "s1")
        asked = asyncio.create_task(process.server.get("/api/audit/checkpoint"))
        await asyncio.sleep(0.004 * turn)
        (outcome,) = await process.kill9(asked)
        kept = outcome if isinstance(outcome, dict) else kept
    path = data / CHECKPOINTS_FILE
    path.write_bytes(path.read_bytes()[:-30] if path.exists() else b'{"size":')
    process = await start()
    assert (await process.server.get("/api/audit/checkpoint"))["size"] > 0
    assert "can not be read: passed over" in process.log
    await process.terminate()


async def test_who_only_reads_shows_what_is_on_file_and_signs_nothing(data: Path) -> None:
    await a_log(data, 3)
    notary_of(data).close()
    audit = await Audit.start(data, data / KEY_FILE, 3_600, signs=False)
    with pytest.raises(CheckpointNotFound, match="this server signs none"):
        await audit.checkpoint()
    await audit.stop()
    async with serving(data):
        pass
    (data / KEY_FILE).unlink()
    await a_log(data, 5, after=3)
    audit = await Audit.start(data, data / KEY_FILE, 3_600, signs=False)
    assert (await audit.checkpoint()).size == (await audit.proof("default", 3, None)).checkpoint.size == 3
    with pytest.raises(CheckpointNotFound, match="of 3 events, and this server signs none"):
        await audit.proof("default", 5, None)
    await audit.stop()
    assert filed(data) == [3]


async def test_a_server_that_can_not_prove_says_why_and_goes_on(data: Path) -> None:
    data.mkdir()
    audit = await Audit.start(data, data / KEY_FILE, 3_600)
    for _ in range(2):
        with pytest.raises(LogUnavailable, match="there is no log in"):
            await audit.checkpoint()
    await audit.stop()


async def test_a_tree_that_is_still_being_built_is_told_of(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await a_log(data, 3)
    notary_of(data).close()
    monkeypatch.setattr(audit_room, "WAIT_S", 0.0)
    audit = await Audit.start(data, data / KEY_FILE, 3_600)
    with pytest.raises(AuditNotReady, match="is being built"):
        await audit.checkpoint()
    await audit.stop()
    assert filed(data) == [3]


async def test_the_key_can_live_elsewhere_and_keeps_its_name(data: Path, tmp_path: Path) -> None:
    key = tmp_path / "elsewhere.key"
    async with serving(data, audit_key=key, audit_name="example.com/chat") as server:
        told = (await server.get("/api/audit/checkpoint"))["key"]
    assert told.startswith("example.com/chat+")
    assert key.stat().st_mode & 0o777 == 0o600
    assert not (data / KEY_FILE).exists()
    assert (data / PUBLIC_FILE).read_text().strip() == told
    assert _audit("key", data).stdout.strip() == told
    done = turnlog(
        *("serve", "--port", "0", "--data", str(data), "--audit-key", str(key), "--audit-name", "another"), cwd=tmp_path
    )
    assert (done.returncode, "signs for the log 'example.com/chat'" in done.stderr) == (1, True), done
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("left", [(PUBLIC_FILE, CHECKPOINTS_FILE), (PUBLIC_FILE,), (CHECKPOINTS_FILE,)])
async def test_a_log_that_has_lost_its_key_is_not_signed_for_with_another(
    data: Path, capsys: pytest.CaptureFixture[str], left: tuple[str, ...]
) -> None:
    async with serving(data) as server:
        await server.chat("hello", "s1")
    kept = {name: (data / name).read_bytes() for name in (KEY_FILE, PUBLIC_FILE, CHECKPOINTS_FILE)}
    for name in set(kept) - set(left):
        (data / name).unlink()
    capsys.readouterr()
    async with serving(data, checkpoint_every_s=0.001) as server:
        for path in ("/api/audit/checkpoint", "/api/audit/proof/1"):
            error = (await server.get(path, 503))["error"]
            assert error["code"] == "audit_key_unusable"
            assert f"put it back at {data / KEY_FILE}" in error["message"]
            assert "move audit.pub and checkpoints.jsonl away" in error["message"]
        await server.chat("turns go on", "s1")
    told = [line for line in "".join(capsys.readouterr()).splitlines() if "no checkpoint was signed" in line]
    assert (len(told), "error" in told[0]) == (1, True)
    assert {path.name for path in data.iterdir()} & set(kept) == set(left)
    assert all((data / name).read_bytes() == kept[name] for name in left)
    (data / KEY_FILE).write_bytes(kept[KEY_FILE])
    async with serving(data) as server:
        assert (await server.get("/api/audit/checkpoint"))["key"] == kept[PUBLIC_FILE].decode().strip()


async def test_a_log_begins_anew_where_what_its_lost_key_signed_was_moved_away(data: Path) -> None:
    async with serving(data) as server:
        await server.chat("hello", "s1")
    lost = (data / PUBLIC_FILE).read_text()
    for name in (KEY_FILE, PUBLIC_FILE):
        (data / name).unlink()
    (data / CHECKPOINTS_FILE).write_bytes(b"")  # an empty one says nothing
    async with serving(data) as server:
        assert (await server.get("/api/audit/checkpoint"))["key"] != lost.strip()


@at_once
async def test_the_command_line_proves_beside_a_running_server(data: Path, tmp_path: Path) -> None:
    proof = tmp_path / "proof.json"
    async with serving(data) as server:
        await server.chat("hello", "s1")
        size = json.loads((await asyncio.to_thread(_audit, "checkpoint", data)).stdout)["size"]
        await server.chat("more", "s1")
        proven = await asyncio.to_thread(_audit, "prove", data, str(size + 1), "-o", str(proof))
        assert (proven.exit_code, proven.stdout) == (0, "")
        by_old = await asyncio.to_thread(_audit, "prove", data, "2", "--size", str(size))
        assert json.loads(by_old.stdout)["size"] == size
        newest = await server.get("/api/audit/checkpoint")
        assert filed(data) == [size, newest["size"]]  # the server goes on where the command has signed
    assert json.loads(_audit("checkpoint", data, "--since", str(size)).stdout)["since"]["size"] == size
    key = turnlog("audit", "key", "--data", str(data), cwd=tmp_path).stdout.strip()
    done = verify(tmp_path, "--key", key, "proof.json")
    assert (done.returncode, f"event {size + 1} is in the log" in done.stdout) == (0, True)
    written = CliRunner().invoke(main, ["audit", "verifier"])
    assert written.stdout == (tmp_path / "verifier.py").read_text()


async def test_the_command_line_refuses_in_a_sentence(data: Path, tmp_path: Path) -> None:
    async with serving(data) as server:
        await server.chat("hello", "s1")
    size = filed(data)[-1]
    for command, arguments, said in (
        ("prove", ("0",), "0 is not in the range"),
        ("prove", ("x",), "not a valid integer"),
        ("prove", ("999",), f"has {size} events: there is none at 999"),
        ("prove", ("1", "--size", "999"), f"the newest is of size {size}"),
        ("prove", (str(size), "--size", "0"), "no checkpoint of size 0"),
        ("prove", (str(size), "--size", "-1"), "-1 is not in the range"),
        ("prove", ("1", "-o", "/nonexistent/proof"), "can not be written"),
        ("prove", ("1", "-o", str(tmp_path)), "is a directory"),
        ("checkpoint", ("--since", "999"), f"has {size} events: it never had 999"),
        ("key", ("--audit-key", str(data / "log.db")), "holds no audit key"),
    ):
        done = _audit(command, data, *arguments)
        assert (done.exit_code in (1, 2), said in done.stderr) == (True, True), done.stderr
    for done in (_audit("prove", tmp_path / "nowhere", "1"), _audit("checkpoint", tmp_path / "nowhere")):
        assert (done.exit_code, "there is no log in" in done.stderr) == (1, True)


async def test_without_the_key_what_is_on_file_still_proves(data: Path) -> None:
    await a_log(data, 3)
    async with serving(data):
        pass
    (data / KEY_FILE).unlink()
    assert json.loads(_audit("prove", data, "1").stdout)["size"] == 3
    await a_log(data, 4, after=3)
    done = _audit("prove", data, "4")
    assert (done.exit_code, "let the server do it" in done.stderr) == (1, True)


def _audit(command: str, data: Path, *arguments: str) -> Result:
    """Run a command in this process: one of its own takes a second."""
    return CliRunner().invoke(main, ["audit", command, *arguments, "--data", str(data)])
