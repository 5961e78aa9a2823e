"""The process that waits for its config: it becomes a core, or ends and leaves nothing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import multiprocess
import psutil
import pytest

from pgnode.xray.process.runner import ASSETS_VARIABLE, Runner
from tests.support.polling import eventually
from tests.support.processes import stop


async def test_one_that_is_not_needed_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ASSETS_VARIABLE, "/of/before")
    runner = Runner(tmp_path)
    assert os.environ[ASSETS_VARIABLE] == "/of/before"

    def found() -> bool:  # the process has no environment while its program begins
        return psutil.Process(runner.pid).environ().get(ASSETS_VARIABLE) == str(tmp_path)

    await eventually(found, "its own folder in its environment", errors=(psutil.Error,))
    assert runner.exit_code() is None
    assert str(runner.pid) in repr(runner)
    assert runner.pid not in {child.pid for child in multiprocess.active_children()}
    await runner.discard()
    assert runner.exit_code() == 0


async def test_one_that_hangs_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ASSETS_VARIABLE, raising=False)
    runner = Runner(tmp_path, discard_seconds=0.05)
    assert ASSETS_VARIABLE not in os.environ
    await stop(runner.pid)
    await runner.discard()
    assert runner.exit_code() == -signal.SIGKILL


async def test_one_that_died_meanwhile_takes_no_config(tmp_path: Path) -> None:
    runner = Runner(None)
    os.kill(runner.pid, signal.SIGKILL)
    await eventually(lambda: runner.exit_code() is not None, "its end")
    with pytest.raises(OSError, match="Broken pipe"):
        await runner.start_core("{}", tmp_path / "fifo")
    await runner.discard()
    await runner.discard()


async def test_one_that_does_not_take_its_config_is_ended(tmp_path: Path) -> None:
    """More than the pipe holds, and nobody reads: no wait for it is without end."""
    runner = Runner(None, take_seconds=0.05)
    await stop(runner.pid)
    with pytest.raises(OSError, match="Broken pipe"):
        await runner.start_core("x" * 4 * 1024 * 1024, tmp_path / "fifo")
    await runner.discard()
    assert runner.exit_code() == -signal.SIGKILL


async def test_one_that_is_a_core_by_now_is_ended_at_once(tmp_path: Path) -> None:
    """It has closed what multiprocess waits for, whose own join would not come back."""
    runner = Runner(None)
    os.mkfifo(tmp_path / "fifo")
    await runner.start_core('{"outbounds": [{"protocol": "freedom"}]}', tmp_path / "fifo")
    mark = f"{tmp_path / 'fifo'}"
    await eventually(
        lambda: str(Path(f"/proc/{runner.pid}/fd/1").readlink()) == mark, "it is the core", errors=(OSError,)
    )
    await runner.kill()
    assert runner.exit_code() == -signal.SIGKILL


def test_one_that_cannot_be_watched_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_descriptor(_pid: int) -> None:
        raise OSError("too many open files")

    monkeypatch.setattr(os, "pidfd_open", no_descriptor)
    with pytest.raises(OSError, match="too many"):
        Runner(None)
    for process in multiprocess.active_children():
        process.join(30)


def test_one_that_cannot_be_started_keeps_no_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    held = len(os.listdir("/proc/self/fd"))

    def fail(_process: object) -> None:
        raise OSError("no more processes")

    monkeypatch.setattr(multiprocess.get_context("spawn").Process, "start", fail)
    with pytest.raises(OSError, match="no more"):
        Runner(None)
    assert len(os.listdir("/proc/self/fd")) == held
