"""A crash leaves a note, with processes that really crash; SIGKILL leaves none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pgnode.os_support.crash_note import CrashNote

_ENDS = """
import os, sys
from pathlib import Path
from pgnode.os_support.crash_note import CrashNote
note = CrashNote(Path(sys.argv[1]))
note.begin()
if sys.argv[3]:
    note.end()
os.kill(os.getpid(), int(sys.argv[2]))
"""


class FakeHandler:
    """Writes to the descriptor when a test says so."""

    def __init__(self, *, enabled: bool = False) -> None:
        self.enabled = enabled
        self.descriptor = -1

    def is_enabled(self) -> bool:
        return self.enabled

    def enable(self, file: int, all_threads: bool) -> None:
        assert not all_threads
        self.enabled, self.descriptor = True, file

    def disable(self) -> None:
        self.enabled = False


def end_by(path: Path, number: int, *, ended: bool = False) -> None:
    command = [sys.executable, "-c", _ENDS, str(path), str(number), "ended" if ended else ""]
    done = subprocess.run(command, stderr=subprocess.DEVNULL, timeout=60, check=False)
    assert done.returncode == -number


@pytest.mark.parametrize(("number", "words"), [(11, "Segmentation fault"), (6, "Aborted"), (9, "")])
def test_only_a_crash_leaves_words(tmp_path: Path, number: int, words: str) -> None:
    note = CrashNote(tmp_path / "note")
    end_by(tmp_path / "note", number)
    found = note.take()
    assert words in found
    assert bool(found) == bool(words)
    assert not (tmp_path / "note").exists()
    assert note.take() == ""


def test_a_crash_after_its_end_is_none(tmp_path: Path) -> None:
    end_by(tmp_path / "note", 11, ended=True)
    assert CrashNote(tmp_path / "note").take() == ""


def test_it_lasts_from_begin_to_end(tmp_path: Path) -> None:
    handler, path = FakeHandler(), tmp_path / "note"
    note = CrashNote(path, handler)
    note.begin()
    assert handler.descriptor >= 0
    assert path.stat().st_mode & 0o777 == 0o600
    note.end()
    assert (handler.enabled, path.exists()) == (False, False)
    note.end()
    assert "note" in repr(note)


def test_what_somebody_else_has_set_up_stays(tmp_path: Path) -> None:
    handler = FakeHandler(enabled=True)
    note = CrashNote(tmp_path / "note", handler)
    note.begin()
    note.end()
    assert (handler.enabled, handler.descriptor, list(tmp_path.iterdir())) == (True, -1, [])


def test_a_folder_that_takes_no_files(tmp_path: Path) -> None:
    handler = FakeHandler()
    note = CrashNote(tmp_path / "missing" / "note", handler)
    note.begin()
    assert not handler.enabled
    assert note.take() == ""
