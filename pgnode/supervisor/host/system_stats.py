"""The machine's load: memory, processors, network."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TypeVar

import psutil
import structlog

from pgnode.supervisor.host.cgroup import Limits, read_limits
from pgnode.wire import service_pb2 as pb

log = structlog.get_logger(__name__)

#: A group without limits is looked at again after so many samples: it takes some ten files.
SAMPLES_PER_LOOK = 15

_T = TypeVar("_T")


def _network() -> tuple[int, int]:
    """Return the bytes received and sent over all interfaces but loopback."""
    received = sent = 0
    for name, counters in psutil.net_io_counters(pernic=True).items():
        if name != "lo":
            received += counters.bytes_recv
            sent += counters.bytes_sent
    return received, sent


def _memory() -> tuple[int, int]:
    """Return the bytes that there are, and that are in use."""
    memory = psutil.virtual_memory()
    return memory.total, memory.total - memory.available


class SystemSampler:
    """Load of the machine; speeds and CPU are differences since the last sample.

    In a container the limits of its control group are the machine's memory and processors.

    Args:
        limits: Reads these limits.
    """

    def __init__(self, limits: Callable[[], Limits] = read_limits) -> None:
        self._read_limits = limits
        self._samples = 0
        #: What could not be read, and was told.
        self._unknown: set[str] = set()
        self._read("processors", lambda: psutil.cpu_percent(None), 0.0)
        self._limits = limits()
        self._cpu_seconds = self._limits.cpu_seconds
        self._at = time.monotonic()
        self._received, self._sent = self._read("network", _network, (0, 0))
        self._cores = self._read("processors", lambda: psutil.cpu_count() or 1, 1)

    def _read(self, what: str, read: Callable[[], _T], otherwise: _T) -> _T:
        """Read figures of the system; where it hides them, as some containers do, that is said once."""
        try:
            return read()
        except Exception as error:
            # Whatever psutil makes of a file that is missing, empty or another one.
            if what not in self._unknown:
                self._unknown.add(what)
                log.warning("the system does not tell its load, it is shown as 0", what=what, error=repr(error))
            return otherwise

    def _limits_now(self) -> Limits:
        self._samples += 1
        limited = self._limits.memory_bytes is not None or self._limits.cpus is not None
        return self._read_limits() if limited or self._samples % SAMPLES_PER_LOOK == 0 else self._limits

    def sample(self) -> pb.SystemStatsResponse:
        """Return the load since the last sample. Reads files: call it in a thread."""
        now = time.monotonic()
        elapsed = max(1e-3, now - self._at)
        received, sent = self._read("network", _network, (self._received, self._sent))
        limits = self._limits = self._limits_now()
        mem_total, mem_used = self._read("memory", _memory, (0, 0))
        if limits.memory_bytes is not None and not 0 < mem_total <= limits.memory_bytes:
            mem_total = limits.memory_bytes
            mem_used = limits.memory_used_bytes if limits.memory_used_bytes is not None else min(mem_used, mem_total)
        cpu_cores, cpu_usage = self._cores, self._read("processors", lambda: psutil.cpu_percent(None), 0.0)
        if limits.cpus is not None and limits.cpus < self._cores:
            # A share of a processor counts as one.
            cpu_cores = math.ceil(limits.cpus)
            if limits.cpu_seconds is not None and self._cpu_seconds is not None:
                share = (limits.cpu_seconds - self._cpu_seconds) / elapsed / limits.cpus
                cpu_usage = round(min(100.0, max(0.0, 100 * share)), 1)
        self._cpu_seconds = limits.cpu_seconds
        answer = pb.SystemStatsResponse(
            mem_total=mem_total,
            mem_used=mem_used,
            cpu_cores=cpu_cores,
            cpu_usage=cpu_usage,
            # An interface that went away takes its counters with it: no negative speeds.
            incoming_bandwidth_speed=max(0, int((received - self._received) / elapsed)),
            outgoing_bandwidth_speed=max(0, int((sent - self._sent) / elapsed)),
            # Not the time minus that of the boot: the clock may be set.
            uptime=int(time.clock_gettime(time.CLOCK_BOOTTIME)),
        )
        self._at, self._received, self._sent = now, received, sent
        return answer
