"""Starting a core: its folder, its record, and nothing left when it fails."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from pgnode.xray.process.base import core_environment
from pgnode.xray.process.executable import ExecutableCore
from pgnode.xray.process.record import read_record, start_ticks
from pgnode.xray.process.runner import ASSETS_VARIABLE, Child, Runner


async def test_a_core_is_started_with_a_record(executable: ExecutableCore, run_dir: Path) -> None:
    running = await executable.spawn("{}", run_dir)
    try:
        record = read_record(run_dir)
        assert record == running.record
        assert record is not None
        assert (record.pid, record.start_ticks) == (running.pid, start_ticks(running.pid))
        assert (record.kind, record.core) == ("executable", str(executable))
        assert record.config_hash == hashlib.sha256(b"{}").hexdigest()
        assert "core.config.json" not in os.listdir(run_dir), "the config does not stay"
    finally:
        await running.terminate(5.0)
        running.close()
    assert os.listdir(run_dir) == []


async def test_the_hash_may_be_the_callers(executable: ExecutableCore, run_dir: Path) -> None:
    running = await executable.spawn("{}", run_dir, config_hash="mine")
    await running.terminate(5.0)
    running.close()
    assert running.config_hash == "mine"


async def test_a_start_that_fails_leaves_nothing(run_dir: Path) -> None:
    class Broken(ExecutableCore):
        def _launch(
            self, config: Path, fifo: Path, assets_dir: Path | None, _runner: Runner | None
        ) -> tuple[int, Child]:
            raise RuntimeError("no")

    held = len(os.listdir("/proc/self/fd"))
    with pytest.raises(RuntimeError):
        await Broken("/bin/true").spawn("{}", run_dir)
    assert os.listdir(run_dir) == []
    assert len(os.listdir("/proc/self/fd")) == held


def test_the_environment_of_a_core(tmp_path: Path) -> None:
    assert core_environment(None) == dict(os.environ)
    assert core_environment(tmp_path) == dict(os.environ) | {ASSETS_VARIABLE: str(tmp_path)}
