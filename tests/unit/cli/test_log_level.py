"""``pgnode log-level``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pgnode.cli import log_level, main
from pgnode.cli.log_level import sentence
from pgnode.cli.target import Target
from pgnode.settings import load


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the supervisor was told."""
    told: list[dict[str, Any]] = []

    def ask(_target: Target, _question: str, values: dict[str, Any], *, seconds: float) -> dict[str, Any]:
        told.append(values)
        return {"level": values.get("level", "info"), "usual": "info", "until": None}

    monkeypatch.setattr(log_level, "find_target", lambda _named: Target(load(state_dir=str(tmp_path)), 812, "this one"))
    monkeypatch.setattr(log_level, "ask_node", ask)
    return told


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["log-level", *arguments])


def test_it_is_shown_and_changed(asked: list[dict[str, Any]]) -> None:
    assert run().output == "this one\ninfo, as the settings say\n"
    changed = run("DEBUG", "--for", "10m", "--json")
    assert json.loads(changed.output) == {"level": "debug", "usual": "info", "until": None}
    assert asked == [{}, {"level": "debug", "seconds": 600}]


def test_what_is_not_allowed_is_told(asked: list[dict[str, Any]]) -> None:
    assert run("loud").exit_code == 2
    result = run("debug", "--for", "soon")
    assert (result.exit_code, "--for soon is not allowed" in result.output) == (2, True)
    result = run("--for", "10m")
    assert (result.exit_code, "--for 10m is for another level: name it" in result.output) == (2, True)
    assert asked == []


def test_words() -> None:
    assert sentence({"level": "info", "usual": "info"}) == "info, as the settings say"
    assert sentence({"level": "debug", "usual": "info", "until": 0}).startswith("debug until 19")
    assert sentence({"level": "debug", "usual": "info", "until": None}) == (
        "debug until the supervisor starts anew, then info again"
    )
