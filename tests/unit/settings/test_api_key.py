"""The API key: of the settings, or of its file."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from pgnode.errors import SettingsError
from pgnode.settings import load, read_api_key


def test_the_key_is_the_setting_or_in_its_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    key = "5783a3e7-e373-51cd-8642-c83782b807c5"
    file = tmp_path / "key"
    monkeypatch.setenv("API_KEY_FILE", str(file))
    with pytest.raises(SettingsError, match=r"no API key in .*/key: No such file or directory$"):
        read_api_key(load())
    file.mkdir()
    with pytest.raises(SettingsError, match=r"no API key in .*/key: Is a directory$"):
        read_api_key(load())
    file.rmdir()
    file.write_text(f"{key.upper()}\n")
    assert read_api_key(load()) == key
    monkeypatch.setenv("API_KEY", str(uuid.UUID(int=1)))
    assert read_api_key(load()) == str(uuid.UUID(int=1))
