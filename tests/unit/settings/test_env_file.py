"""The ``.env`` file: what stands in it, and one that cannot be read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pgnode.errors import SettingsError
from pgnode.settings.env_file import ENV_FILE_BYTES, names_in_env_file, usable_env_file


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / ".env"


@pytest.mark.parametrize(
    ("text", "names"),
    [("", set()), ("A=1\nexport b = 2\n# C=3\n\nD\n", {"A", "B", "D"}), ("=\n'\n%%%\n", set())],
)
def test_names(file: Path, text: str, names: set[str]) -> None:
    file.write_text(text)
    assert names <= names_in_env_file(file)
    assert "C" not in names_in_env_file(file)
    assert usable_env_file(file) == file


@pytest.mark.parametrize("make", [lambda _: None, Path.mkdir, lambda file: file.symlink_to(file)])
def test_no_file(file: Path, make: Callable[[Path], object]) -> None:
    make(file)
    assert names_in_env_file(file) == frozenset()
    assert usable_env_file(file) is None


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda file: file.write_bytes("A=1\nB=größe\n".encode("latin-1")), r"is not UTF-8 \(line 2\): save it"),
        (lambda file: file.write_bytes(b"A=\0\n"), "holds a NUL"),
        (lambda file: file.write_bytes(b"#" * (ENV_FILE_BYTES + 1)), "cannot be read: has more than"),
        (os.mkfifo, "cannot be read: is no regular file"),
    ],
)
def test_a_file_that_cannot_be_used(file: Path, make: Callable[[Path], object], said: str) -> None:
    make(file)
    for read in (names_in_env_file, usable_env_file):
        with pytest.raises(SettingsError, match=rf"/\.env {said}"):
            read(file)
