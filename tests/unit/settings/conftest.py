"""No test here sees the settings of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgnode.settings import Settings


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No setting from this machine's environment, and no .env file."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STATE_DIR", "/tmp/pgn-settings")
