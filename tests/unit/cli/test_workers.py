"""``pgnode workers``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pgnode.cli import workers
from pgnode.cli.seen import SeenWorker
from pgnode.cli.target import Named, Target
from pgnode.cli.workers import show_workers, table
from pgnode.errors import NotRunningError
from pgnode.settings import load
from pgnode.supervisor.control.report import ProcessReport
from tests.unit.cli.test_status_view import said


def test_columns_are_as_wide_as_they_have_to_be() -> None:
    rows = [SeenWorker("rest", 51, 273_600, 56_400_000, 0.14, 24), SeenWorker("grpc", 123_456, 5, 1_000, 12.0, None)]
    assert table(rows) == [
        "kind  pid     up       memory   CPU     files",
        "rest  51      3 d 4 h  56.4 MB  0.1 s   24",
        "grpc  123456  5 s      1.0 kB   12.0 s  ?",
    ]


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
    assert (len(found["workers"]), found["restarts"]) == (3, {"gunicorn": 2, "valkey": 0})


def test_a_node_that_is_down_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NotRunningError, match="it has no workers"):
        show_workers(Named(state_dir=tmp_path))
