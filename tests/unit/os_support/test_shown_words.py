"""What the system shows of a process that says what it is."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from pgnode.os_support import shown_words

#: Says what it is, and that it lives on: it takes memory, gives it back, and starts another process.
_SHOWS = r"""
import gc, os, subprocess, sys
from pathlib import Path
from pgnode.os_support.shown_words import show

words, variables = ["a", "", "b c", "\udcff"], {"X": "1", "Y": "y" * 200_000}
for _ in range(2):
    show(words, variables)
    assert Path("/proc/self/cmdline").read_bytes() == b"a\0\0b c\0\xff\0"
    assert Path("/proc/self/environ").read_bytes() == b"X=1\0Y=" + b"y" * 200_000 + b"\0"
    pieces = [bytes(1000) for _ in range(50_000)]
    del pieces
    gc.collect()
    assert subprocess.run([sys.executable, "-S", "-c", "print(1)"], capture_output=True, check=True).stdout == b"1\n"
pid = os.fork()
if pid == 0:
    os._exit(Path("/proc/self/cmdline").read_bytes() != b"a\0\0b c\0\xff\0")
assert os.waitpid(pid, 0)[1] == 0
print("well")
"""


def test_words_and_environment_are_those_that_were_said() -> None:
    ended = subprocess.run([sys.executable, "-c", _SHOWS], capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout == "well\n", ended.stderr


def test_a_system_that_does_not_know_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # No process has its environment there, so the kernel refuses it.
    monkeypatch.setattr(ctypes, "addressof", lambda _: 1)
    with pytest.raises(OSError, match="PR_SET_MM_MAP"):
        shown_words.show(["a"], {})
