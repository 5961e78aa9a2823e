"""The ``.env`` file: what stands in it, and one that cannot be read."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pgnode.errors import SettingsError
from pgnode.settings.env_file import (
    ENV_FILE_BYTES,
    faulty_lines,
    names_in_env_file,
    usable_env_file,
    values_in_env_file,
)


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


def test_what_was_named_and_is_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"/nothing cannot be read: there is no such file"):
        values_in_env_file(tmp_path / "nothing")
    with pytest.raises(SettingsError, match=r" is a folder, and has to be a file of lines such as SERVICE_PORT=62050"):
        values_in_env_file(tmp_path)
    with pytest.raises(SettingsError, match=r"/dev/null is a device, and has to be a file"):
        values_in_env_file(Path(os.devnull))


def test_lines_that_set_nothing(file: Path) -> None:
    assert faulty_lines(file) == []
    file.write_text(
        "# a remark\n; one of systemd's\n\nSERVICE_PORT 1\nA=1\nexport api_port: 2\n=x\nB='it''s'\n"
        'NODE_HOST="::\nGRPC_PORT=3\nC="c\nREDIS_URL\n\n  =y\n'
    )
    assert [(line.number, line.name) for line in faulty_lines(file)] == [
        (4, "SERVICE_PORT"),
        (6, "API_PORT"),
        (7, ""),
        (8, "B"),
        # Up to the next quote.
        (9, "NODE_HOST"),
        (14, ""),
    ]


def test_nothing_is_printed_of_them(file: Path) -> None:
    # Pytest's own handlers would take it.
    file.write_text("SERVICE_PORT 1\n")
    found = subprocess.run(
        [sys.executable, "-c", "import pgnode.settings as s; s.names_in_env_file()"],
        cwd=file.parent,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert (found.stdout, found.stderr) == (b"", b"")
