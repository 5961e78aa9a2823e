"""``pgnode restore``: from a backup into state folders."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pgnode.cli import backup as backup_module
from pgnode.cli import restore as restore_module
from pgnode.cli.archive import Manifest
from pgnode.cli.backup import back_up
from pgnode.cli.restore import restore
from pgnode.errors import OperatorError, StateDirBusyError, StoreUnusableError
from pgnode.os_support.fault_points import InjectedFaultError
from pgnode.store.changes import StoreChanges
from pgnode.store.database import Database
from pgnode.store.rows import LedgerRow
from pgnode.store.schema import MIGRATIONS
from pgnode.store.state import StoredState
from pgnode.supervisor.host import identity
from pgnode.supervisor.host.restored_state import BEFORE, GATHERING, READY
from pgnode.testing.faults import ArmedFaults
from tests.unit.cli.state_folders import UP, Folder, armed_here, leave_alone, make_node


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    leave_alone(monkeypatch, tmp_path)


@pytest.fixture
def node(tmp_path: Path) -> Folder:
    return make_node(tmp_path / "node")


@pytest.fixture
def file(node: Folder, tmp_path: Path) -> Path:
    assert back_up(node.named, tmp_path / "node.pgnode") == 0
    return tmp_path / "node.pgnode"


@pytest.fixture
def other(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "other")


@pytest.fixture
def faults(tmp_path: Path) -> Iterator[ArmedFaults]:
    with armed_here(tmp_path / "fault-points") as made:
        yield made


def test_another_host_becomes_the_node(
    node: Folder, other: Folder, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert restore(other.named, file) == 0
    said = capsys.readouterr().out
    assert "2 users, 0 rejected, as it was 0 s ago" in said
    assert "traffic: 200 bytes that were owed then may have been reported since: they count as reported" in said
    assert "start the node now" in said
    assert other.identity == node.identity
    assert (other.stored.users, other.stored.backend, other.stored.active) == (node.stored.users, b"config", True)
    assert other.stored.counters == {UP: LedgerRow(500, 500, 200, 3)}
    assert other.stored.foreign_books
    assert not any((other.path / name).exists() for name in (GATHERING, READY, BEFORE))
    assert {path.stat().st_mode & 0o077 for path in other.path.rglob("*") if path.is_file()} == {0}


def test_a_folder_of_the_same_node_keeps_its_books_and_what_was_there(
    node: Folder, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    node.write(StoreChanges(users={"alice": None, "carol": b"3"}, counters={UP: LedgerRow(900, 800, 600, 3)}))
    # The key was replaced since; the certificate tells that it is the same node.
    node.rotate_key()
    rotated = node.identity
    core = SimpleNamespace(pid=4711)
    monkeypatch.setattr(restore_module, "seen_core", lambda _settings: core)
    assert restore(node.named, file) == 0
    said = capsys.readouterr().out
    assert "the books of this folder go on, so nothing is lost or counted twice" in said
    assert "a core still runs here (pid 4711): the next start takes it over" in said
    assert f"what was here before is in {node.path / BEFORE}" in said
    assert node.stored.users == {"alice": b"1", "bob": b"2"}
    assert node.stored.counters == {UP: LedgerRow(900, 800, 600, 3)}
    assert not node.stored.foreign_books
    before = Folder(node.path / BEFORE)
    assert before.stored.users == {"bob": b"2", "carol": b"3"}
    assert before.identity["api_key"] == rotated["api_key"]
    assert restore(node.named, file, owed="keep", json_wanted=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["books"], found["users"], found["core_pid"]) == ("of this folder", 2, 4711)


def test_what_was_owed_may_be_reported_once_more(other: Folder, file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert restore(other.named, file, owed="keep") == 0
    assert "are reported once more" in capsys.readouterr().out
    assert other.stored.counters == {UP: LedgerRow(500, 300, 200, 3)}


def test_another_nodes_folder_is_left_alone_unless_that_is_said(
    node: Folder, other: Folder, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other.make()
    other.write(StoreChanges(users={"dave": b"4"}, counters={UP: LedgerRow(7, 0, 7, 1)}))
    before = other.content()
    with pytest.raises(OperatorError, match=r"is another node's than this backup .* Say --foreign"):
        restore(other.named, file)
    assert other.content() == before
    own = other.identity
    assert restore(other.named, file, foreign=True, with_identity=False) == 0
    assert "key and certificate stay as they are here" in capsys.readouterr().out
    assert other.identity == own
    assert (other.stored.users, other.stored.counters) == (node.stored.users, {UP: LedgerRow(500, 500, 200, 3)})
    with pytest.raises(OperatorError, match="--foreign"):
        restore(other.named, file)
    assert restore(other.named, file, foreign=True) == 0
    assert other.identity == node.identity
    assert restore(other.named, file) == 0, "it is this node now"


def test_a_store_without_identity_is_somebody_elses(other: Folder, file: Path) -> None:
    other.path.mkdir()
    other.write(StoreChanges(users={"dave": b"4"}))
    with pytest.raises(OperatorError, match="--foreign"):
        restore(other.named, file)


def test_what_the_settings_name_stays(
    node: Folder, other: Folder, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("API_KEY", "00000000-0000-4000-8000-000000000001")
    with pytest.raises(OperatorError, match="--foreign"):
        restore(other.named, file)
    monkeypatch.setenv("SSL_CERT_FILE", str(node.path / "tls/cert.pem"))
    monkeypatch.setenv("SSL_KEY_FILE", str(node.path / "tls/key.pem"))
    assert restore(other.named, file) == 0, "the certificate is that of the backup"
    said = capsys.readouterr().out
    assert "the key stays the one that the settings name" in said
    assert "the certificate stays the one that the settings name" in said
    assert other.identity == {}


def test_a_damaged_store_here_is_replaced_without_its_books(node: Folder, file: Path) -> None:
    (node.path / "state.db").write_bytes(b"no database at all" * 500)
    assert restore(node.named, file) == 0
    assert (set(node.stored.users), node.stored.foreign_books) == ({"alice", "bob"}, True)


def test_a_running_node_is_not_restored(node: Folder, file: Path) -> None:
    before = node.content()
    with identity.lock_state_dir(node.settings), pytest.raises(StateDirBusyError, match=r"a node runs with .*stop it"):
        restore(node.named, file)
    assert node.content() == before


def test_a_newer_store_is_refused(node: Folder, other: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copied(_path: Path, target: Path) -> StoredState:
        Database.open(target, migrations=[*MIGRATIONS, ["SELECT 1"]]).close()
        return node.stored

    monkeypatch.setattr(backup_module, "copy_store", copied)
    assert back_up(node.named, tmp_path / "newer") == 0
    with pytest.raises(StoreUnusableError, match="newer pgnode"):
        restore(other.named, tmp_path / "newer")
    assert not (other.path / "state.db").exists()
    assert not (other.path / GATHERING).exists()


def test_what_is_no_backup_changes_nothing(node: Folder, file: Path, tmp_path: Path) -> None:
    before = node.content()
    (tmp_path / "damaged").write_bytes(file.read_bytes()[:-300])
    with pytest.raises(OperatorError, match=r"is no backup of a node, or is damaged"):
        restore(node.named, tmp_path / "damaged")
    with pytest.raises(OperatorError, match=r"could not be restored: No such file .*nothing was changed"):
        restore(node.named, tmp_path / "nowhere")
    assert node.content() == before


def test_a_key_that_is_none_is_refused(
    node: Folder, other: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (node.path / "api_key").write_text("no key")
    assert back_up(node.named, tmp_path / "file") == 0
    with pytest.raises(OperatorError, match="the key in this backup is no UUID"):
        restore(other.named, tmp_path / "file")
    assert restore(other.named, tmp_path / "file", with_identity=False) == 0
    assert "no key" not in capsys.readouterr().out


@pytest.mark.parametrize("point", ["restore.read", "restore.gathered", "store.write"])
def test_a_disk_that_is_full_before_the_decision_changes_nothing(
    node: Folder, file: Path, faults: ArmedFaults, point: str
) -> None:
    before = node.content()
    faults.arm(point, "raise ENOSPC")
    with pytest.raises(OperatorError, match=r"No space left|no room on the disk"):
        restore(node.named, file)
    assert node.content() == before


def test_after_the_decision_the_next_restore_finishes_it_first(
    node: Folder, other: Folder, file: Path, tmp_path: Path, faults: ArmedFaults
) -> None:
    faults.arm("restore.move", "raise", skip=1)
    with pytest.raises(InjectedFaultError):
        restore(other.named, file)
    (tmp_path / "damaged").write_bytes(b"x")
    with pytest.raises(OperatorError, match="damaged"):
        restore(other.named, tmp_path / "damaged")
    assert other.stored.users == node.stored.users
    assert other.identity == node.identity


def test_as_root_everything_becomes_the_folders_owners(
    other: Folder, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other.path.mkdir()
    given: set[tuple[str, int, int]] = set()
    monkeypatch.setattr(restore_module, "os", SimpleNamespace(geteuid=lambda: 0, chown=_noting(given)))
    kept = Path.stat
    owner = os.stat_result((0o40700, 0, 0, 1, 4711, 4712, 0, 0, 0, 0))
    monkeypatch.setattr(Path, "stat", lambda self, **how: owner if self == other.path else kept(self, **how))
    restore_module._give_to_owner(other.path)
    assert given == set(), "nothing is in it"
    (other.path / "state.db").touch()
    monkeypatch.setattr(Path, "lstat", lambda self: SimpleNamespace(st_uid=0))
    restore_module._give_to_owner(other.path)
    assert given == {("state.db", 4711, 4712)}


def _noting(given: set[tuple[str, int, int]]) -> Any:
    def chown(path: Path, user: int, group: int, *, follow_symlinks: bool) -> None:
        assert not follow_symlinks
        given.add((path.name, user, group))

    return chown


def test_a_manifest_says_what_it_is() -> None:
    made = Manifest("0.6.0", 2, 1.0, "node", 1, 0, 0, 0, "", {"state.db": (3, "ab")})
    assert Manifest.decode(made.encode()) == made
    assert os.linesep in made.encode().decode()
