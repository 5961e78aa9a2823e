"""``pgnode config``: values, and where they come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pgnode.cli import config, main
from pgnode.cli.config import ShownSetting, settings_of, show_config, sources
from pgnode.cli.target import Named, Target
from pgnode.settings import load, load_from
from pgnode.supervisor.control.client import NobodyListensError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("API_PORT", "SERVICE_PORT", "API_KEY", "STATE_DIR"):
        monkeypatch.delenv(name, raising=False)


def test_each_value_has_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("SERVICE_PORT=4000\nAPI_PORT=4001\nNONSENSE=1\n")
    monkeypatch.setenv("API_PORT", "4002")
    monkeypatch.setenv("GRPC_PORT", "")
    (tmp_path / "a.env").write_text("WEB_CONCURRENCY=3\n")
    found = sources(tmp_path / "a.env", tmp_path)
    assert {name: found[name] for name in ("SERVICE_PORT", "API_PORT", "WEB_CONCURRENCY", "STATE_DIR")} == {
        "SERVICE_PORT": f"{tmp_path}/.env",
        "API_PORT": "environment",
        "WEB_CONCURRENCY": f"{tmp_path}/a.env",
        "STATE_DIR": "--state-dir",
    }
    assert not {"NONSENSE", "GRPC_PORT"} & found.keys()


def test_the_running_node_may_have_others(tmp_path: Path) -> None:
    settings = load(state_dir=str(tmp_path), debug=True)
    shown = {
        one.name: one
        for one in settings_of(settings, {"DEBUG": "environment"}, {"DEBUG": False, "API_KEY": None, "API_PORT": 9})
    }
    assert shown["DEBUG"] == ShownSetting("DEBUG", True, "environment", "false")
    assert shown["API_PORT"] == ShownSetting("API_PORT", 62051, "default", "9")
    assert shown["API_KEY"] == ShownSetting("API_KEY", None, "default", None)


def test_the_file_of_a_service_that_nobody_named_is_a_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "pgnode.env"
    file.write_text("WEB_CONCURRENCY=3\n")
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
    target = Target(load_from(file, state_dir=str(tmp_path)), None, env_file=file)
    monkeypatch.setattr(config, "find_target", lambda _named: target)
    assert show_config(Named(), changed_only=True) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"WEB_CONCURRENCY=3  ({file})" in lines
    assert not any(line.startswith("SSL_CERT_FILE") for line in lines), "without a key it is no setting of the node"


def test_it_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    key = "7e3b1a52-1111-4222-8333-444455556666"
    monkeypatch.setenv("API_KEY", key)
    target = Target(load(state_dir=str(tmp_path)), 812)
    monkeypatch.setattr(config, "find_target", lambda _named: target)
    monkeypatch.setattr(config, "ask", lambda *_question, seconds: {"API_PORT": 9, "REDIS_URL": ""})
    assert show_config(Named(), changed_only=True) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "API_PORT=62051  (default; the running node has 9)" in lines
    assert "API_KEY=(set)  (environment)" in lines
    assert not any(line.startswith("SERVICE_PORT") for line in lines)
    assert show_config(Named(), json_wanted=True) == 0
    text = capsys.readouterr().out
    assert key not in text
    assert {"name": "API_PORT", "value": 62051, "source": "default", "running": "9"} in json.loads(text)


def test_one_that_does_not_answer_is_not_asked_for_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_question: object, seconds: float) -> dict[str, object]:
        raise NobodyListensError("nobody listens")

    monkeypatch.setattr(config, "ask", nobody)
    monkeypatch.setattr(config, "find_target", lambda _named: Target(load(state_dir=str(tmp_path)), 812))
    assert CliRunner().invoke(main, ["config"]).exit_code == 0


def test_a_node_that_is_down(tmp_path: Path) -> None:
    found = CliRunner().invoke(main, ["config", "--changed", "--state-dir", str(tmp_path)])
    assert found.exit_code == 0
    assert f"STATE_DIR={tmp_path}  (--state-dir)" in found.output
