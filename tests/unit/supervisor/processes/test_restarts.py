"""The loop that brings processes back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from pgnode.errors import ChildFailedError
from pgnode.os_support.aio import end_tasks
from pgnode.supervisor.processes.restart_policy import RestartPolicy
from pgnode.supervisor.processes.restarts import Restarter
from pgnode.testing.clock import HurryingClock


class FakeProcess:
    """Ends as often as the test says; each start raises the next of ``errors``, or works."""

    def __init__(self, name: str, deaths: int, errors: Iterator[Exception | None]) -> None:
        self.name = name
        self.starts = 0
        self.done = asyncio.Event()
        self._deaths = deaths
        self._errors = errors

    async def start(self) -> None:
        self.starts += 1
        if (error := next(self._errors, None)) is not None:
            raise error

    async def ended(self) -> str:
        if not self._deaths:
            self.done.set()
            await asyncio.Event().wait()
        self._deaths -= 1
        return "exit code 1"


async def kept(process: FakeProcess) -> tuple[Restarter, HurryingClock]:
    """Keep a process until it stays up."""
    clock = HurryingClock()
    restarter = Restarter(clock)
    task = asyncio.create_task(restarter.keep(process))
    waiting = asyncio.create_task(process.done.wait())
    await asyncio.wait({task, waiting}, timeout=10, return_when=asyncio.FIRST_COMPLETED)
    assert waiting.done()
    assert not task.done()
    await end_tasks([task])
    return restarter, clock


async def test_one_that_ends_is_started_again_at_once() -> None:
    process = FakeProcess("web", 1, iter(()))
    restarter, clock = await kept(process)
    assert process.starts == 1
    assert clock.pauses == [0.0]
    assert restarter.restarts == {"web": 1}
    assert "web" in repr(restarter)


@pytest.mark.parametrize("error", [ChildFailedError("no luck"), OSError(12, "no memory"), RuntimeError("unexpected")])
async def test_a_start_that_fails_is_tried_again_after_growing_pauses(error: Exception) -> None:
    process = FakeProcess("web", 1, iter([error] * 40))
    restarter, clock = await kept(process)
    assert process.starts == restarter.restarts["web"] == 41
    assert clock.pauses[:4] == [0.0, 0.5, 1.0, 2.0]
    assert max(clock.pauses) <= RestartPolicy().max_pause_seconds


async def test_each_process_has_its_own_pauses() -> None:
    clock = HurryingClock()
    restarter = Restarter(clock)
    processes = [FakeProcess(name, 1, iter(())) for name in ("a", "b", "c")]
    tasks = [asyncio.create_task(restarter.keep(process)) for process in processes]
    await asyncio.gather(*(process.done.wait() for process in processes))
    await end_tasks(tasks)
    assert clock.pauses == [0.0, 0.0, 0.0]
