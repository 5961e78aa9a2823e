"""``pgnode run`` runs a supervisor with the settings of the environment."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pgnode.cli.run import run_node
from pgnode.errors import OperatorError, SettingsError
from pgnode.settings import Settings
from pgnode.supervisor import main as supervisor


def test_the_supervisor_gets_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []

    def run(settings: Settings) -> int:
        seen.append(settings)
        return 3

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATE_DIR", str(tmp_path))
    monkeypatch.delenv("GRPC_ENABLE_FORK_SUPPORT", raising=False)
    monkeypatch.setattr(supervisor, "run", run)
    assert run_node() == 3
    assert [settings.state_dir for settings in seen] == [tmp_path]
    assert os.environ["GRPC_ENABLE_FORK_SUPPORT"] == "0", "set before anything of gRPC is imported"


def test_a_slip_in_a_name_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATE_DIR", str(tmp_path))
    monkeypatch.setattr(supervisor, "run", lambda _settings: 0)
    (tmp_path / ".env").write_text("SERVICE_PROT=1\n")
    assert run_node() == 0
    assert capsys.readouterr().err == "pgnode: SERVICE_PROT in .env means nothing here: did you mean SERVICE_PORT?\n"


def test_wrong_settings_are_refused_before_anything_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATE_DIR", str(tmp_path))
    monkeypatch.setenv("SERVICE_PORT", "no port")
    with pytest.raises(SettingsError, match="SERVICE_PORT"):
        run_node()
    assert list(tmp_path.iterdir()) == []


def test_what_is_missing_is_told_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgnode.cli.run.what_is_missing", lambda: "there is no /proc")
    with pytest.raises(OperatorError, match="no /proc"):
        run_node()
