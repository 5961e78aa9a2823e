"""``python -m pgnode``."""

from __future__ import annotations

import runpy
import sys

import pytest

from pgnode import __version__


def test_it_is_the_command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["pgnode", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("pgnode", run_name="__main__")
    assert ended.value.code == 0
    assert __version__ in capsys.readouterr().out
