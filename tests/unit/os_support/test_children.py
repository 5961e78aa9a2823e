"""Children of a process."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from pgnode.os_support.children import ZOMBIE, children


def test_children_and_their_states() -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as child:
        assert children(os.getpid())[child.pid] != ZOMBIE
        assert children(child.pid) == {}
        child.kill()
        # Without reaping it.
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert children(os.getpid())[child.pid] == ZOMBIE
    assert child.pid not in children(os.getpid())


def test_what_cannot_be_read_is_nobodys_child(tmp_path: Path) -> None:
    for name, stat in {
        "7": "7 (a) b) S 4 0",
        "8": "8 (x) R 5",
        "9": "",
        "10": "10 (x) Z 4 1",
        "self": "7 (x) S 4",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "stat").write_text(stat)
    (tmp_path / "11").mkdir()
    assert children(4, tmp_path) == {7: "S", 10: "Z"}
    assert children(4, tmp_path / "missing") == {}
