"""Reports are taken from the bus, whatever it holds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from pgnode.bus.reports import Report
from pgnode.os_support.aio import end_tasks
from pgnode.supervisor.figures.node_figures import ProcessFigures
from pgnode.supervisor.figures.processes import ProcessSampler, Sample
from pgnode.supervisor.figures.worker_reports import PROCESSES_EVERY, WorkerReports
from tests.support.polling import eventually


class Stage:
    """A bus, and what takes reports from it."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.bus: dict[str, bytes] = {}
        self.reads = 0
        self.looks = 0
        self.away = False
        self.reports = WorkerReports(
            self.read,
            self.forget,
            ProcessSampler(lambda: {"core": 7}, self.look),
            now=lambda: self.seconds,
            interval_seconds=0.001,
        )

    async def read(self) -> dict[str, bytes]:
        self.reads += 1
        if self.away:
            raise ConnectionError("away")
        return dict(self.bus)

    async def forget(self, workers: Iterable[str]) -> None:
        for worker in workers:
            del self.bus[worker]

    def look(self, pid: int) -> Sample:
        self.looks += 1
        return Sample((pid, 0.0), ProcessFigures(1.0, 2, 3, 4))


async def test_what_is_no_report_is_left_out_and_who_is_no_more_is_forgotten() -> None:
    stage = Stage()
    await stage.reports.take()
    stage.bus = {"a": Report(1, "rest", {"x": 5}).encode(), "odd": b"[]", "b": Report(1, "grpc", last=True).encode()}
    await stage.reports.take()
    assert stage.reports.workers.sums.counts == {"x": 5}
    assert set(stage.bus) == {"a", "odd"}
    assert repr(stage.reports) == "WorkerReports(WorkerSums(1 alive, 1 gone))"


async def test_it_goes_on_while_the_bus_is_away() -> None:
    stage = Stage()
    stage.away = True
    task = asyncio.create_task(stage.reports.run())
    await eventually(lambda: stage.reads > PROCESSES_EVERY, "it looks again and again")
    stage.away = False
    stage.bus = {"a": Report(1, "rest").encode()}
    await eventually(lambda: "1 alive" in repr(stage.reports), "reports are taken again")
    assert 1 < stage.looks < stage.reads
    await end_tasks([task])


async def test_processes() -> None:
    stage = Stage()
    assert set(await stage.reports.processes()) == {"core"}
