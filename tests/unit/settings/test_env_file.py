"""The ``.env`` file: what stands in it, and one that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgnode.errors import SettingsError
from pgnode.settings.env_file import names_in_env_file


@pytest.mark.parametrize(
    ("text", "names"),
    [("", set()), ("A=1\nexport b = 2\n# C=3\n\nD\n", {"A", "B", "D"}), ("=\n'\n%%%\n", set())],
)
def test_names(tmp_path: Path, text: str, names: set[str]) -> None:
    (tmp_path / ".env").write_text(text)
    assert names <= names_in_env_file(tmp_path)
    assert "C" not in names_in_env_file(tmp_path)


def test_no_file(tmp_path: Path) -> None:
    assert names_in_env_file(tmp_path) == frozenset()
    (tmp_path / ".env").mkdir()
    assert names_in_env_file(tmp_path) == frozenset()


def test_another_encoding_is_told_by_its_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes("A=1\nB=größe\n".encode("latin-1"))
    with pytest.raises(SettingsError, match=r"/\.env is not UTF-8 \(line 2 or later\): save it as UTF-8"):
        names_in_env_file(tmp_path)


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("A=1\n")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pgnode.settings.env_file.dotenv_values", refuse)
    with pytest.raises(SettingsError, match=r"/\.env cannot be read: Permission denied; let this user read it"):
        names_in_env_file(tmp_path)
