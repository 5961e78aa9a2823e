"""A child ends with its parent, also when the parent is killed before the child has looked at anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pgnode.os_support import pdeath
from pgnode.os_support.collector import THRESHOLDS
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


#: Says what it is: its pid, its name, its words.
_MODULE = """
import gc, os, sys
print(os.getpid(), __name__, sys.modules["__main__"].__name__, *sys.argv[1:], gc.get_threshold()[0])
"""


def test_a_module_is_run_by_the_interpreter_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "says.py").write_text(_MODULE)
    command = pdeath.command([sys.executable, "-m", "says", "one", "two"])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        said, _ = process.communicate(timeout=30)
    assert said.split() == [str(process.pid), "__main__", "__main__", "one", "two", str(THRESHOLDS[0])]


@pytest.mark.parametrize("waits", [False, True])
async def test_a_child_ends_with_its_killed_parent(waits: bool) -> None:
    pid = _child_of_a_killed_parent(waits=waits)
    await eventually(lambda: not is_running(pid), "the child has ended")
