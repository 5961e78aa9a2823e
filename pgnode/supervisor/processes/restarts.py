"""The one loop that brings processes back: Valkey, Gunicorn and every gRPC worker.

No process ends the node. One that does not stay up is tried again and again, after growing pauses: the core and its users'
connections go on meanwhile, and what kept the process from starting (a full disk, no memory, a port in use) may pass.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

import structlog

from pgnode.errors import ChildFailedError
from pgnode.os_support.clock import Clock
from pgnode.supervisor.processes.restart_policy import GiveUp, RestartPolicy

log = structlog.get_logger(__name__)


class Restartable(Protocol):
    """What the loop needs to know of a process, or of a slot for processes."""

    @property
    def name(self) -> str:
        """Its name in the log."""

    async def start(self) -> None:
        """Start it and wait until it works. Raises ChildFailedError."""

    async def ended(self) -> str:
        """Wait until it has to be started again; returns the reason, for the log."""


class Restarter:
    """Brings processes back. One per supervisor.

    Args:
        clock: Time and chance; tests replace it.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock if clock is not None else Clock()
        #: How often each process was started again, by name.
        self.restarts: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"Restarter({dict(self.restarts)})"

    async def keep(self, process: Restartable) -> None:
        """Start a process again whenever it ends, until cancelled.

        Args:
            process: One that runs.
        """
        policy = RestartPolicy(max_deaths=None)
        while True:
            reason = await process.ended()
            while True:
                pause = self._pause(policy)
                self.restarts[process.name] += 1
                log.warning("child ended, restarting", child=process.name, reason=reason, pause=round(pause, 2))
                await self._clock.sleep(pause)
                try:
                    await process.start()
                    break
                except (ChildFailedError, OSError) as error:
                    reason = str(error)
                except Exception as error:
                    log.exception("child not started", child=process.name)
                    reason = repr(error)

    def _pause(self, policy: RestartPolicy) -> float:
        """Return the seconds until the next start."""
        decision = policy.died(self._clock.now(), None, self._clock.chance())
        return policy.max_pause_seconds if isinstance(decision, GiveUp) else decision.delay_seconds
