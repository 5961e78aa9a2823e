"""A child ends with its parent, also when the parent is killed before the child has looked at anything."""

from __future__ import annotations

import subprocess
import sys

import pytest

from pgnode.testing.processes import is_running
from tests.support.polling import eventually

#: Starts a child, says its pid, waits until the child runs where it is told to, and is killed.
_PARENT = """
import os, signal, subprocess, sys
from pgnode.os_support import pdeath
program = "import signal; print('runs', flush=True); signal.pause()"
child = subprocess.Popen(pdeath.command([sys.executable, "-c", program]), stdout=subprocess.PIPE)
print(child.pid, flush=True)
if {waits}:
    child.stdout.readline()
os.kill(os.getpid(), signal.SIGKILL)
"""


def _child_of_a_killed_parent(*, waits: bool) -> int:
    command = [sys.executable, "-c", _PARENT.format(waits=waits)]
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=30, check=False)
    assert found.returncode == -9
    return int(found.stdout)


@pytest.mark.parametrize("waits", [False, True])
async def test_a_child_ends_with_its_killed_parent(waits: bool) -> None:
    pid = _child_of_a_killed_parent(waits=waits)
    await eventually(lambda: not is_running(pid), "the child has ended")
