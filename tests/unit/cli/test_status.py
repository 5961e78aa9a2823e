"""``pgnode status`` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from pgnode.cli import main


def test_a_folder_without_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    found = CliRunner().invoke(main, ["status", "--state-dir", str(tmp_path)])
    assert (found.exit_code, found.output.split(" · ")[1]) == (3, "down")
    assert "\x1b" not in found.output, "no terminal, no colours"
    found = CliRunner().invoke(main, ["status", "--json", "--state-dir", str(tmp_path)])
    assert (found.exit_code, json.loads(found.output)["status"]) == (3, "down")


def test_a_node_that_nobody_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = CliRunner().invoke(main, ["status", "--env-file", str(tmp_path / "nowhere")])
    assert (found.exit_code, found.output) == (
        2,
        f"pgnode: {tmp_path}/nowhere cannot be read: there is no such file, or this user may not look into its folder\n",
    )
