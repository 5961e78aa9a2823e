"""``pgnode health``: an exit code for each question."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pgnode.cli import health, main
from pgnode.cli.health import Kind, show_health, unwell
from pgnode.supervisor.control.client import SilentError
from tests.unit.cli.seen_node import REPORT

WELL = REPORT.encode()


@pytest.mark.parametrize(
    ("kind", "changes", "reason"),
    [
        ("live", {"phase": "starting"}, ""),
        ("ready", {}, ""),
        ("ready", {"state": "idle"}, ""),
        ("core", {"state": "idle"}, "no core runs (idle)"),
        ("ready", {"state": "restoring"}, "the core is not up (restoring)"),
        ("ready", {"state": "recovering"}, "the core is not up (recovering)"),
        ("ready", {"phase": "starting"}, "the supervisor is starting"),
        ("core", {"core": {"api_error": "deadline"}}, "the core's API does not answer: deadline"),
        ("ready", {"bus": {"error": "refused"}}, "the bus does not answer: refused"),
        ("core", {"bus": {"error": "refused"}}, ""),
        ("ready", {"store_error": "no room"}, "the store takes no changes: no room"),
        ("ready", {"drain": {"draining": True, "away": ["a"]}}, "the node is being drained"),
        ("ready", {"drain": {"draining": False, "away": []}}, ""),
        ("live", {"drain": {"draining": True}}, ""),
        ("core", {"drain": {"draining": True}}, ""),
        ("ready", {"drain": {"away": ["a"], "error": "in use"}}, "inbounds are not back after a drain: in use"),
        ("ready", {"processes": [{"name": "gunicorn", "pid": 0}]}, "gunicorn does not run"),
    ],
)
def test_what_is_missing_is_named(kind: Kind, changes: dict[str, Any], reason: str) -> None:
    assert unwell(kind, {**WELL, **changes}) == ([reason] if reason else [])


def test_a_report_of_another_version_is_read() -> None:
    assert unwell("ready", {"phase": "ready"}) == []


def test_it_is_an_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATE_DIR", str(tmp_path / "state"))
    assert CliRunner().invoke(main, ["health", "--quiet"]).exit_code == 1
    asked = list[Path]()

    def answers(run_dir: Path, _question: str, *, seconds: float) -> dict[str, Any]:
        asked.append(run_dir)
        return {**WELL, "state": "idle"}

    monkeypatch.setattr(health, "ask", answers)
    assert (show_health("ready"), capsys.readouterr().out) == (0, "ready\n")
    assert (show_health("core", quiet=True), capsys.readouterr().out) == (1, "")
    assert show_health("core", json_wanted=True) == 1
    said = json.loads(capsys.readouterr().out)
    assert (said["asked"], said["well"], len(said["because"])) == ("core", False, 1)
    assert show_health("live", state_dir=tmp_path) == 0
    (tmp_path / "a.env").write_text(f"STATE_DIR={tmp_path}/b\n")
    assert show_health("live", env_file=tmp_path / "a.env") == 0
    assert asked == [*[tmp_path / "state" / "run"] * 3, tmp_path / "run", tmp_path / "b" / "run"]

    def hangs(_run_dir: Path, _question: str, *, seconds: float) -> dict[str, Any]:
        raise SilentError(f"it did not answer within {seconds:g} s")

    capsys.readouterr()
    monkeypatch.setattr(health, "ask", hangs)
    assert show_health("live") == 1
    assert capsys.readouterr().out == "not live: the supervisor does not answer: it did not answer within 2 s\n"


def test_it_loads_nothing_that_takes_time() -> None:
    code = (
        "import sys; import pgnode.cli.health; "
        "print(sorted({'pydantic', 'redis', 'rich', 'asyncio', 'cryptography', 'structlog'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output == "[]\n"
