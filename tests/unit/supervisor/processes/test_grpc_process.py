"""One gRPC worker, as a real process that does all but gRPC."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from pgnode.errors import ChildFailedError
from pgnode.settings import load
from pgnode.settings.handover import hand_over
from pgnode.supervisor.processes.grpc_process import GrpcProcess
from pgnode.supervisor.processes.pid_registry import PidRegistry

MODULE = "tests.support.fake_grpc_worker"


@pytest_asyncio.fixture
async def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[[str], GrpcProcess]]:
    made: list[GrpcProcess] = []
    pids = PidRegistry(tmp_path / "children.json")
    handover = hand_over(load(state_dir=str(tmp_path)))

    def make_process(behaviour: str) -> GrpcProcess:
        monkeypatch.setenv("FAKE_WORKER", behaviour)
        made.append(GrpcProcess(f"grpc-{len(made)}", handover, pids, module=MODULE, beat_seconds=0.1))
        return made[-1]

    yield make_process
    await asyncio.gather(*(process.stop() for process in made))


async def test_one_that_is_well_ends_when_told(make: Callable[[str], GrpcProcess]) -> None:
    process = make("well")
    await process.start()
    assert process.pid is not None
    assert process.name == "grpc-0"
    assert "grpc-0" in repr(process)
    ended = asyncio.create_task(process.ended_or_leaving())
    process.request_stop()
    assert await ended == "exit code 0"
    process.request_stop()


async def test_one_that_ends_by_itself(make: Callable[[str], GrpcProcess]) -> None:
    process = make("ends")
    await process.start()
    assert await process.ended_or_leaving() == "exit code 4"


async def test_one_that_falls_silent_is_killed(make: Callable[[str], GrpcProcess]) -> None:
    process = make("silent")
    await process.start()
    assert await process.ended_or_leaving() == "it hung"
    assert process.pid is None


async def test_one_that_leaves_asks_for_a_replacement(make: Callable[[str], GrpcProcess]) -> None:
    process = make("leaving")
    await process.start()
    assert await process.ended_or_leaving() is None
    assert process.pid is not None, "it goes on until it is told to end"


async def test_one_that_does_not_come_up(make: Callable[[str], GrpcProcess]) -> None:
    process = make("broken")
    with pytest.raises(ChildFailedError, match=r"exit code 3 while starting\nno luck"):
        await process.start()
    assert process.pid is None


async def test_it_is_killed_without_waiting(make: Callable[[str], GrpcProcess]) -> None:
    process = make("well")
    await process.start()
    process.kill_group()
    assert await process.ended_or_leaving() == "exit code -9"
