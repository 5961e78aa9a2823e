"""More, fewer and other REST workers, with a master that does what Gunicorn's does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from pgnode.supervisor.processes.rest_workers import ATTEMPTS, RestWorkers, children_of
from pgnode.testing.clock import HurryingClock


class Master:
    """Obeys signals, but for those that it is told to miss."""

    def __init__(self) -> None:
        self.pid: int | None = 7
        self.workers = [1, 2]
        self.got: list[signal.Signals] = []
        self.misses = 0

    def signal(self, number: signal.Signals) -> None:
        self.got.append(number)
        if self.misses:
            self.misses -= 1
            return
        newest = max(self.workers, default=0)
        match number:
            case signal.SIGTTIN:
                self.workers.append(newest + 1)
            case signal.SIGTTOU if len(self.workers) > 1:
                self.workers.pop(0)
            case signal.SIGHUP:
                self.workers = [newest + 1, newest + 2]

    def children(self, pid: int) -> list[int]:
        assert pid == self.pid
        return list(self.workers)


@pytest.fixture
def master() -> Master:
    return Master()


@pytest.fixture
def workers(master: Master) -> RestWorkers:
    return RestWorkers(master, master.children, HurryingClock())


async def test_there_are_more_and_fewer(master: Master, workers: RestWorkers) -> None:
    await workers.change(2)
    assert (await workers.pids(), workers.added) == ([1, 2, 3, 4], 2)
    await workers.change(-3)
    assert (await workers.pids(), workers.added) == ([4], -1)
    assert master.got == [signal.SIGTTIN] * 2 + [signal.SIGTTOU] * 3
    assert "-1" in repr(workers)


async def test_a_signal_that_was_lost_is_sent_again(master: Master, workers: RestWorkers) -> None:
    master.misses = 1
    await workers.change(2)
    assert (len(await workers.pids()), len(master.got)) == (4, 3)


async def test_one_that_leaves_slowly_is_not_asked_again_and_not_counted(master: Master, workers: RestWorkers) -> None:
    master.misses = 1
    await workers.change(-1)
    assert master.got == [signal.SIGTTOU], "another one would end another worker"
    master.misses = 0
    looks = iter([[1, 2], [2, 3], [2, 3]])
    slow = RestWorkers(master, lambda _pid: next(looks), HurryingClock())
    await slow.change(1)
    assert master.got[1:] == [signal.SIGTTIN], "one of those before has left meanwhile"


async def test_what_shows_no_effect_is_given_up(
    master: Master, workers: RestWorkers, capsys: pytest.CaptureFixture[str]
) -> None:
    master.misses = 1000
    await workers.change(1)
    assert len(master.got) == ATTEMPTS
    assert "does not have the workers that were asked for" in capsys.readouterr().out


async def test_another_master_begins_with_the_settings(master: Master, workers: RestWorkers) -> None:
    await workers.change(1)
    master.pid = 8
    assert workers.added == 0
    master.pid = None
    assert await workers.pids() == []
    master.pid = 7
    await workers.change(1)
    assert workers.added == 2


async def test_all_are_replaced(master: Master, workers: RestWorkers) -> None:
    await workers.change(1)
    assert await workers.restart_all() == []
    assert (await workers.pids(), workers.added, master.got[-1]) == ([4, 5], 0, signal.SIGHUP)
    master.misses = 1
    assert await workers.restart_all() == [4, 5], "they have not ended in time"


async def test_one_is_replaced(master: Master, workers: RestWorkers, monkeypatch: pytest.MonkeyPatch) -> None:
    def end(pid: int, number: signal.Signals) -> None:
        assert number is signal.SIGTERM
        master.workers.remove(pid)
        master.workers.append(9)

    monkeypatch.setattr(os, "kill", end)
    assert await workers.restart(1) == []
    assert await workers.pids() == [2, 9]


def test_children_of_a_process() -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.pid in children_of(os.getpid())
        child.communicate(b"\n")
    assert children_of(child.pid) == []
