"""Which core a node runs by its settings."""

from __future__ import annotations

from pathlib import Path

from pgnode.settings import load
from pgnode.supervisor.core.default_core import default_core
from pgnode.xray.process.embedded import EmbeddedCore
from pgnode.xray.process.executable import ExecutableCore


def test_the_default_core(tmp_path: Path) -> None:
    settings = load(state_dir=str(tmp_path))
    assert isinstance(default_core(settings), EmbeddedCore)
    executable = tmp_path / "xray"
    executable.write_text("#!/bin/sh\n")
    executable.chmod(0o700)
    assert isinstance(default_core(load(state_dir=str(tmp_path), xray_executable_path=str(executable))), ExecutableCore)
