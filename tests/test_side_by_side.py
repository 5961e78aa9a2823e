"""Tests that run in forks: whatever becomes of one is told, and the others run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.generated_docs import ROOT

MODULES = {
    "one": "def test_well(tmp_path): ...\ndef test_wrong():\n    print('it said so')\n    assert 1 == 2\n",
    "two": "import os\ndef test_gone(): os._exit(9)\ndef test_after(): ...\n",
    "three": (
        "import pytest\n"
        "def test_well(tmp_path): assert tmp_path.parent.name in ('fork0', 'fork1')\n"
        "def test_skipped(): pytest.skip('no')\n"
    ),
}


def run(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    for name, text in MODULES.items():
        (folder / f"test_{name}.py").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(folder), "-p", "no:cacheprovider"]
    plugin = ["-p", "tests.support.side_by_side", "--forks", "2"]
    return subprocess.run(
        [*command, *plugin, *options, str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_every_module_is_run_and_every_failure_told(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 1, done.stderr
    assert "2 failed, 2 passed, 1 skipped" in done.stdout
    assert "assert 1 == 2" in done.stdout
    assert done.stdout.count("\nit said so\n") == 1
    assert "the process that ran it ended with 9; what came after it in its module was not run" in done.stdout
    assert "test_two.py::test_gone" in done.stdout


def test_nothing_more_is_handed_out_after_the_first_failure(tmp_path: Path) -> None:
    done = run(tmp_path, "-k", "wrong or gone", "-x")
    assert done.returncode == 1, done.stderr
    assert "stopping after" in done.stdout
