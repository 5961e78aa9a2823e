"""The REST workers, which Gunicorn's master keeps: how many there are, and how to have more, fewer, or others."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Protocol

import structlog

from pgnode.os_support.children import ZOMBIE, children
from pgnode.os_support.clock import Clock

log = structlog.get_logger(__name__)

#: Seconds between two signals: of two at once the second may be lost.
PACE_SECONDS = 0.2

#: Seconds within which a worker comes: at once, but for a machine that is very busy.
COMING_SECONDS = 10.0

#: Seconds within which workers leave: each gives its calls some.
LEAVING_SECONDS = 45.0

#: Seconds between two looks.
POLL_SECONDS = 0.05

#: How often signals are sent of which no worker came.
ATTEMPTS = 3


class Master(Protocol):
    """Gunicorn's master: :class:`pgnode.supervisor.processes.child.Child`."""

    @property
    def pid(self) -> int | None:
        """Its pid; None while it does not run."""

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""


def children_of(pid: int) -> list[int]:
    """Return the pids of a process's children; none where it has ended."""
    return [child for child, state in children(pid).items() if state != ZOMBIE]


class RestWorkers:
    """Belongs to the supervisor's loop.

    Args:
        master: Gunicorn's master; None where there is none, and no worker.
        children: Returns the pids of a process's children.
        clock: Time; tests replace it.
    """

    def __init__(
        self, master: Master, children: Callable[[int], list[int]] = children_of, clock: Clock | None = None
    ) -> None:
        self._master = master
        self._children = children
        self._clock = clock if clock is not None else Clock()
        #: How many more there are than the settings say, of which master: another one begins with the settings.
        self._more, self._more_of = 0, 0

    def __repr__(self) -> str:
        return f"RestWorkers({self._master!r}, {self.added:+d})"

    @property
    def added(self) -> int:
        """How many more were asked for than the settings say; negative for fewer."""
        return self._more if self._master.pid == self._more_of else 0

    async def pids(self) -> list[int]:
        """Return the workers, those included that are about to leave."""
        master = self._master.pid
        return await asyncio.to_thread(self._children, master) if master is not None else []

    async def change(self, by: int) -> None:
        """Have so many more, or fewer; returns when there are, or when nothing more is to be expected.

        Args:
            by: How many more; negative for fewer. Gunicorn keeps one in any case.
        """
        known = set(await self.pids())
        self._more, self._more_of = self.added + by, self._master.pid or 0
        if by < 0:
            # Never again: nobody sees whether one leaves already.
            await self._send(signal.SIGTTOU, -by)
            if await self._until(lambda now: len(now) <= len(known) + by, LEAVING_SECONDS):
                return
        else:
            missing = by
            for _ in range(ATTEMPTS):
                await self._send(signal.SIGTTIN, missing)
                if await self._until(lambda now: len(now - known) >= by, COMING_SECONDS):
                    return
                missing = by - len(set(await self.pids()) - known)
        log.warning("Gunicorn does not have the workers that were asked for", before=len(known), by=by)

    async def _send(self, number: signal.Signals, times: int) -> None:
        for _ in range(times):
            self._master.signal(number)
            await self._clock.sleep(PACE_SECONDS)

    async def restart_all(self) -> list[int]:
        """Have Gunicorn read its settings again and replace all workers; there are as many as the settings say again.

        Returns:
            Those that were there before and have not ended in time.
        """
        before = set(await self.pids())
        self.reread()
        return await self._left_of(before)

    async def restart(self, pid: int) -> list[int]:
        """End a worker in order; Gunicorn brings another one.

        Args:
            pid: One of :meth:`pids`.

        Returns:
            The worker, if it has not ended in time.
        """
        os.kill(pid, signal.SIGTERM)
        return await self._left_of({pid})

    def reread(self) -> None:
        """Have Gunicorn read its settings again and replace all workers, without waiting."""
        self._more = 0
        self._master.signal(signal.SIGHUP)

    async def _left_of(self, before: set[int]) -> list[int]:
        """Wait until workers have ended and others are there; return those that have not."""
        await self._until(lambda now: bool(now) and not before & now, LEAVING_SECONDS)
        return sorted(before & set(await self.pids()))

    async def _until(self, is_so: Callable[[set[int]], bool], seconds: float) -> bool:
        """Look at the workers until something is so; return whether it is in time."""
        until = self._clock.now() + seconds
        while not is_so(set(await self.pids())):
            if self._clock.now() >= until:
                return False
            await self._clock.sleep(POLL_SECONDS)
        return True
