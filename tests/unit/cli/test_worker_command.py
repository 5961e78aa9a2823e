"""``pgnode worker`` and what is below it, as they are declared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from pgnode.cli import alone, main


def test_help_names_what_each_does() -> None:
    both = CliRunner().invoke(main, ["worker"]).output
    assert "\n  rest " in both
    assert "\n  grpc " in both
    text = " ".join(CliRunner().invoke(main, ["worker", "rest", "--help"]).output.split())
    assert "SIGHUP takes settings and GUNICORN_CONF anew" in text
    assert "--check" in text


def test_what_was_said_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def run_worker(*arguments: Any, **options: Any) -> int:
        seen.append((arguments, options))
        return 3

    monkeypatch.setattr(alone, "run_worker", run_worker)
    assert CliRunner().invoke(main, ["worker", "rest", "--env-file", "a.env", "--check", "--json"]).exit_code == 3
    assert seen == [(("rest", Path("a.env"), None), {"check": True, "json_wanted": True})]
