"""What the project promises about itself: the layout, and words that have no place in it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.generated_docs import ROOT

FOLDERS = [
    "pgnode/supervisor",
    "pgnode/api",
    "pgnode/worker",
    "pgnode/bus",
    "pgnode/xray",
    "pgnode/wire",
    "deploy",
    "bench",
]


#: Lines of the longest module.
MODULE_MAX_LINES = 420


def tracked() -> list[Path]:
    """Files that belong to the project; everything where it is no checkout."""
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    names = listing.stdout.splitlines() if listing.returncode == 0 else []
    return [ROOT / name for name in names if (ROOT / name).is_file()]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_folders_are_there(folder: str) -> None:
    assert any((ROOT / folder).iterdir())


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in tracked()
        if path.suffix == ".py"
        and "_pb2" not in path.name
        and path.stat().st_size
        and not path.read_text(encoding="utf-8")
        .strip()
        .removeprefix("#!/usr/bin/env python3")
        .lstrip()
        .startswith('"""')
    ]
    assert silent == []


def test_no_module_is_too_long_to_be_read_at_once() -> None:
    """Cut it where its parts know least of each other; some 400 lines are enough."""
    long = [
        str(path.relative_to(ROOT))
        for path in tracked()
        if path.suffix == ".py"
        and ROOT / "pgnode" in path.parents
        and "_pb2" not in path.name
        and len(path.read_text(encoding="utf-8").splitlines()) > MODULE_MAX_LINES
    ]
    assert long == []


def test_locks_name_no_registry_and_have_hashes() -> None:
    for name in ("requirements.lock", "requirements-fast.lock", "requirements-dev.lock", "requirements-panel.lock"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "://" not in text
        pins = re.findall(r"^[A-Za-z0-9_.-]+==", text, re.MULTILINE)
        assert len(pins) > 10 or name == "requirements-fast.lock"
        assert text.count("--hash=sha256:") >= len(pins)
