"""One gRPC worker, as a real process that does all but gRPC."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from pgnode.errors import ChildFailedError
from pgnode.os_support.log_lines import Entry
from pgnode.os_support.log_output import PROCESS
from pgnode.settings import load
from pgnode.settings.handover import hand_over
from pgnode.supervisor.processes.grpc_process import GrpcProcess
from pgnode.supervisor.processes.inheritance import InheritedProcess
from pgnode.supervisor.processes.pid_registry import PidRegistry
from pgnode.testing.processes import is_running
from tests.support.polling import eventually

MODULE = "tests.support.fake_grpc_worker"


@pytest_asyncio.fixture
async def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Callable[..., GrpcProcess]]:
    made: list[GrpcProcess] = []
    pids = PidRegistry(tmp_path / "children.json")
    handover = hand_over(load(state_dir=str(tmp_path)))

    def make_process(
        behaviour: str,
        left: InheritedProcess | None = None,
        *,
        beat_seconds: float = 5.0,
        tell: Callable[[Entry], None] = PROCESS.write,
    ) -> GrpcProcess:
        """One that is not taken for hung on a busy machine, unless a test wants that."""
        monkeypatch.setenv("FAKE_WORKER", behaviour)
        name = f"grpc-{len(made)}"
        made.append(GrpcProcess(name, handover, pids, module=MODULE, beat_seconds=beat_seconds, left=left, tell=tell))
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


@pytest.mark.parametrize("others_serve", [True, False])
async def test_it_is_told_whether_others_serve(make: Callable[..., GrpcProcess], others_serve: bool) -> None:
    said: list[Entry] = []
    process = make("well", tell=said.append)
    await process.start()
    await process.stop(others_serve=others_serve)
    assert ("others serve" in str(said), "nobody else serves" in str(said)) == (others_serve, not others_serve)


async def test_one_that_ends_by_itself(make: Callable[[str], GrpcProcess]) -> None:
    process = make("ends")
    await process.start()
    assert await process.ended_or_leaving() == "exit code 4"


async def test_one_that_falls_silent_is_killed(make: Callable[..., GrpcProcess]) -> None:
    process = make("silent", beat_seconds=0.1)
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


async def test_it_goes_on_under_the_next_supervisor(make: Callable[..., GrpcProcess]) -> None:
    first = make("well")
    await first.start()
    left = first.hand_over()
    assert left is not None
    assert left.channel >= 0
    assert first.hand_over() is None
    second = make("well", left)
    assert second.take_over()
    assert second.pid == left.pid
    ended = asyncio.create_task(second.ended_or_leaving())
    done, _ = await asyncio.wait({ended}, timeout=0.3)
    assert not done, "its beats are heard"
    second.request_stop()
    assert await ended == "exit code 0"


async def test_one_that_falls_silent_under_the_next_supervisor_is_killed(make: Callable[..., GrpcProcess]) -> None:
    first = make("silent")
    await first.start()
    second = make("silent", first.hand_over(), beat_seconds=0.1)
    assert second.take_over()
    assert await second.ended_or_leaving() == "it hung"


async def test_one_that_has_ended_is_not_taken_over(make: Callable[..., GrpcProcess]) -> None:
    first = make("well")
    await first.start()
    left = first.hand_over()
    assert left is not None
    os.kill(left.pid, signal.SIGKILL)
    await eventually(lambda: not is_running(left.pid), "it has ended")
    assert not make("well", left).take_over()


async def test_one_that_never_was_leaves_nothing(make: Callable[..., GrpcProcess]) -> None:
    assert make("well").hand_over() is None
