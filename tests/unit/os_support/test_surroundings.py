"""What the node cannot do without is told in a sentence."""

from __future__ import annotations

import os
import resource
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from pgnode.os_support.surroundings import end_with_the_program, find_temporary_folder, reset_signals, what_is_missing


def test_nothing_is_missing_here() -> None:
    assert what_is_missing() is None


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    assert f"mount -t proc proc {tmp_path}" in (what_is_missing(proc=tmp_path) or "")
    assert "mknod -m 666" in (what_is_missing(null=tmp_path / "null") or "")
    assert "mknod -m 666" in (what_is_missing(random=tmp_path / "urandom") or "")
    # An address of another machine, to which there is no way, or none that is allowed.
    assert "ip link set lo up" in (what_is_missing(loopback="255.255.255.255") or "")


def test_limits_that_are_too_low(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {resource.RLIMIT_NOFILE: (20, 20), resource.RLIMIT_FSIZE: (-1, -1)}
    monkeypatch.setattr(resource, "getrlimit", limits.__getitem__)
    assert "only 20 files" in (what_is_missing() or "")
    limits = {resource.RLIMIT_NOFILE: (-1, -1), resource.RLIMIT_FSIZE: (5, 5)}
    monkeypatch.setattr(resource, "getrlimit", limits.__getitem__)
    assert "files may have 5 bytes" in (what_is_missing() or "")


def test_another_folder_for_temporary_files_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"TMPDIR": "/nonexistent"}
    assert find_temporary_folder(environment, [tmp_path]) is None
    assert environment == {"TMPDIR": "/nonexistent"}, "one of the usual ones can be used"

    def none() -> str:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "gettempdir", none)
    assert "name one in TMPDIR" in (find_temporary_folder(environment, [tmp_path / "none"]) or "")
    assert find_temporary_folder(environment, [tmp_path / "none", tmp_path]) is None
    assert environment == {"TMPDIR": str(tmp_path)}


def test_signals_that_were_blocked_come_through() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
    handler = signal.getsignal(signal.SIGCHLD)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        reset_signals()
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
        assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(signal.SIGCHLD, handler)


def test_a_working_folder_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    with monkeypatch.context() as patched:
        patched.setattr(os, "access", lambda path, mode: (path, mode) != (folder, os.X_OK))
        said = what_is_missing() or ""
    assert said.startswith(f"this user (uid {os.geteuid()}) may not enter the folder")
    assert said.endswith(f"({folder}): start it in another one (cd /)")
    folder.rmdir()
    assert (what_is_missing() or "").startswith("the folder in which this command was started is not there any more")


def test_python_ends_with_its_program(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[tuple[object, ...]] = []
    monkeypatch.setattr(os, "execve", lambda *words: begun.append(words))
    end_with_the_program({"PYTHONINSPECT": "", "A": "b"})
    assert begun == []
    end_with_the_program({"PYTHONINSPECT": "1", "A": "b"})
    assert begun == [(sys.executable, sys.orig_argv, {"A": "b"})]
