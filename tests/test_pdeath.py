"""A child ends with its parent, also when the parent is killed before the child has looked at anything."""

from __future__ import annotations

import subprocess
import sys

from tests.support.polling import eventually
from tests.support.processes import is_running

#: Starts a child, says its pid, and is killed after this many seconds.
_PARENT = """
import os, signal, subprocess, sys, time
from pgnode import pdeath
child = subprocess.Popen(pdeath.command([sys.executable, "-c", "import time; time.sleep(60)"]), stdout=subprocess.DEVNULL)
print(child.pid, flush=True)
time.sleep({seconds})
os.kill(os.getpid(), signal.SIGKILL)
"""


def _child_of_a_killed_parent(seconds: float) -> int:
    found = subprocess.run(
        [sys.executable, "-c", _PARENT.format(seconds=seconds)], capture_output=True, text=True, timeout=30, check=False
    )
    assert found.returncode == -9, found.stderr
    return int(found.stdout)


async def test_a_child_ends_with_a_parent_that_is_killed_right_after_the_start() -> None:
    pid = _child_of_a_killed_parent(0.0)
    await eventually(lambda: not is_running(pid), "the child has ended")


async def test_a_child_ends_with_a_parent_that_is_killed_later() -> None:
    pid = _child_of_a_killed_parent(0.5)
    await eventually(lambda: not is_running(pid), "the child has ended")
