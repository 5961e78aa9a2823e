"""Where compiled files are missing, or are of another source, the folder is named; nothing is imported for that."""

from __future__ import annotations

import importlib
import os
import py_compile
import sys
from pathlib import Path

import pytest

from pgnode.os_support.compiled_files import uncompiled_folders


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that Python finds, and that would fail if it were imported."""
    source = tmp_path / "pgnode_sample" / "__init__.py"
    source.parent.mkdir()
    source.write_text("raise RuntimeError\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    return source


def test_a_package_without_a_compiled_file(source: Path, tmp_path: Path) -> None:
    assert uncompiled_folders(["pgnode_sample"]) == [tmp_path]
    py_compile.compile(str(source))
    assert uncompiled_folders(["pgnode_sample"]) == []
    assert "pgnode_sample" not in sys.modules


def test_a_compiled_file_of_another_source(source: Path, tmp_path: Path) -> None:
    py_compile.compile(str(source))
    os.utime(source, (1, 1))
    assert uncompiled_folders(["pgnode_sample"]) == [tmp_path]


def test_a_compiled_file_that_goes_by_a_digest(source: Path) -> None:
    py_compile.compile(str(source), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
    os.utime(source, (1, 1))
    assert uncompiled_folders(["pgnode_sample"]) == []


def test_a_compiled_file_that_was_cut_off(source: Path, tmp_path: Path) -> None:
    compiled = py_compile.compile(str(source))
    assert compiled is not None
    Path(compiled).write_bytes(b"short")
    assert uncompiled_folders(["pgnode_sample", "pgnode_sample"]) == [tmp_path], "once"


def test_what_is_no_package_of_python_is_left_out() -> None:
    assert uncompiled_folders(["time", "pgnode_there_is_no_such"]) == []
