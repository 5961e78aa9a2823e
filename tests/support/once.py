"""What one process of a run of tests does for all of them: the first node, and each operator's command the first time."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

#: Said to the workers: the folder in which each thing that was done has a file.
FOLDER = "PGNODE_TESTS_ONCE"


def begin() -> None:
    """Make the folder, unless this process was told of it; it goes with the process that made it."""
    if FOLDER in os.environ:
        return
    made, pid = os.environ.setdefault(FOLDER, tempfile.mkdtemp(prefix="once")), os.getpid()

    def remove() -> None:
        # Not in a process that was forked.
        if os.getpid() == pid:
            shutil.rmtree(made, ignore_errors=True)

    atexit.register(remove)


def is_first(name: str) -> bool:
    """Whether nobody has asked this before, in any process of this run."""
    try:
        Path(os.environ[FOLDER], name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
