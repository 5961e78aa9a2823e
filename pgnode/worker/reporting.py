"""Reports of this worker to the supervisor, once a second: what it counted, and how it is."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

import structlog

from pgnode import __version__
from pgnode.bus import reports
from pgnode.bus.connection import BUS_ERRORS
from pgnode.bus.protocol import PROTOCOL
from pgnode.bus.reports import SEPARATOR, Report
from pgnode.metrics.meter import FaceMeter, Meter
from pgnode.os_support.aio import end_tasks
from pgnode.os_support.beats import pause_to_beat
from pgnode.os_support.host_name import host_name
from pgnode.os_support.lasting import FAILURES, Failures, keep_going
from pgnode.os_support.loop_lag import LoopLag
from pgnode.os_support.open_files import OpenFilesWatch, open_files
from pgnode.os_support.own_usage import cpu_seconds, memory_bytes
from pgnode.settings.handover import runs_alone

log = structlog.get_logger(__name__)

#: Seconds between two reports.
REPORT_SECONDS = 1.0

#: Seconds that the last report may take, at the end of the worker.
LAST_SECONDS = 1.0

#: The face for monitors, whose calls are none of a panel.
MONITOR = "monitor"

WorkerKind = Literal["rest", "grpc"]


class Writer(Protocol):
    """Takes reports: :class:`pgnode.bus.report_channel.ReportWriter`."""

    async def write(self, report: bytes) -> None:
        """Put a report in place of the one before. Raises BUS_ERRORS."""

    def close(self) -> None:
        """Disconnect."""


@dataclass(frozen=True, slots=True)
class WorkerFacts:
    """What a worker knows of itself beside the calls that it counts."""

    kind: WorkerKind
    #: Open connections of callers, by face; nothing where that is not known.
    connections: Callable[[], Mapping[str, int]] = dict
    #: Connections that were ended for the conduct of their callers.
    cut_off: Callable[[], int] = lambda: 0
    #: Connections of callers that ALLOWED_CALLERS does not name, where the kernel let them through.
    not_allowed: Callable[[], int] = lambda: 0


class WorkerReporter:
    """Reports from :meth:`start` to :meth:`close`. Belongs to one event loop.

    Args:
        facts: What the worker knows of itself.
        meter: What it counts.
        writer: Takes the reports.
        log_viewers: Tells how many callers watch the log.
        files: Tells how often files ran out.
        failures: Tells how often tasks failed.
        now: Seconds on a clock that nobody sets.
        report_seconds: Seconds between two reports.
    """

    def __init__(
        self,
        facts: WorkerFacts,
        meter: Meter,
        writer: Writer,
        *,
        log_viewers: Callable[[], int],
        files: OpenFilesWatch,
        failures: Failures = FAILURES,
        now: Callable[[], float] = time.monotonic,
        report_seconds: float = REPORT_SECONDS,
    ) -> None:
        self._facts = facts
        self._meter = meter
        self._writer = writer
        self._log_viewers = log_viewers
        self._files = files
        self._failures = failures
        self._now = now
        self._report_seconds = report_seconds
        self._lag = LoopLag()
        self._host = host_name()
        self._number = 0
        self._began_at = now()
        #: Calls with a key until the last report, and when there was a new one.
        self._key_uses = 0
        self._called_at: float | None = None
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"WorkerReporter({self._facts.kind}, {self._number} reports)"

    def start(self) -> None:
        """Begin to report."""
        self._lag.start()
        self._task = asyncio.create_task(keep_going("reports", self._run))

    async def close(self) -> None:
        """Report a last time, and disconnect."""
        if self._task is not None:
            await end_tasks([self._task])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_SECONDS):
                    await self._write(self.report(last=True))
        self._lag.stop()
        self._writer.close()

    async def _run(self) -> None:
        while True:
            await self._write(self.report())
            await pause_to_beat(self._report_seconds)

    async def _write(self, report: Report) -> None:
        try:
            await self._writer.write(report.encode())
        except BUS_ERRORS as error:
            # The next one holds all of it.
            log.debug("the supervisor was not told how this worker is", error=str(error))

    def report(self, *, last: bool = False) -> Report:
        """Return how the worker is now.

        Args:
            last: The worker ends.

        Returns:
            The next report.
        """
        self._number += 1
        return self.figures(last=last)

    def figures(self, *, last: bool = False) -> Report:
        """Return how the worker is now, as in its reports.

        Args:
            last: The worker ends.

        Returns:
            What the next report would say, under the number of the last one.
        """
        faces = self._meter.faces
        key_uses = sum(sum(face.key_uses.values()) for name, face in faces.items() if name != MONITOR)
        if key_uses > self._key_uses:
            self._key_uses, self._called_at = key_uses, self._now()
        return Report(
            number=self._number,
            kind=self._facts.kind,
            counts={
                **counts_of(faces),
                reports.CUT_OFF: self._facts.cut_off(),
                SEPARATOR.join((reports.NOT_ALLOWED, self._facts.kind)): self._facts.not_allowed(),
                SEPARATOR.join((reports.FILES_EXHAUSTED, self._facts.kind)): self._files.reached,
                SEPARATOR.join((reports.TASK_FAILURES, self._facts.kind)): self._failures.count,
                SEPARATOR.join((reports.CPU_SECONDS, self._facts.kind)): cpu_seconds(),
            },
            times={
                SEPARATOR.join((reports.TIMES, name, group)): list(buckets)
                for name, face in faces.items()
                for group, buckets in face.times.items()
            },
            in_flight={name: face.in_flight for name, face in faces.items()},
            connections=self._facts.connections(),
            log_viewers=self._log_viewers(),
            idle_seconds=None if self._called_at is None else round(self._now() - self._called_at, 1),
            pid=os.getpid(),
            host=self._host,
            memory_bytes=memory_bytes(),
            open_files=open_files(),
            max_files=self._files.limit,
            lag_seconds=round(self._lag.longest_seconds, 4),
            last=last,
            version=__version__,
            protocol=PROTOCOL,
            up_seconds=round(self._now() - self._began_at, 1),
            alone=runs_alone(),
        )


def counts_of(faces: Mapping[str, FaceMeter]) -> dict[str, float]:
    """Return what was counted of each face, by the names that reports use.

    Args:
        faces: What counts.

    Returns:
        Name -> number.
    """
    found: dict[str, float] = {}
    for name, face in faces.items():
        for method, codes in face.calls.items():
            for code, number in codes.items():
                found[SEPARATOR.join((reports.CALLS, name, method, code))] = number
        if face.unauthenticated:
            found[SEPARATOR.join((reports.UNAUTHENTICATED, name))] = face.unauthenticated
        if face.limited:
            found[SEPARATOR.join((reports.LIMITED, name))] = face.limited
        for key, number in face.key_uses.items():
            counted = SEPARATOR.join((reports.KEY_USES, key))
            found[counted] = found.get(counted, 0) + number
    return found
