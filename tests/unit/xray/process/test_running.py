"""A running core: its end, by itself or by us, is told once and for all."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from pgnode.os_support import fault_points
from pgnode.os_support.pidfd import Pidfd
from pgnode.testing.faults import ArmedFaults
from pgnode.xray.process.executable import ExecutableCore
from pgnode.xray.process.record import CoreRecord, read_record
from pgnode.xray.process.running import RunningCore
from tests.support.polling import eventually, next_turn
from tests.support.processes import stop
from tests.unit.xray.process.conftest import serving

GRACE_SECONDS = 10.0


async def test_its_life(executable: ExecutableCore, run_dir: Path) -> None:
    running = await executable.spawn("{}", run_dir)
    assert running.is_running()
    assert not running.adopted
    assert "own running" in repr(running)
    assert running.socket_path == run_dir / "core.sock"
    assert running.log_path.is_fifo()
    assert -2 < running.up_seconds < 60
    waiting = [asyncio.create_task(running.wait()) for _ in range(2)]
    assert await running.terminate(GRACE_SECONDS) == -signal.SIGTERM
    assert await asyncio.gather(*waiting) == [-signal.SIGTERM] * 2
    assert await running.wait() == -signal.SIGTERM
    assert not running.is_running()
    assert os.listdir(run_dir) == []
    running.close()
    running.close()
    running.send_signal(signal.SIGTERM)
    assert "ended" in repr(running)


async def test_one_that_does_not_listen_is_killed(executable: ExecutableCore, run_dir: Path) -> None:
    running = await serving(await executable.spawn("{}", run_dir))
    await stop(running.pid)
    assert await running.terminate(0.05) == -signal.SIGKILL
    running.close()


async def test_one_that_does_not_even_die(
    executable: ExecutableCore, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = await executable.spawn("{}", run_dir)
    monkeypatch.setattr(running, "send_signal", lambda _number: None)
    with pytest.raises(TimeoutError, match="did not end"):
        await running.terminate(0.02, kill_seconds=0.02)
    monkeypatch.undo()
    assert running.is_running()
    await running.terminate(GRACE_SECONDS)
    running.close()


async def test_the_record_says_what_it_runs_now(executable: ExecutableCore, run_dir: Path) -> None:
    running = await executable.spawn("{}", run_dir, config_hash="one")
    await running.set_config_hash("two")
    record = read_record(run_dir)
    assert record is not None
    assert record.config_hash == running.config_hash == "two"
    await running.terminate(GRACE_SECONDS)
    running.close()


async def test_a_record_that_cannot_be_written_is_written_later(
    executable: ExecutableCore, run_dir: Path, tmp_path: Path
) -> None:
    started = await executable.spawn("{}", run_dir, config_hash="one")
    running = RunningCore(started.record, run_dir, Pidfd(started.pid), -1, None, record_seconds=0.01)
    faults = ArmedFaults(tmp_path / "fault-points")
    fault_points.use_folder(faults.folder)
    try:
        faults.arm("core.record_again", "raise ENOSPC")
        await running.set_config_hash("two")
        assert running.config_hash == "two"

        def written() -> bool:
            record = read_record(run_dir)
            return record is not None and record.config_hash == "two"

        await eventually(written, "it is written when that is possible")
        # A core that has ended needs none.
        faults.arm("core.record_again", "raise ENOSPC")
        await running.set_config_hash("three")
    finally:
        fault_points.use_folder(None)
    running.close()
    await started.terminate(GRACE_SECONDS)
    started.close()


async def test_closing_ends_nothing_and_nobody_waits_any_more(executable: ExecutableCore, run_dir: Path) -> None:
    running = await executable.spawn("{}", run_dir)
    other = RunningCore(running.record, run_dir, Pidfd(running.pid), -1, None)
    assert other.adopted
    waiting = asyncio.create_task(other.wait())
    await next_turn()
    other.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert running.is_running()
    await running.terminate(GRACE_SECONDS)
    running.close()
    with pytest.raises(ValueError, match="was closed"):
        await RunningCore(CoreRecord(2, 0, "", "", "x"), run_dir, other._process, -1, None).wait()
