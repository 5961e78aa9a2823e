"""The doctor's checks of files and folders, one by one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pgnode.cli import path_checks
from pgnode.cli.findings import Finding
from pgnode.cli.seen import SeenDisk
from pgnode.settings import Settings, load
from tests.unit.cli.found import levels, only, settings_with_identity


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    return settings_with_identity(tmp_path)


def test_rights_of_the_state_folder(settings: Settings, tmp_path: Path) -> None:
    assert levels(path_checks.check_state_dir(settings)) == ["ok"]
    settings.state_dir.chmod(0o755)
    settings.key_file.chmod(0o644)
    found = list(path_checks.check_state_dir(settings))
    assert [one.do for one in found] == [f"chmod 700 {settings.state_dir}", f"chmod 600 {settings.key_file}"]
    assert levels(path_checks.check_state_dir(load(state_dir=str(tmp_path / "none")))) == ["warn"]


def test_a_folder_that_a_start_could_not_make(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = settings.model_copy(update={"state_dir": tmp_path / "none" / "yet"})
    assert levels(path_checks.check_state_dir(there)) == ["warn"]
    (tmp_path / "file").touch()
    below = settings.model_copy(update={"state_dir": tmp_path / "file" / "state"})
    found = only(path_checks.check_state_dir(below))
    assert (found.level, found.text) == ("fail", f"{tmp_path}/file/state: Not a directory")
    monkeypatch.setattr(os, "access", lambda path, _mode: path != tmp_path)
    found = only(path_checks.check_state_dir(there))
    assert (found.level, found.text) == (
        "fail",
        f"{tmp_path}/none/yet is not there, and this user may not make it in {tmp_path}",
    )


def test_the_key_is_there_or_can_be_made(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(**changed: object) -> Finding | None:
        return path_checks.check_key(settings.model_copy(update=changed))

    made = found()
    assert made is not None
    assert made.text.endswith("has a key")
    settings.key_file.unlink()
    assert found() is None
    assert found(api_key="5783a3e7-e373-51cd-8642-c83782b807c5") is None
    assert found(api_key_file=tmp_path / "key") is None
    missing = found(api_key_file=tmp_path / "none" / "key")
    assert missing is not None
    assert (missing.level, missing.text) == (
        "fail",
        f"API_KEY_FILE={tmp_path}/none/key cannot be made: there is no {tmp_path}/none",
    )
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    refused = found(api_key_file=tmp_path / "key")
    assert refused is not None
    assert refused.text.endswith(f"this user may not write {tmp_path}")


def test_a_folder_that_may_not_be_written(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    assert [one.text for one in path_checks.check_state_dir(settings) if one.level == "fail"] == [
        f"this user may not write {settings.state_dir}"
    ]


@pytest.mark.parametrize(
    ("disk", "level"),
    [
        (SeenDisk(10**12, 10**11, 10**6), "ok"),
        (SeenDisk(10**12, 10**6, 10**6), "fail"),
        (SeenDisk(10**12, 10**11, 3), "fail"),
    ],
)
def test_the_disk(settings: Settings, monkeypatch: pytest.MonkeyPatch, disk: SeenDisk, level: str) -> None:
    monkeypatch.setattr(path_checks, "seen_disk", lambda _folder: disk)
    assert only(path_checks.check_disk(settings)).level == level
    monkeypatch.setattr(path_checks, "seen_disk", lambda _folder: None)
    assert levels(path_checks.check_disk(settings)) == []


def test_folders_that_are_none(settings: Settings, tmp_path: Path) -> None:
    """The node goes on without what they are for, so nothing fails."""
    assert levels(path_checks.check_paths(settings)) == []
    file = tmp_path / "file"
    file.touch()
    logs = settings.model_copy(update={"log_dir": file / "logs"})
    assert only(path_checks.check_paths(logs)).text == (
        f"LOG_DIR={file}/logs: {file} is no folder, so log files that a config names are not written"
    )
    copied = settings.model_copy(update={"generated_config_path": file / "copy.json"})
    assert only(path_checks.check_paths(copied)).text == (
        f"GENERATED_CONFIG_PATH={file}/copy.json: {file} is no folder, so no copy of the core's config is written"
    )
    for path in (tmp_path, tmp_path / "copy.json", tmp_path / "not" / "yet"):
        well = settings.model_copy(update={"generated_config_path": path, "log_dir": tmp_path / "logs"})
        assert levels(path_checks.check_paths(well)) == ["ok", "ok"]


def test_folders_that_may_not_be_written(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    found = only(path_checks.check_paths(settings.model_copy(update={"log_dir": tmp_path / "logs"})))
    assert (found.level, found.do) == ("warn", "set LOG_DIR to a path that the node may write")
    assert f"this user may not write {tmp_path}" in found.text


def test_the_outbound_of_wireguard(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "outbound.json"
    wanted = settings.model_copy(update={"wg_egress_outbound_file": file})
    for content in (None, "nonsense"):
        if content is not None:
            file.write_text(content)
        found = only(path_checks.check_paths(wanted))
        assert (found.level, found.do) == ("warn", "put one outbound into it, or unset it")
        assert found.text.startswith(f"WG_EGRESS_OUTBOUND_FILE {file}")
    file.write_text('{"protocol": "freedom"}')
    assert levels(path_checks.check_paths(wanted)) == ["ok"]
