"""What an operator does by a command is in the node's audit trail, with who it was."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pgnode.cli.operator_audit import note
from pgnode.settings import load


def test_a_line_says_who_and_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SUDO_UID", raising=False)
    settings = load(state_dir=str(tmp_path))
    note(settings, "key", "API key replaced", {"overlap": "24h"})
    said = json.loads(settings.audit_file.read_text())
    assert (said["process"], said["pid"], said["message"]) == ("pgnode", os.getpid(), "API key replaced")
    assert said["fields"] == {"audit": "key", "uid": os.getuid(), "overlap": "24h"}


def test_what_cannot_be_noted_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = load(state_dir=str(tmp_path))
    settings.audit_file.mkdir()
    note(settings, "key", "API key replaced")
    assert capsys.readouterr().err == f"this is not in {settings.audit_file}: Is a directory\n"
