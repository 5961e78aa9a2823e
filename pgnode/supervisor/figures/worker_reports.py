"""Takes the workers' reports from the bus, and looks at the processes, now and then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping

import structlog
from redis.asyncio import Redis

from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.keys import Keys
from pgnode.bus.report_channel import forget_reports, read_reports
from pgnode.bus.reports import Report
from pgnode.os_support.beats import pause_to_beat
from pgnode.supervisor.figures.node_figures import ProcessFigures
from pgnode.supervisor.figures.processes import ProcessSampler
from pgnode.supervisor.figures.worker_sums import WorkerSums

log = structlog.get_logger(__name__)

#: Seconds between two looks at the reports.
POLL_INTERVAL_SECONDS = 2.0

#: Looks at the reports between two looks at the processes.
PROCESSES_EVERY = 5

ReadReports = Callable[[], Awaitable[dict[str, bytes]]]
ForgetReports = Callable[[Iterable[str]], Awaitable[None]]


class WorkerReports:
    """Belongs to the supervisor's loop.

    Args:
        read: Returns the last report of each worker; raises BUS_ERRORS.
        forget: Removes reports; raises BUS_ERRORS.
        sampler: Looks at the processes.
        now: Seconds on a clock that nobody sets.
        interval_seconds: Seconds between two looks at the reports.
    """

    def __init__(
        self,
        read: ReadReports,
        forget: ForgetReports,
        sampler: ProcessSampler,
        *,
        now: Callable[[], float] = time.monotonic,
        interval_seconds: float = POLL_INTERVAL_SECONDS,
    ) -> None:
        self._read = read
        self._forget = forget
        self._sampler = sampler
        self._now = now
        self._interval_seconds = interval_seconds
        self._taking = asyncio.Lock()
        self._sampling = asyncio.Lock()
        self.workers = WorkerSums()

    @classmethod
    def on_bus(cls, redis: Redis, keys: Keys, pids: Callable[[], Mapping[str, int | None]]) -> WorkerReports:
        """Make one that takes reports from the bus.

        Args:
            redis: The bus.
            keys: Its keys.
            pids: Returns the pids of the supervisor's processes by kind; None for one that does not run.

        Returns:
            What takes them.
        """
        return cls(
            lambda: read_reports(redis, keys),
            lambda workers: forget_reports(redis, keys, workers),
            ProcessSampler(pids),
        )

    def __repr__(self) -> str:
        return f"WorkerReports({self.workers!r})"

    async def run(self) -> None:
        """Look until cancelled."""
        looks = 0
        while True:
            try:
                await self.take()
            except BUS_ERRORS as error:
                log.debug("no reports of workers", error=str(error))
            if looks % PROCESSES_EVERY == 0:
                await self.processes()
            looks += 1
            await pause_to_beat(self._interval_seconds)

    async def take(self) -> None:
        """Take the reports that are there. Raises BUS_ERRORS."""
        async with self._taking:
            found = {}
            for worker, data in (await self._read()).items():
                try:
                    found[worker] = Report.decode(data)
                except ValueError as error:
                    log.debug("report not readable", worker=worker, error=str(error))
            ended = self.workers.take(found, self._now())
            if ended:
                await self._forget(ended)

    async def processes(self) -> Mapping[str, ProcessFigures]:
        """Look at the processes; returns what each kind takes."""
        async with self._sampling:
            return await asyncio.to_thread(self._sampler.sample, self._sampler.pids)
