"""What the supervisor's processes take of the machine: its own, Gunicorn's master, the core, Valkey."""

from __future__ import annotations

import resource
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import psutil

from pgnode.supervisor.figures.node_figures import ProcessFigures


@dataclass(frozen=True, slots=True)
class Sample:
    """One process at one moment."""

    #: Tells it from every other process, also from a later one with its pid.
    identity: tuple[int, float]
    figures: ProcessFigures


def sample_process(pid: int) -> Sample | None:
    """Look at a process; a core with many connections takes some milliseconds.

    Args:
        pid: Its pid.

    Returns:
        What it takes; None where it has ended, or the system does not tell.
    """
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return Sample(
                (pid, process.create_time()),
                ProcessFigures(
                    cpu_seconds=times.user + times.system,
                    memory_bytes=process.memory_info().rss,
                    open_files=process.num_fds(),
                    max_files=process.rlimit(resource.RLIMIT_NOFILE)[0],
                ),
            )
    except Exception:
        # It has ended; or whatever psutil makes of a file that is missing, empty or another one.
        return None


class ProcessSampler:
    """Looks at processes, and adds up their processor time, so that it does not fall when one ends.

    Args:
        pids: Returns the pids by kind; None for a process that does not run.
        look: Looks at one process.
    """

    def __init__(
        self, pids: Callable[[], Mapping[str, int | None]], look: Callable[[int], Sample | None] = sample_process
    ) -> None:
        self._pids = pids
        self._look = look
        self._last: dict[str, Sample] = {}
        self._cpu_seconds: Counter[str] = Counter()
        self._began = False

    def __repr__(self) -> str:
        return f"ProcessSampler({len(self._last)} processes)"

    @property
    def pids(self) -> Mapping[str, int | None]:
        """The pids by kind, now."""
        return self._pids()

    def sample(self, pids: Mapping[str, int | None]) -> dict[str, ProcessFigures]:
        """Look at all of them; may run in a thread, one call at a time.

        What a process used before the first look is not counted: it may be a core that is older than the supervisor.

        Args:
            pids: The pids by kind.

        Returns:
            What each kind takes.
        """
        found = {}
        for kind, pid in pids.items():
            sample = self._look(pid) if pid is not None else None
            if sample is None:
                continue
            before = self._last.get(kind)
            used: float = sample.figures.cpu_seconds
            if before is not None and before.identity == sample.identity:
                used -= before.figures.cpu_seconds
            if before is not None or self._began:
                self._cpu_seconds[kind] += max(0.0, used)  # type: ignore[assignment]  # Counter counts what one gives it
            self._last[kind] = sample
            found[kind] = replace(sample.figures, cpu_seconds=self._cpu_seconds[kind])
        self._began = True
        return found
