"""Starting a core: its folder, its record, and nothing left when it fails."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pgnode.os_support import fault_points
from pgnode.testing.faults import ArmedFaults
from pgnode.testing.processes import is_running
from pgnode.xray.process.base import core_environment
from pgnode.xray.process.embedded import EmbeddedCore
from pgnode.xray.process.executable import ExecutableCore
from pgnode.xray.process.record import read_record, start_ticks
from pgnode.xray.process.runner import ASSETS_VARIABLE, Child, Runner


@pytest.fixture
def armed(tmp_path: Path) -> Iterator[ArmedFaults]:
    faults = ArmedFaults(tmp_path / "fault-points")
    fault_points.use_folder(faults.folder)
    yield faults
    fault_points.use_folder(None)


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
        async def _launch(
            self, _config_json: str, _fifo: Path, _assets_dir: Path | None, _runner: Runner | None
        ) -> Child:
            raise RuntimeError("no")

    held = len(os.listdir("/proc/self/fd"))
    with pytest.raises(RuntimeError):
        await Broken("/bin/true").spawn("{}", run_dir)
    assert os.listdir(run_dir) == []
    assert len(os.listdir("/proc/self/fd")) == held


async def test_a_core_whose_record_cannot_be_written_is_ended(
    executable: ExecutableCore, run_dir: Path, armed: ArmedFaults
) -> None:
    held, before = len(os.listdir("/proc/self/fd")), cores()
    for core, warm in ((executable, False), (EmbeddedCore(), False), (EmbeddedCore(), True)):
        runner = core.warm_up() if warm else None
        armed.arm("core.record", "raise EIO")
        with pytest.raises(OSError, match="fault point"):
            await core.spawn("{}", run_dir, runner=runner)
        assert os.listdir(run_dir) == []
        assert cores() == before
    del runner
    assert len(os.listdir("/proc/self/fd")) <= held + 1, "one that stands for multiprocess's helper"


def cores() -> list[int]:
    """Return the children of this process that are there."""
    return [child.pid for child in psutil.Process().children() if is_running(child.pid)]


async def test_a_folder_that_cannot_be_made_ends_the_runner_that_waits(run_dir: Path) -> None:
    (run_dir / "file").touch()
    runner = EmbeddedCore().warm_up()
    with pytest.raises(NotADirectoryError):
        await EmbeddedCore().spawn("{}", run_dir / "file" / "run", runner=runner)
    assert runner.exit_code() == -signal.SIGKILL


def test_where_a_core_looks_for_relative_certificates(
    executable: ExecutableCore, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert executable.cert_dir == executable.path.resolve().parent
    monkeypatch.setenv("XRAY_LOCATION_CERT", "/certs")
    assert executable.cert_dir == Path("/certs")


def test_the_environment_of_a_core(tmp_path: Path) -> None:
    assert core_environment(None) == dict(os.environ)
    assert core_environment(tmp_path) == dict(os.environ) | {ASSETS_VARIABLE: str(tmp_path)}
