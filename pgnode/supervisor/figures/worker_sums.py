"""Adds up what workers count, so that no sum ever falls: not when one dies, is replaced, hangs, or reports again. Pure.

A worker reports all that it counted since it began. What is added is the difference to what was seen of it before, so a report
that is lost is made good by the next one, and one that comes twice, or late, adds nothing. What a worker counted after its last
report ends with it.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

from pgnode.bus.reports import Report
from pgnode.metrics.instruments import Buckets

#: Seconds without a report after which a worker is no more.
GONE_SECONDS = 10.0

#: Workers that are no more and of which it is known what they had counted: one that only stood still reports again.
GONE_KEPT = 1000

#: Names of counts that are added up; what goes beyond is left out, since somebody invents names.
NAMES_MAX = 5_000


@dataclass(slots=True)
class _Seen:
    """What was seen of one worker."""

    report: Report
    #: Monotonic seconds of the last report that was new.
    at: float
    #: It has reported since this supervisor began; what is on the bus before may be of workers that are no more.
    proven: bool


@dataclass(slots=True)
class Sums:
    """What all workers counted, those that are no more included."""

    counts: dict[str, float] = field(default_factory=dict)
    times: dict[str, Buckets] = field(default_factory=dict)
    #: Workers that are no more, by kind and by whether they ended in order.
    gone: Counter[tuple[str, str]] = field(default_factory=Counter)


class WorkerSums:
    """Takes the workers' reports.

    Args:
        gone_seconds: Seconds without a report after which a worker is no more.
        gone_kept: Workers that are no more and are remembered.
    """

    def __init__(self, *, gone_seconds: float = GONE_SECONDS, gone_kept: int = GONE_KEPT) -> None:
        self._gone_seconds = gone_seconds
        self._gone_kept = gone_kept
        self._alive: dict[str, _Seen] = {}
        self._gone: OrderedDict[str, Report] = OrderedDict()
        self._began = False
        #: Monotonic seconds at which somebody with the key called last; None where nobody did.
        self.last_call_at: float | None = None
        self.sums = Sums()

    def __repr__(self) -> str:
        return f"WorkerSums({len(self._alive)} alive, {len(self._gone)} gone)"

    @property
    def alive(self) -> list[Report]:
        """The last report of each worker that is alive."""
        return [seen.report for seen in self._alive.values() if seen.proven]

    def take(self, reports: Mapping[str, Report], now: float) -> list[str]:
        """Take what is on the bus.

        What the first reports hold counts from here: earlier supervisors have told of it.

        Args:
            reports: The last report of each worker, by its name.
            now: Monotonic seconds.

        Returns:
            The workers that are no more, whose reports need not stay on the bus.
        """
        for worker, report in reports.items():
            self._take(worker, report, now)
        self._began = True
        ended = [worker for worker, seen in self._alive.items() if self._has_ended(seen, now)]
        for worker in ended:
            self._let_go(worker)
        return [worker for worker in reports if worker in self._gone]

    def _take(self, worker: str, report: Report, now: float) -> None:
        seen = self._alive.get(worker)
        before = seen.report if seen is not None else self._gone.get(worker)
        if before is not None and report.number <= before.number:
            return
        if before is not None or self._began:
            self._add(report, before)
        # One that was taken for dead may only have stood still.
        self._gone.pop(worker, None)
        self._alive[worker] = _Seen(report, now, proven=self._began)
        if report.idle_seconds is not None:
            called_at = now - report.idle_seconds
            self.last_call_at = called_at if self.last_call_at is None else max(self.last_call_at, called_at)

    def _add(self, report: Report, before: Report | None) -> None:
        counts = self.sums.counts
        known = before.counts if before is not None else {}
        for name, value in report.counts.items():
            more = value - known.get(name, 0)
            if more > 0 and (name in counts or len(counts) < NAMES_MAX):
                counts[name] = counts.get(name, 0) + more
        known_times = before.times if before is not None else {}
        for name, buckets in report.times.items():
            summed = self.sums.times.setdefault(name, [0.0] * len(buckets))
            for place, (value, was) in enumerate(
                zip(buckets, known_times.get(name) or [0.0] * len(buckets), strict=False)
            ):
                if place < len(summed):
                    summed[place] += max(0.0, value - was)

    def _has_ended(self, seen: _Seen, now: float) -> bool:
        return seen.report.last or now - seen.at >= self._gone_seconds

    def _let_go(self, worker: str) -> None:
        seen = self._alive.pop(worker)
        if seen.proven:
            self.sums.gone[seen.report.kind, "ended" if seen.report.last else "died"] += 1
        self._gone[worker] = seen.report
        if len(self._gone) > self._gone_kept:
            self._gone.popitem(last=False)
