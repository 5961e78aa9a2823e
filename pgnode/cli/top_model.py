"""What ``pgnode top`` knows from one look to the next, and what its keys do. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from pgnode.cli.seen import Facts
from pgnode.supervisor.control.live_report import FlowReport, LiveReport, WorkerReport

#: Values of the past that are kept, one a look.
POINTS: Final = 200

#: Key -> by what rows are sorted.
SORT_KEYS: Final = {"d": "down", "u": "up", "t": "total", "n": "name"}

#: What is listed, in the order in which the key goes through them.
LISTS: Final = ("users", "inbounds", "outbounds")

QUIT_KEYS: Final = frozenset({"q", "Q", "\x03", "\x1b"})
LIST_KEYS: Final = frozenset({"\t", "l"})
PAUSE_KEYS: Final = frozenset({" ", "p"})

_ORDERS: Final[dict[str, Callable[[FlowReport], tuple[float, str]]]] = {
    "down": lambda flow: (-flow.down, flow.name),
    "up": lambda flow: (-flow.up, flow.name),
    "total": lambda flow: (-flow.total, flow.name),
    "name": lambda flow: (0.0, flow.name),
}


@dataclass(frozen=True, slots=True)
class SeenProcess:
    """The core's process, as the system says."""

    memory_bytes: int
    cpu_seconds: float
    #: Open files, nearly all of them sockets; None where the system does not tell.
    open_files: int | None


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at a node."""

    #: Seconds on a clock that nobody sets.
    at: float
    facts: Facts
    #: What its supervisor says; None where it does not answer.
    live: LiveReport | None
    core: SeenProcess | None


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """A worker, with its rate."""

    worker: WorkerReport
    #: Calls a second; None before the second look.
    calls: float | None


@dataclass(frozen=True, slots=True)
class Rates:
    """What changed from one look to the next, a second; None where there is none before."""

    calls: float | None = None
    errors: float | None = None
    #: Share of one processor that the core takes.
    core_cpu: float | None = None


class TopModel:
    """Takes looks and keys.

    Args:
        points: Values of the past that are kept.
    """

    def __init__(self, points: int = POINTS) -> None:
        self.sample: Sample | None = None
        self.rates = Rates()
        self.workers: list[WorkerRow] = []
        self.down: deque[float] = deque(maxlen=points)
        self.up: deque[float] = deque(maxlen=points)
        self.sockets: deque[float] = deque(maxlen=points)
        self.calls: deque[float] = deque(maxlen=points)
        self.sort = "down"
        self.listed = LISTS[0]
        self.paused = False

    def __repr__(self) -> str:
        return f"TopModel({self.listed} by {self.sort}, {len(self.down)} looks)"

    def take(self, sample: Sample) -> None:
        """Take a look into account; while it is paused nothing changes.

        Args:
            sample: The look.
        """
        if self.paused:
            return
        before, self.sample = self.sample, sample
        live = sample.live
        earlier = before.live if before is not None else None
        seconds = sample.at - before.at if before is not None else 0.0
        self.rates = Rates()
        self.workers = []
        if live is not None:
            self.rates = _rates(earlier, live, seconds)
            self.workers = list(_workers(earlier, live, seconds))
        if before is not None and sample.core is not None and before.core is not None and seconds > 0:
            used = sample.core.cpu_seconds - before.core.cpu_seconds
            if used >= 0:
                self.rates = Rates(self.rates.calls, self.rates.errors, used / seconds)
        self.down.append(live.down if live is not None else 0.0)
        self.up.append(live.up if live is not None else 0.0)
        self.calls.append(self.rates.calls or 0.0)
        open_files = sample.core.open_files if sample.core is not None else None
        self.sockets.append(float(open_files or 0))

    def press(self, key: str) -> bool:
        """Do what a key says.

        Args:
            key: The key.

        Returns:
            Whether it is the one that ends.
        """
        if key in SORT_KEYS:
            self.sort = SORT_KEYS[key]
        elif key in LIST_KEYS:
            self.listed = LISTS[(LISTS.index(self.listed) + 1) % len(LISTS)]
        elif key in PAUSE_KEYS:
            self.paused = not self.paused
        return key in QUIT_KEYS

    @property
    def rows(self) -> list[FlowReport]:
        """What is listed, in its order."""
        live = self.sample.live if self.sample is not None else None
        found: list[FlowReport] = getattr(live, self.listed) if live is not None else []
        return sorted(found, key=_ORDERS[self.sort])


def _rates(before: LiveReport | None, now: LiveReport, seconds: float) -> Rates:
    """Return the rates of calls; of a supervisor that began anew there are none yet."""
    if before is None or seconds <= 0 or now.calls < before.calls or now.errors < before.errors:
        return Rates()
    return Rates((now.calls - before.calls) / seconds, (now.errors - before.errors) / seconds)


def _workers(before: LiveReport | None, now: LiveReport, seconds: float) -> Iterable[WorkerRow]:
    known = {(worker.host, worker.pid): worker.calls for worker in before.workers} if before is not None else {}
    for worker in now.workers:
        calls = known.get((worker.host, worker.pid))
        more = worker.calls - calls if calls is not None else -1
        yield WorkerRow(worker, more / seconds if more >= 0 and seconds > 0 else None)
