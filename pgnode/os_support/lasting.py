"""Tasks that go on for as long as their process does: what fails unexpectedly begins again after a pause, and is counted.

For workers. The supervisor's tasks have a table of their own, and vital ones among them (:mod:`pgnode.supervisor.tasks`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

from pgnode.os_support.clock import Clock

log = structlog.get_logger(__name__)

#: Seconds until a task begins again, the first time and at most: each failure doubles the pause, until the task has gone on for
#: longer than the longest one.
PAUSE_SECONDS = 1.0
PAUSE_MAX_SECONDS = 30.0


class Failures:
    """How often tasks failed."""

    def __init__(self) -> None:
        self.count = 0

    def __repr__(self) -> str:
        return f"Failures({self.count})"

    def add(self) -> None:
        """Count one."""
        self.count += 1


#: Those of this process.
FAILURES = Failures()


async def keep_going(
    name: str,
    work: Callable[[], Awaitable[None]],
    *,
    failures: Failures = FAILURES,
    clock: Clock | None = None,
) -> None:
    """Do work until cancelled; begin it again when it fails.

    Args:
        name: What the log calls it.
        work: What to do; it goes on until it is cancelled.
        failures: Counts.
        clock: Time; tests replace it.
    """
    clock = clock if clock is not None else Clock()
    pause_seconds = PAUSE_SECONDS
    while True:
        begun = clock.now()
        try:
            await work()
            log.error("task ended", task=name)
        except Exception:
            log.exception("task failed", task=name)
        failures.add()
        if clock.now() - begun > PAUSE_MAX_SECONDS:
            pause_seconds = PAUSE_SECONDS
        await clock.sleep(pause_seconds)
        pause_seconds = min(2 * pause_seconds, PAUSE_MAX_SECONDS)
