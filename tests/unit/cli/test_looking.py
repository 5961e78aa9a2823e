"""Looks at a node, again and again."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pgnode.cli import looking
from pgnode.cli.looking import Looker, look_at
from pgnode.cli.seen import Facts, SeenCore
from pgnode.cli.target import Target
from pgnode.settings import load
from pgnode.supervisor.control.client import SilentError
from pgnode.supervisor.control.live_report import LiveReport
from tests.unit.cli.seen_node import FACTS, REPORT


class Stage:
    """A node; what is asked and found is noted."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pid: int | None = 812
        self.now = 0.0
        self.found: list[int | None] = []
        self.answers: list[dict[str, Any] | Exception] = []
        self.core = os.getpid()
        monkeypatch.setattr(looking, "running_pid", lambda _settings: self.pid)
        monkeypatch.setattr(looking, "ask", self._ask)
        target = Target(load(state_dir=str(tmp_path)), 812)
        self.looker = Looker(target, facts_seconds=30.0, monotonic=lambda: self.now, find=self._find)

    def _ask(self, _folder: Path, _question: str, *, seconds: float) -> dict[str, Any]:
        assert seconds > 0
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _find(self, target: Target) -> Facts:
        self.found.append(target.pid)
        core = SeenCore(self.core, "embedded", 1.0) if self.core else None
        return replace(FACTS, report=None, silence="it hangs", hangs=True, core=core)

    def says(self) -> dict[str, Any]:
        core = replace(REPORT.core, pid=self.core)
        return {"status": replace(REPORT, core=core).encode(), "live": LiveReport(reading=3).encode()}


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, monkeypatch)


def test_what_changes_rarely_is_found_now_and_then(stage: Stage) -> None:
    stage.answers = [stage.says() for _ in range(3)]
    first = stage.looker.look()
    assert (first.live, first.facts.pid) == (LiveReport(reading=3), 812)
    assert first.core is not None
    assert first.core.open_files
    assert first.facts.report == replace(REPORT, core=replace(REPORT.core, pid=os.getpid()))
    stage.now = 29.0
    stage.looker.look()
    assert stage.found == [812]
    stage.now = 30.0
    assert stage.looker.look().at == 30.0
    assert stage.found == [812, 812]


def test_one_that_hangs_or_is_down_is_told_of(stage: Stage) -> None:
    stage.answers = [stage.says(), SilentError("it hangs"), {"status": None}]
    stage.looker.look()
    hung = stage.looker.look()
    assert (hung.live, hung.facts.report, hung.facts.silence, hung.core is not None) == (None, None, "it hangs", True)
    odd = stage.looker.look()
    assert odd.live == LiveReport()
    stage.pid, stage.core = None, 0
    down = stage.looker.look()
    assert (down.live, down.facts.pid, down.core) == (None, 0, None)
    assert stage.found[-1] is None
    assert repr(stage.looker).startswith("Looker(/")


def test_a_process_that_has_ended() -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as process:
        process.wait()
    assert look_at(process.pid) is None


def test_files_that_the_system_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_path: Path) -> None:
        raise PermissionError

    monkeypatch.setattr(Path, "stat", denied)
    found = look_at(os.getpid())
    assert found is not None
    assert found.open_files is None
