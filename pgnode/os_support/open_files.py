"""Open files of this process: a word in the log when they run out."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import structlog

from pgnode.os_support.beats import pause_to_beat

log = structlog.get_logger(__name__)

#: Numbers of files below the limit at which it counts as reached: what is opened and closed again takes some.
RESERVE = 8

#: The share of the limit below which it counts as reached no more.
RELAXED = 0.8

#: Seconds between two checks.
CHECK_SECONDS = 1.0


class OpenFilesWatch:
    """Says once that no more files can be opened, and so no more connections be taken; servers do not say it.

    Args:
        limit: How many there may be; the soft limit of this process where none is given.
    """

    def __init__(self, limit: int | None = None) -> None:
        #: How many there may be.
        self.limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if limit is None else limit
        self._told = False
        #: Times at which the limit was reached.
        self.reached = 0

    def __repr__(self) -> str:
        return f"OpenFilesWatch({self.limit}{', reached' if self._told else ''})"

    async def run(self, check_seconds: float = CHECK_SECONDS) -> None:
        """Check until cancelled.

        Args:
            check_seconds: Seconds between two checks.
        """
        while True:
            self.check()
            await pause_to_beat(check_seconds)

    def check(self) -> None:
        """Say it where it is so and was not said; a while below the limit it may be said again."""
        number = _next_number()
        if number is not None and number < self.limit - RESERVE:
            self._told = self._told and number >= self.limit * RELAXED
        elif not self._told:
            self._told = True
            self.reached += 1
            log.warning(
                "no more connections are taken: this process has as many open files as it may have. "
                "Raise the limit (ulimit -Hn, LimitNOFILE in a unit of systemd)",
                limit=self.limit,
            )


def _next_number() -> int | None:
    """Return the number that the next file gets, the lowest that is free; None where there is none."""
    try:
        number = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    os.close(number)
    return number


def open_files(folder: Path = Path("/proc/self/fd")) -> int:
    """Return how many files this process has open.

    Args:
        folder: The kernel's folder of them, whose size is their number since Linux 6.2.

    Returns:
        The number; 0 where the system does not tell.
    """
    try:
        return folder.stat().st_size or len(os.listdir(folder))
    except OSError:
        return 0
