"""Whether the installed version can start is tried without touching anything."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from pgnode.settings import load
from pgnode.settings.difference import NO_DIFFERENCE, Difference
from pgnode.settings.handover import ENVIRONMENT_VARIABLE, hand_over, hand_over_environment
from pgnode.supervisor.dry_start import main


@pytest.fixture(autouse=True)
def state_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "state"
    folder.mkdir()
    monkeypatch.setenv("STATE_DIR", str(folder))
    monkeypatch.chdir(tmp_path)
    return folder


def test_one_that_can_says_so(state_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(state_dir)]) == 0
    assert Difference.decode(capsys.readouterr().out) == NO_DIFFERENCE
    assert os.listdir(state_dir) == []


def test_what_is_different_in_the_settings_is_told(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    running = hand_over(load())
    for name, value in running.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WEB_CONCURRENCY", "7")
    try:
        assert main([str(state_dir)]) == 0
    finally:
        os.close(running.descriptor)
    assert Difference.decode(capsys.readouterr().out) == Difference(taken=("WEB_CONCURRENCY",))


def test_the_file_of_settings_that_was_named_is_read(state_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = state_dir.parent / "node.env"
    file.write_text("LOG_BUFFER_SIZE=some\n")
    assert main([str(state_dir), str(file)]) == 2
    assert f"{file}: LOG_BUFFER_SIZE=some is not allowed" in capsys.readouterr().out


def test_a_wrong_setting_is_told_in_one_line(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("API_PORT", "many")
    monkeypatch.setenv("WEB_CONCURRENCY", "none")
    assert main([str(state_dir)]) == 2
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "API_PORT=many" in said


def test_settings_of_the_start_are_in_the_environment_that_is_handed_over(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    descriptor = hand_over_environment({"API_PORT": "many"}, state_dir)
    monkeypatch.setenv(ENVIRONMENT_VARIABLE, str(descriptor))
    # Undone at the end.
    monkeypatch.setenv("API_PORT", "1")
    try:
        assert main([str(state_dir)]) == 2
    finally:
        os.close(descriptor)
    assert "API_PORT=many" in capsys.readouterr().out


def test_another_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "other")]) == 2
    assert "a restart in place cannot change it" in capsys.readouterr().out


def test_a_store_of_a_newer_version_is_refused(state_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = state_dir / "state.db"
    store.write_bytes(b"no store" * 1000)
    assert main([str(state_dir)]) == 2
    assert "state.db cannot be read" in capsys.readouterr().out
    store.unlink()
    with sqlite3.connect(store) as connection:
        connection.execute("CREATE TABLE of_somebody (x)")
    connection.close()
    assert main([str(state_dir)]) == 2
    assert "not a file of this node's" in capsys.readouterr().out
