"""A core's folder, and an executable that behaves like Xray without being it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgnode.xray.process.executable import ExecutableCore
from pgnode.xray.process.running import RunningCore
from tests.support.polling import eventually

#: Accepts every config but those that hold the word "bad", and serves until it is told to end.
_SCRIPT = """#!/bin/sh
case "$*" in
version) echo "Xray 26.10.10 (made up)" ;;
"run -test -c stdin:")
    if grep -q bad; then
        echo "Failed to start: main: failed to load config files: [stdin:] > infra/conf: something bad"
        exit 23
    fi
    echo "Configuration OK." ;;
*)
    cat > /dev/null
    echo "Xray 26.10.10 started"
    exec sleep 60 ;;
esac
"""


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A private folder with a path short enough for unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix="pgn"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


async def serving(running: RunningCore) -> RunningCore:
    """Wait until the made-up core has read its config and serves."""
    await eventually(lambda: Path(f"/proc/{running.pid}/comm").read_text() == "sleep\n", "it serves")
    return running


@pytest.fixture
def executable(tmp_path: Path) -> ExecutableCore:
    """A core of the second kind, which starts within milliseconds."""
    path = tmp_path / "xray"
    path.write_text(_SCRIPT)
    path.chmod(0o700)
    return ExecutableCore(path)
