"""``pgnode backup``."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from pgnode.cli import backup as backup_module
from pgnode.cli import restore as restore_module
from pgnode.cli.backup import STANDARD, back_up
from pgnode.cli.restore import restore
from pgnode.errors import OperatorError, SettingsError
from pgnode.store.changes import StoreChanges
from pgnode.supervisor.host import own_certificate
from pgnode.testing.faults import ArmedFaults
from tests.unit.cli.state_folders import Folder, armed_here, leave_alone, make_node


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


def test_a_backup_is_for_its_owner_alone_and_says_what_is_in_it(
    node: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    assert back_up(node.named, file) == 0
    said = capsys.readouterr().out
    assert "written: 2 users, 0 rejected, config, books of 1 counter, key and certificate; " in said
    assert "whoever has this file can be this node" in said
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in file.parent.iterdir() if path.name.startswith(".")] == []
    with pytest.raises(OperatorError, match="is there already: choose another name, or say --force"):
        back_up(node.named, file)
    before = file.stat().st_ino
    assert back_up(node.named, file, force=True, json_wanted=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["users"], found["owed_bytes"], found["left_out"]) == (2, 200, [])
    assert (found["bytes"], found["members"][-1]) == (file.stat().st_size, "state.db")
    assert file.stat().st_ino != before


def test_what_a_node_does_not_have_yet_is_not_said_to_be_in_it(
    node: Folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    node.write(StoreChanges(meta={"backend": b"config"}, routing={"base": "1"}))
    assert back_up(node.named, tmp_path / "first") == 0
    assert "0 rejected, config, routing, books of 1 counter" in capsys.readouterr().out
    node.write(StoreChanges(routing={"base": None}))
    assert back_up(node.named, tmp_path / "second") == 0
    assert "0 rejected, config, books of 1 counter" in capsys.readouterr().out
    node.write(StoreChanges(meta={"backend": None}))
    assert back_up(node.named, tmp_path / "third") == 0
    assert "0 rejected, books of 1 counter" in capsys.readouterr().out
    assert back_up(node.named, tmp_path / "fourth", json_wanted=True) == 0
    assert json.loads(capsys.readouterr().out)["holds"] == []


def test_what_the_settings_name_is_not_the_nodes_own(
    node: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    node.rotate_key()
    assert back_up(node.named, tmp_path / "first") == 0
    assert "key and certificate" in capsys.readouterr().out
    monkeypatch.setenv("SSL_CERT_FILE", str(node.path / "tls/cert.pem"))
    monkeypatch.setenv("SSL_KEY_FILE", str(node.path / "tls/key.pem"))
    for name, value in (("API_KEY", "00000000-0000-4000-8000-000000000001"), ("API_KEY_FILE", str(tmp_path / "key"))):
        monkeypatch.delenv("API_KEY", raising=False)
        monkeypatch.setenv(name, value)
        assert back_up(node.named, tmp_path / name) == 0
        said = capsys.readouterr().out
        assert f"not in it: the key, which is {'set as API_KEY' if name == 'API_KEY' else 'in API_KEY_FILE='}" in said
        assert "not in it: the certificate, which is in SSL_CERT_FILE=" in said
        assert "00000000" not in said


def test_a_pair_that_does_not_fit_is_no_backup(node: Folder, tmp_path: Path) -> None:
    before = (node.path / "tls/key.pem").read_bytes()
    own_certificate.make_certificate(node.settings)
    (node.path / "tls/key.pem").write_bytes(before)
    with pytest.raises(SettingsError):
        back_up(node.named, tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_no_node_has_no_backup(other: Folder, tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"there is no state\.db"):
        back_up(other.named, tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == []


@pytest.mark.parametrize("point", ["backup.copied", "backup.write", "backup.written"])
def test_a_full_disk_leaves_nothing_and_takes_nothing(
    node: Folder, file: Path, faults: ArmedFaults, point: str
) -> None:
    before, names = file.read_bytes(), {path.name for path in file.parent.iterdir()}
    faults.arm(point, "raise ENOSPC")
    with pytest.raises(OperatorError, match=r"could not be written: No space left .*nothing was left behind"):
        back_up(node.named, file, force=True)
    assert file.read_bytes() == before
    assert {path.name for path in file.parent.iterdir()} == names


def test_to_standard_output_and_from_standard_input(
    node: Folder, other: Folder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stream = io.BytesIO()
    terminal = SimpleNamespace(isatty=lambda: True, buffer=stream, write=sys.stdout.write, flush=lambda: None)
    monkeypatch.setattr(backup_module, "sys", SimpleNamespace(stdout=terminal))
    with pytest.raises(OperatorError, match="not written to a terminal"):
        back_up(node.named, STANDARD)
    terminal.isatty = lambda: False
    assert back_up(node.named, STANDARD) == 0
    assert capsys.readouterr().out == ""
    stream.seek(0)
    monkeypatch.setattr(restore_module, "sys", SimpleNamespace(stdin=SimpleNamespace(buffer=stream)))
    assert restore(other.named, STANDARD) == 0
    assert other.stored.users == node.stored.users
