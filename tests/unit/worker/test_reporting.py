"""A worker reports how it is, once in a while and at its end."""

from __future__ import annotations

import asyncio
import os

from pgnode.bus.reports import Report
from pgnode.metrics.meter import OK, Meter
from pgnode.os_support.lasting import Failures
from pgnode.os_support.open_files import OpenFilesWatch
from pgnode.worker.reporting import MONITOR, WorkerFacts, WorkerReporter
from tests.support.polling import eventually


class Bus:
    """Keeps reports, or is away."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.away = False
        self.hangs = False
        self.closed = False

    async def write(self, report: bytes) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.away:
            raise ConnectionError("away")
        self.reports.append(Report.decode(report))

    def close(self) -> None:
        self.closed = True


class Stage:
    """A reporter and all around it."""

    def __init__(self, report_seconds: float = 0.001) -> None:
        self.seconds = 50.0
        failures = Failures()
        for _ in range(6):
            failures.add()
        self.bus = Bus()
        self.meter = Meter(lambda: self.seconds)
        self.reporter = WorkerReporter(
            WorkerFacts("rest", connections=lambda: {"rest": 7}, cut_off=lambda: 3, not_allowed=lambda: 4),
            self.meter,
            self.bus,
            log_viewers=lambda: 2,
            files=OpenFilesWatch(1000),
            failures=failures,
            now=lambda: self.seconds,
            report_seconds=report_seconds,
        )

    def call(self, face: str = "rest", key: str = "current") -> None:
        meter = self.meter.face(face)
        meter.end(meter.line("GetStats", "read"), OK, meter.begin(key))


def test_what_a_report_says() -> None:
    stage = Stage()
    stage.call()
    stage.call("maintenance")
    stage.meter.face("rest").refused()
    stage.meter.face("rest").refused(limited=True)
    report = stage.reporter.report()
    assert (report.number, report.kind, report.pid, report.last) == (1, "rest", os.getpid(), False)
    assert {name: value for name, value in report.counts.items() if not name.startswith("cpu")} == {
        "calls/rest/GetStats/OK": 1,
        "calls/maintenance/GetStats/OK": 1,
        "unauthenticated/rest": 2,
        "limited/rest": 1,
        "not_allowed/rest": 4,
        "key/current": 2,
        "cut_off": 3,
        "files_exhausted/rest": 0,
        "task_failures/rest": 6,
    }
    assert report.counts["cpu/rest"] > 0
    assert set(report.times) == {"times/rest/read", "times/maintenance/read"}
    assert (report.connections, report.log_viewers, report.max_files) == ({"rest": 7}, 2, 1000)
    assert report.memory_bytes > 1_000_000
    assert report.open_files > 0
    assert repr(stage.reporter) == "WorkerReporter(rest, 1 reports)"


def test_when_somebody_called_last() -> None:
    stage = Stage()
    assert stage.reporter.report().idle_seconds is None
    stage.call()
    assert stage.reporter.report().idle_seconds == 0
    stage.seconds += 12.34
    assert stage.reporter.report().idle_seconds == 12.3
    stage.call(MONITOR)
    assert stage.reporter.report().idle_seconds == 12.3, "a monitor is no panel"


async def test_it_reports_until_its_end_and_then_a_last_time() -> None:
    stage = Stage()
    stage.reporter.start()
    await eventually(lambda: len(stage.bus.reports) >= 3, "reports come")
    await stage.reporter.close()
    assert [report.number for report in stage.bus.reports] == list(range(1, len(stage.bus.reports) + 1))
    assert [report.last for report in stage.bus.reports[-2:]] == [False, True]
    assert stage.bus.closed


async def test_a_bus_that_is_away_costs_reports_alone() -> None:
    stage = Stage()
    stage.bus.away = True
    stage.reporter.start()
    await eventually(lambda: stage.reporter.figures().number >= 3, "it goes on")
    stage.bus.away = False
    await eventually(lambda: stage.bus.reports, "reports come again")
    await stage.reporter.close()


async def test_a_bus_that_hangs_does_not_keep_the_worker() -> None:
    stage = Stage()
    stage.bus.hangs = True
    stage.reporter.start()
    await eventually(lambda: stage.reporter.figures().number >= 1, "it has begun")
    async with asyncio.timeout(30):
        await stage.reporter.close()
    assert stage.bus.closed


async def test_one_that_was_not_started_reports_nothing() -> None:
    stage = Stage()
    await stage.reporter.close()
    assert stage.bus.reports == []
