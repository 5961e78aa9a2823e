"""What processes take, and that their processor time never falls."""

from __future__ import annotations

import os
from unittest import mock

import psutil
import pytest

from pgnode.supervisor.figures.node_figures import ProcessFigures
from pgnode.supervisor.figures.processes import ProcessSampler, Sample, sample_process

#: Larger than any pid may be.
NO_PID = 2**22 + 1


class Machine:
    """Processes by pid."""

    def __init__(self) -> None:
        self.processes: dict[int, Sample] = {}
        self.pids: dict[str, int | None] = {}

    def run(self, pid: int, cpu_seconds: float, born: float = 0) -> None:
        self.processes[pid] = Sample((pid, born), ProcessFigures(cpu_seconds, 1000, 5, 100))

    def sampler(self) -> ProcessSampler:
        return ProcessSampler(lambda: self.pids, self.processes.get)


def cpu(sampler: ProcessSampler, kind: str = "core") -> float:
    return sampler.sample(sampler.pids)[kind].cpu_seconds


def test_this_process() -> None:
    found = sample_process(os.getpid())
    assert found is not None
    assert found.identity[0] == os.getpid()
    assert found.figures.cpu_seconds > 0
    assert found.figures.memory_bytes > 1_000_000
    assert 0 < found.figures.open_files < found.figures.max_files
    assert sample_process(NO_PID) is None


def test_a_system_that_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where /proc/stat is empty."""
    unknown = mock.Mock(side_effect=RuntimeError("line 'btime' not found in /proc/stat"))
    monkeypatch.setattr(psutil.Process, "create_time", unknown)
    assert sample_process(os.getpid()) is None
    unknown.assert_called_once()


def test_what_was_used_before_the_first_look_is_not_counted() -> None:
    machine = Machine()
    machine.run(1, 500)
    machine.pids = {"core": 1, "gunicorn": None}
    sampler = machine.sampler()
    assert cpu(sampler) == 0
    machine.run(1, 502)
    assert cpu(sampler) == 2
    assert repr(sampler) == "ProcessSampler(1 processes)"


def test_ended_processes_stay_counted() -> None:
    machine = Machine()
    sampler = machine.sampler()
    assert sampler.sample(sampler.pids) == {}
    machine.pids = {"core": 1}
    machine.run(1, 3)
    assert cpu(sampler) == 3, "it began after the first look"
    machine.pids = {"core": None}
    assert sampler.sample(sampler.pids) == {}
    machine.pids = {"core": 2}
    machine.run(2, 1)
    assert cpu(sampler) == 4
    machine.run(2, 0.5, born=9)
    assert cpu(sampler) == 4.5, "another one with the same pid"
