"""Processes are found with what they started, and zombies count as gone."""

from __future__ import annotations

import os
import subprocess
import sys

from pgnode.testing.processes import command_line, is_running, running, summary, tree

WAITS = "import sys; sys.stdin.read()"


def test_a_process_and_what_it_started() -> None:
    with subprocess.Popen([sys.executable, "-c", WAITS, "gunicorn"], stdin=subprocess.PIPE) as child:
        found = tree(os.getpid())
        assert found[0].pid == os.getpid()
        mine = [process for process in found if process.pid == child.pid]
        assert "gunicorn" in command_line(mine[0])
        assert running(mine) == mine
        assert summary([found[0], *mine]) == "1 gunicorn, 1 supervisor"
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not is_running(child.pid), "a zombie"
        child.wait()
        assert running(mine) == []
        assert tree(child.pid) == []
        assert not is_running(child.pid)
        assert summary(mine) == ""
        assert command_line(mine[0]) == ""
