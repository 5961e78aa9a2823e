"""``pgnode workers``."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pgnode import __version__
from pgnode.bus.protocol import PROTOCOL
from pgnode.cli import main, workers
from pgnode.cli.seen import SeenWorker
from pgnode.cli.target import Named, Target
from pgnode.cli.workers import show_workers, table
from pgnode.errors import NotRunningError
from pgnode.settings import load
from pgnode.supervisor.control.live_report import LiveReport, WorkerReport
from pgnode.supervisor.control.report import ProcessReport
from tests.unit.cli.seen_node import said


def test_columns_are_as_wide_as_they_have_to_be() -> None:
    rows = [SeenWorker("rest", 51, 273_600, 56_400_000, 0.14, 24), SeenWorker("grpc", 123_456, 5, 1_000, 12.0, None)]
    assert table(rows) == [
        "kind  pid     up       memory   CPU     files",
        "rest  51      3 d 4 h  56.4 MB  0.1 s   24",
        "grpc  123456  5 s      1.0 kB   12.0 s  ?",
    ]


def test_those_of_other_hosts_are_told_apart() -> None:
    here = [SeenWorker("rest", 51, 60, 56_400_000, 0.14, 24)]
    east = WorkerReport("rest", 7, "east", memory_bytes=1_000_000, version=__version__, up_seconds=5, alone=True)
    west = replace(east, kind="grpc", host="west", version="0.1")
    other = replace(west, protocol=PROTOCOL + 1)
    head, *lines = table(here, [east, west, other])
    assert head.split() == ["kind", "pid", "up", "memory", "CPU", "files", "host", "version"]
    assert lines[0].endswith(f"here  {__version__}")
    assert lines[1].endswith(f"east  {__version__}")
    assert lines[2].endswith(f"west  0.1 (this node: {__version__})")
    assert lines[3].endswith(
        f"west  0.1: serves nobody, it speaks protocol {PROTOCOL + 1} of the bus and this node {PROTOCOL}"
    )


def test_they_are_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    target = Target(load(state_dir=str(tmp_path)), 812)
    monkeypatch.setattr(workers, "find_target", lambda _named: target)
    monkeypatch.setattr(
        workers,
        "find_facts",
        lambda _target: said(processes=[ProcessReport("gunicorn", 5, 2), ProcessReport("valkey", 6)]),
    )
    assert show_workers(Named()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["kind", "rest", "rest", "grpc", "started"]
    assert lines[-1] == "started again since the supervisor began: gunicorn 2 times"
    assert show_workers(Named(), json_wanted=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert (len(found["workers"]), found["alone"], found["restarts"]) == (3, [], {"gunicorn": 2, "valkey": 0})
    live = LiveReport(workers=[WorkerReport("rest", 7, "east", alone=True), WorkerReport("rest", 8, "here")])
    monkeypatch.setattr(workers, "ask_node", lambda _target, _question: {"live": live.encode()})
    assert show_workers(Named(), json_wanted=True) == 0
    assert [each["host"] for each in json.loads(capsys.readouterr().out)["alone"]] == ["east"]


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the supervisor was told; 5 does not end."""
    told: list[dict[str, Any]] = []

    def ask(_target: Target, _question: str, values: dict[str, Any], *, seconds: float) -> dict[str, Any]:
        assert seconds > 60
        told.append(values)
        added = {"rest": 1, "grpc": 0} if values["do"] == "add" else {"rest": 0, "grpc": 0}
        left = [5] if values.get("pid") == 5 else []
        return {
            "before": {"rest": [1], "grpc": [9]},
            "now": {"rest": [1, 2], "grpc": [9]},
            "left": left,
            "added": added,
        }

    monkeypatch.setattr(workers, "find_target", lambda _named: Target(load(state_dir=str(tmp_path)), 812, "this one"))
    monkeypatch.setattr(workers, "is_stopped", lambda _pid: False)
    monkeypatch.setattr(workers, "ask_node", ask)
    return told


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["workers", *arguments])


def test_they_are_changed(asked: list[dict[str, Any]]) -> None:
    assert run("add").output.splitlines() == [
        "this one",
        "rest: 2 workers (pid 1, 2); before: 1 (pid 1)",
        "until the next restart or reload, which take the number in the settings: WEB_CONCURRENCY=2 keeps it",
    ]
    assert run("remove", "2", "--grpc").output.splitlines()[1:] == ["grpc: 1 worker (pid 9); before: 1 (pid 9)"]
    assert [line.split(":")[0] for line in run("restart").output.splitlines()[1:]] == ["rest", "grpc"]
    result = run("restart", "5")
    assert (result.exit_code, "not ended yet, and goes on: pid 5" in result.output) == (4, True)
    assert json.loads(run("restart", "1", "--json").output)["left"] == []
    assert asked == [
        {"do": "add", "kind": "rest", "count": 1},
        {"do": "remove", "kind": "grpc", "count": 2},
        {"do": "restart", "pid": None},
        {"do": "restart", "pid": 5},
        {"do": "restart", "pid": 1},
    ]
    assert (run("add", "0").exit_code, run("restart", "x").exit_code) == (2, 2)


def test_a_supervisor_that_was_stopped_is_told_nothing(
    asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "is_stopped", lambda _pid: True)
    result = run("add")
    assert (result.exit_code, "kill -CONT it" in result.output, asked) == (4, True, [])


def test_a_node_that_is_down_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotRunningError, match="it has no workers"):
        show_workers(Named(state_dir=tmp_path))
