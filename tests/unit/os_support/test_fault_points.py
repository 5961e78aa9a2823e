"""A point does nothing by itself, and exactly what it was armed with once."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pgnode.os_support import fault_points
from pgnode.os_support.fault_points import InjectedFaultError, async_fault_point, fault_point
from pgnode.testing import faults
from pgnode.testing.faults import ArmedFaults
from tests.support.polling import eventually
from tests.support.processes import is_stopped


@pytest.fixture
def armed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ArmedFaults]:
    """Points of this process, armed by the test."""
    monkeypatch.setattr(faults, "known_points", lambda: frozenset({"here", "there"}))
    made = ArmedFaults(tmp_path / "points")
    fault_points.use_folder(made.folder)
    yield made
    fault_points.use_folder(None)


async def test_nothing_happens_without_a_folder() -> None:
    fault_point("here")
    await async_fault_point("here")


async def test_a_point_that_is_not_armed_does_nothing(armed: ArmedFaults) -> None:
    armed.arm("there", "raise")
    fault_point("here")
    await async_fault_point("here")
    assert not armed.reached_by("there")


async def test_a_point_raises_once(armed: ArmedFaults) -> None:
    armed.arm("here", "raise")
    with pytest.raises(InjectedFaultError, match="here"):
        fault_point("here")
    assert await armed.reached("here") == os.getpid()
    fault_point("here")
    armed.arm("here", "raise")
    with pytest.raises(InjectedFaultError):
        await async_fault_point("here")


def test_a_point_raises_an_error_of_the_system(armed: ArmedFaults) -> None:
    armed.arm("here", "raise ENOSPC")
    with pytest.raises(OSError, match="No space left on device") as caught:
        fault_point("here")
    assert caught.value.errno == errno.ENOSPC


def test_the_first_passes_may_go(armed: ArmedFaults) -> None:
    armed.arm("here", "raise", skip=2)
    fault_point("here")
    fault_point("here")
    with pytest.raises(InjectedFaultError):
        fault_point("here")


def test_an_unknown_action_is_named(armed: ArmedFaults) -> None:
    armed.arm("here", "dance")
    with pytest.raises(ValueError, match="'dance' is no action"):
        fault_point("here")


def test_a_point_that_no_code_has_cannot_be_armed(armed: ArmedFaults) -> None:
    with pytest.raises(ValueError, match="no code has the fault point 'elsewhere'"):
        armed.arm("elsewhere", "kill")


async def test_nobody_comes(armed: ArmedFaults) -> None:
    armed.arm("here", "kill")
    with pytest.raises(AssertionError, match="nobody came"):
        await armed.reached("here", 0)
    armed.let_all_go()
    fault_point("here")


@pytest.mark.parametrize("release", ["let_go", "disarm"])
async def test_a_coroutine_waits_alone(armed: ArmedFaults, release: str) -> None:
    armed.arm("here", "wait")
    waiting = asyncio.create_task(async_fault_point("here"))
    await armed.reached("here")
    assert not waiting.done()
    getattr(armed, release)("here")
    await waiting


async def test_a_thread_waits(armed: ArmedFaults) -> None:
    armed.arm("here", "wait")
    waiting = threading.Thread(target=fault_point, args=("here",))
    waiting.start()
    await armed.reached("here")
    assert waiting.is_alive()
    armed.let_all_go()
    await asyncio.to_thread(waiting.join)


@pytest.mark.parametrize("action", ["kill", "stop"])
async def test_a_process_ends_or_stops_at_its_point(armed: ArmedFaults, action: str) -> None:
    armed.arm("here", action)
    code = "from pgnode.os_support.fault_points import fault_point\nfault_point('here')\nprint('went on', flush=True)"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, env={**os.environ, **armed.environment}, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await armed.reached("here") == process.pid
    if action == "kill":
        assert await process.wait() == -signal.SIGKILL
    else:
        await eventually(lambda: is_stopped(process.pid), "it has stopped")
        os.kill(process.pid, signal.SIGCONT)
        assert await process.stdout.read() == b"went on\n"
        await process.wait()


def test_every_point_of_the_code_has_a_name_of_its_own_kind() -> None:
    assert all(re.fullmatch(r"[a-z_]+\.[a-z_]+", name) for name in faults.known_points())
