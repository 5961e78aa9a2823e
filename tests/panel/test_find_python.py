"""Which Python is taken for the panel's client. Each Python here is a script that fits or does not."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

FIND = Path(__file__).with_name("find_python.sh")
SHIM = ".pyenv/shims"


def made(folder: Path, name: str, exit_code: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\nexit {exit_code}\n")
    path.chmod(0o755)
    return path


def found(home: Path, *path: Path, **env: str) -> str:
    result = subprocess.run(
        ["/bin/sh", FIND],
        env={"HOME": str(home), "PATH": ":".join(map(str, path)), **env},
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    return result.stdout.strip()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose PATH has a shim of pyenv that runs nothing, and a Python too old."""
    made(tmp_path / SHIM, "python3.13", 127)
    made(tmp_path / "bin", "python3", 1)
    return tmp_path


def test_nothing_where_nothing_fits(home: Path) -> None:
    assert found(home, home / SHIM, home / "bin") == ""


def test_a_version_of_pyenv_behind_a_shim_that_runs_nothing(home: Path) -> None:
    made(home / ".pyenv/versions/3.11.7/bin", "python3", 1)
    python = made(home / ".pyenv/versions/3.12.1/bin", "python3", 0)
    assert found(home, home / SHIM, home / "bin") == str(python)
    python = made(home / ".pyenv/versions/3.13.0/bin", "python3", 0)
    assert found(home, home / SHIM, home / "bin") == str(python)


def test_pyenv_elsewhere(home: Path, tmp_path: Path) -> None:
    python = made(tmp_path / "elsewhere/versions/3.14.0/bin", "python3", 0)
    assert found(home, home / "bin", PYENV_ROOT=str(tmp_path / "elsewhere")) == str(python)
    pyenv = made(home / "bin", "pyenv", 0)
    pyenv.write_text(f"#!/bin/sh\necho {tmp_path / 'elsewhere'}\n")
    assert found(home, home / "bin") == str(python)


def test_what_is_on_path_comes_first_also_behind_a_shim(home: Path, tmp_path: Path) -> None:
    made(home / ".pyenv/versions/3.13.0/bin", "python3", 0)
    python = made(tmp_path / "usr", "python3.13", 0)
    assert found(home, home / SHIM, tmp_path / "usr") == str(python)
