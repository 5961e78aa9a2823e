"""``python -m pgnode``."""

from __future__ import annotations

import runpy
import sys

import pytest

from pgnode import __version__
from pgnode.os_support import lean_start
from pgnode.supervisor import beginning


def test_it_is_the_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["pgnode", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("pgnode", run_name="__main__")
    assert ended.value.code == 0
    assert __version__ in capsys.readouterr().out


def test_where_everything_is_checked_it_is_the_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lean_start, "begin", lambda: None)
    monkeypatch.setattr(beginning, "main", lambda: 7)
    monkeypatch.setenv(lean_start.CHECKED_VARIABLE, "0")
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("pgnode", run_name="__main__")
    assert ended.value.code == 7
